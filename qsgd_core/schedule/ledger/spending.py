"""What a run's jobs have cost so far."""

from __future__ import annotations

from dataclasses import dataclass

from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.money import Amount


@dataclass(frozen=True)
class Spending:
    """Jobs that exist at the vendor and what they cost; a hold counts until it is settled.

    None means that the vendor does not say. Of the cost and the QPU time, ``provisional_usd`` and
    ``provisional_qpu_s`` are booked at the hold, because the vendor has not said yet.
    """

    jobs: int
    shots: int | None
    cost_usd: float | None
    qpu_s: float | None
    provisional_usd: float | None
    provisional_qpu_s: float | None


def spending(ledger: Ledger, run: str) -> Spending:
    """What a run's jobs have cost so far."""
    jobs = [j for j in ledger.jobs(run=run) if j.handle is not None]
    cost = Amount.total(j.hold if j.settled_at is None else j.spent for j in jobs).to_cost()
    provisional = Amount.total(job.provisional for job in jobs).to_cost()
    return Spending(
        jobs=len(jobs),
        shots=cost.shots,
        cost_usd=cost.usd,
        qpu_s=cost.qpu_s,
        provisional_usd=provisional.usd,
        provisional_qpu_s=provisional.qpu_s,
    )
