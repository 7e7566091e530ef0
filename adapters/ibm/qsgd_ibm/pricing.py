"""What a job takes and costs before it is sent: IBM's own time model, and nothing guessed.

IBM documents (guide "Estimate job run time") 2 s per job plus, for every execution, the repetition
delay and the circuit. Dollars are known only for plans that are free or whose price was given.
"""

from __future__ import annotations

import math

from qsgd_core.jobs import Cost, Quote

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


def quote(expected: float, *, shots: int, usd_per_s: float | None) -> Quote:
    """The quote for ``expected`` QPU seconds and ``shots`` executions.

    Args:
        expected: QPU seconds.
        shots: executions in all.
        usd_per_s: price of a QPU second; 0 on a free plan; None when it is not known.
    """

    def cost(seconds: float) -> Cost:
        usd = None if usd_per_s is None else seconds * usd_per_s
        return Cost(usd=usd, qpu_s=seconds, shots=shots)

    return Quote(cost(expected), cost(float(worst_s(expected))), SOURCE, EFFECTIVE_DATE)
