"""What is refused before a job is sent, because IBM would stop it half-way or leave it unrun."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qsgd_core.errors import BackendError
from qsgd_ibm.pricing import worst_s

if TYPE_CHECKING:
    from qsgd_core.jobs import Limit


def max_execution_time(
    expected: float, limit: Limit, *, executions: int, usd_per_s: float | None
) -> int:
    """Whole QPU seconds that IBM is told to stop the job after.

    Args:
        expected: QPU seconds.
        limit: what may be spent; IBM enforces the seconds.
        executions: rows times shots, all batches together.
        usd_per_s: price of a QPU second; None is unknown.

    Raises:
        BackendError: the job does not fit its limit.
    """
    bounds = [float(worst_s(expected))]
    if limit.qpu_s is not None:
        bounds.append(limit.qpu_s)
    if limit.usd is not None and usd_per_s is None:
        raise BackendError(
            f"The limit is ${limit.usd:g}, and what a QPU second costs on this plan is not known. "
            "Nothing was sent. Give the price, as in --option usd_per_s=1.6, or a budget in "
            "seconds, as in --budget 60s."
        )
    if limit.usd is not None and usd_per_s:
        bounds.append(limit.usd / usd_per_s)
    if limit.shots is not None and executions > limit.shots:
        raise BackendError(
            f"The job has {executions} executions and its limit is {limit.shots}. Nothing was sent."
        )
    seconds = math.floor(round(min(bounds), 6))  # $9.60 at $1.60 a second are six seconds
    if seconds < max(1.0, expected):
        raise BackendError(
            f"The job is expected to take {expected:.1f} s of QPU time and its limit is "
            f"{min(bounds):.1f} s: IBM would stop it half-way and charge for it. Nothing was sent. "
            "Raise the limit, or use fewer rows or shots."
        )
    return seconds


def require_usage(usage: dict[str, Any], expected: float, *, account: str) -> None:
    """Refuse a job that the plan has no time left for. IBM's client only warns, and sends it.

    Args:
        usage: as ``QiskitRuntimeService.usage()`` returns it.
        expected: QPU seconds.
        account: instance and plan, for the message.

    Raises:
        BackendError: with the numbers.
    """
    limit = usage.get("usage_limit_seconds") or usage.get("usage_allocation_seconds")
    left = usage.get("usage_remaining_seconds")
    if usage.get("usage_limit_reached") or (left is not None and left < expected):
        used = usage.get("usage_consumed_seconds", "?")
        raise BackendError(
            f"The job is expected to take {expected:.1f} s of QPU time; this account ({account}) "
            f"has used {used} s of {limit or '?'} s. Nothing was sent. Use fewer rows or shots, "
            "wait until time is made available, or set QSGD_BACKEND=fake_fez.",
            provider_code="usage_limit",
        )
