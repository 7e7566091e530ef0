"""IBM's job records as JobStatus: which states are final, and what was billed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from qsgd_core.errors import TransientError
from qsgd_core.jobs import Cost, JobState, JobStatus

_RAN_TOO_LONG = 1305


def read_state(job: dict[str, Any]) -> JobStatus:
    """The state in a job record of ``GET /jobs/{id}``.

    Every status that starts with CANCEL or FAIL is final, whatever follows: the client waits for
    ever on ``Cancelled - Ran too long`` (Qiskit/qiskit-ibm-runtime issue 2673).

    Raises:
        TransientError: the record has no state.
    """
    state = job.get("state")
    said = state.get("status") if isinstance(state, dict) else job.get("status")
    if not isinstance(said, str) or not said:
        raise TransientError(
            f"IBM's record of job {job.get('id')} has no status; found {state!r}.", retryable=True
        )
    reason = _reason(said, state if isinstance(state, dict) else {})
    match said.upper():
        case "COMPLETED" | "DONE":
            return JobStatus(JobState.DONE, reason)
        case text if text.startswith("CANCEL"):
            return JobStatus(JobState.CANCELLED, reason)
        case text if text.startswith(("FAIL", "ERROR")):
            return JobStatus(JobState.FAILED, reason)
        case "RUNNING" | "IN PROGRESS":
            return JobStatus(JobState.RUNNING, reason)
        case _:
            position = job.get("position_in_queue")
            return JobStatus(
                JobState.QUEUED, reason, position if isinstance(position, int) else None
            )


def read_billed(metrics: dict[str, Any], *, shots: int | None, usd_per_s: float | None) -> Cost:
    """What ``GET /jobs/{id}/metrics`` says was charged; unknown while IBM still counts.

    Args:
        metrics: as it came; may be empty.
        shots: executions, where they are known; none were run when nothing was charged.
        usd_per_s: price of a QPU second; None is unknown.
    """
    usage = metrics.get("usage")
    seconds = None
    if isinstance(usage, dict) and usage.get("status", "pending") != "pending":
        found = usage.get("qpu_charge_time_seconds")
        if isinstance(found, int | float) and not isinstance(found, bool):
            seconds = float(found)
    usd = None if seconds is None or usd_per_s is None else seconds * usd_per_s
    return Cost(usd=usd, qpu_s=seconds, shots=0 if seconds == 0.0 and shots is None else shots)


def read_executed_at(metrics: dict[str, Any]) -> float | None:
    """When the circuits started to run, seconds since the epoch."""
    stamps = metrics.get("timestamps")
    text = stamps.get("running") if isinstance(stamps, dict) else None
    return epoch_s(text)


def epoch_s(text: object) -> float | None:
    """An ISO 8601 time as seconds since the epoch; without a zone it is UTC."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _reason(said: str, state: dict[str, Any]) -> str | None:
    code = state.get("reason_code") or state.get("reasonCode")
    parts = [str(state["reason"])] if state.get("reason") else []
    if "RAN TOO LONG" in said.upper() or code == _RAN_TOO_LONG:
        parts.insert(0, "it ran longer than its max_execution_time")
    if code:
        parts.append(f"error code {code}")
    return "; ".join(parts) or None
