"""A run's money to the cent: what its jobs cost and hold, beside what its budgets say.

All amounts are the ledger's integers: shots, micro-dollars, microseconds of QPU time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.rows import Job
from qsgd_core.schedule.money import UNITS, Amount, Cap

TRIES = 5
"""Reads of a ledger that somebody writes to, before a difference counts as one."""


@dataclass(frozen=True)
class Sum:
    """What some jobs hold and have cost; ``unknown`` of them have an unknown amount.

    Of what was paid, ``provisional`` is booked at the hold: the vendor has not said yet.
    """

    held: int = 0
    paid: int = 0
    unknown: int = 0
    provisional: int = 0


@dataclass(frozen=True)
class Share:
    """One unit of a budget that a run's jobs are charged to.

    Attributes:
        budget: its name.
        unit: shots, micro_usd or qpu_us.
        cap, reserved, spent, overrun: the budget's own figures.
        run: what this run's jobs hold and have cost.
        others: what those of other runs do.
    """

    budget: str
    unit: str
    cap: int
    reserved: int
    spent: int
    overrun: int
    run: Sum
    others: Sum

    @property
    def balanced(self) -> bool:
        """Whether the jobs account for every cent of the budget's figures."""
        paid = self.run.paid + self.others.paid
        held = self.run.held + self.others.held
        return (held, paid) == (self.reserved, self.spent + self.overrun)


@dataclass(frozen=True)
class Audit:
    """A run on the ledger.

    Attributes:
        jobs: in the order they were asked for.
        totals: by unit, whether a budget caps it or not.
        shares: in the budgets that pay.
    """

    jobs: tuple[Job, ...]
    totals: dict[str, Sum]
    shares: tuple[Share, ...]

    @property
    def balanced(self) -> bool:
        """Whether every budget's figures are the sum of its jobs'."""
        return all(share.balanced for share in self.shares)


def audit(ledger: Ledger, run: str) -> Audit:
    """Add up a run's jobs, and those of its budgets, as of one moment."""
    for _ in range(TRIES):
        before = ledger.caps()
        jobs = ledger.jobs()
        found = _audit(jobs, before, run)
        if found.balanced or ledger.caps() == before:
            break
    return found


def overrun(job: Job, unit: str) -> int:
    """What was billed above the hold."""
    paid, held = job.spent.of(unit), job.hold.of(unit)
    return max(0, (paid or 0) - held) if held is not None else 0


def _audit(jobs: list[Job], caps: list[Cap], run: str) -> Audit:
    own = [job for job in jobs if job.run == run]
    budgets = {job.budget for job in own}
    shares = []
    for cap in caps:
        if cap.budget in budgets:
            charged = [job for job in jobs if job.budget == cap.budget]
            shares.append(
                Share(
                    cap.budget,
                    cap.unit,
                    cap.cap,
                    cap.reserved,
                    cap.spent,
                    cap.overrun,
                    run=_sum((j for j in charged if j.run == run), cap.unit),
                    others=_sum((j for j in charged if j.run != run), cap.unit),
                )
            )
    return Audit(tuple(own), {unit: _sum(own, unit) for unit in UNITS}, tuple(shares))


def _sum(jobs: Iterable[Job], unit: str) -> Sum:
    held = paid = unknown = provisional = 0
    for job in jobs:
        of: Amount | None = None
        if job.settled_at is not None:
            of = job.spent
            paid += of.of(unit) or 0
            provisional += job.provisional.of(unit) or 0
        elif job.state.is_holding:
            of = job.hold
            held += of.of(unit) or 0
        unknown += of is not None and of.of(unit) is None
    return Sum(held, paid, unknown, provisional)
