"""What a job takes and costs before it is sent: IBM's own time model, and nothing guessed.

IBM documents (guide "Estimate job run time") 2 s per job plus, for every execution, the repetition
delay and the circuit. Dollars are known for plans that are free, that the price table has, or whose
price was given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qsgd_core.jobs import Cost, Quote
from qsgd_core.prices import find_price

OVERHEAD_S = 2.0
DEFAULT_REP_DELAY_S = 250e-6
MAX_JOB_S = 3 * 3600
"""A job's own limit at IBM."""
SOURCE = "IBM Quantum documentation, guide 'Estimate job run time': 2 s + executions x duration"
EFFECTIVE_DATE = "2026-11-21"


def expected_s(executions: float, *, rep_delay_s: float, circuit_s: float) -> float:
    """QPU seconds of one job."""
    return OVERHEAD_S + executions * (rep_delay_s + circuit_s)


def worst_s(expected: float) -> int:
    """Whole QPU seconds after which IBM is told to stop the job: half as much again, and 2 s."""
    return min(MAX_JOB_S, math.ceil(1.5 * expected + OVERHEAD_S))


@dataclass(frozen=True)
class Rate:
    """What a QPU second costs: 0 on a free plan, None when it is not known."""

    usd_per_s: float | None
    source: str
    effective_date: str = EFFECTIVE_DATE


def rate(device: str, *, given: float | None, plan: str | None, free: bool) -> Rate:
    """The price of a QPU second: the user's own, then what IBM says, then the price table.

    Args:
        device: its name.
        given: the option ``usd_per_s``.
        plan: the instance's plan as IBM names it.
        free: IBM says that the plan costs nothing.

    Raises:
        ConfigError: the user's own price table cannot be read.
    """
    if given is not None:
        return Rate(given, "option usd_per_s")
    if free:
        return Rate(0.0, f"IBM: plan {plan} is free")
    row = find_price(device, plan=plan)
    if row is None or row.per_second_usd is None:
        return Rate(None, "dollars unknown: set usd_per_s")
    return Rate(row.per_second_usd, row.source, row.effective_date)


def quote(expected: float, *, shots: int, rate: Rate) -> Quote:
    """The quote for ``expected`` QPU seconds and ``shots`` executions at ``rate``."""

    def cost(seconds: float) -> Cost:
        usd = None if rate.usd_per_s is None else seconds * rate.usd_per_s
        return Cost(usd=usd, qpu_s=seconds, shots=shots)

    source = f"{SOURCE}; {rate.source}"
    return Quote(cost(expected), cost(float(worst_s(expected))), source, rate.effective_date)
