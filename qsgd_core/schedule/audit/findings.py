"""A service's statement beside the ledger: what differs, and how it is booked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from qsgd_core.jobs import JobHandle
from qsgd_core.schedule.audit.statement import Stated, Statement
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.rows import Job
from qsgd_core.schedule.ledger.states import LedgerState
from qsgd_core.schedule.money import UNITS, Amount, say


class FindingKind(StrEnum):
    """How a job at the service and the ledger differ."""

    TURNED_UP = "turned up"
    """The ledger took it for never made, and it is there."""
    DUPLICATE = "duplicate"
    """A second job under the tag of one that the ledger has."""
    LATE = "late"
    """Booked at its hold, and the service says by now what it cost."""
    DIFFERENT = "different"
    """Booked as one amount, and the service says another."""
    IN_DOUBT = "in doubt"
    """There, while the ledger does not know yet whether it was made: its courier will see to it."""
    UNSTATED = "unstated"
    """Booked at its hold, and the service still does not say what it cost."""
    UNKNOWN = "unknown"
    """Carries our mark, and its tag is not on this ledger: another ledger's, or a lost one's."""
    GONE = "gone"
    """The ledger has paid for it, and the service has it no more."""
    UNASKED = "unasked"
    """The service could not be asked about it."""

    @property
    def is_booked(self) -> bool:
        """Whether there is something to book."""
        return self in (self.TURNED_UP, self.DUPLICATE, self.LATE, self.DIFFERENT)


@dataclass(frozen=True)
class Finding:
    """One difference.

    Attributes:
        kind: what differs.
        backend: the service.
        handle: the job there.
        run: whose it is; None where the ledger does not know it.
        booked_as: tag of the ledger's own job that it is; None where there is none.
        booked: what the ledger has for it; None where it has nothing.
        billed: what the service says; unknown in some or all units.
        problem: why it could not be asked.
    """

    kind: FindingKind
    backend: str
    handle: JobHandle
    run: str | None = None
    booked_as: str | None = None
    booked: Amount | None = None
    billed: Amount = field(default_factory=Amount)
    problem: str | None = None

    def __str__(self) -> str:
        """One line for people."""
        job = f"{self.handle.job_id} of {self.backend} (tag {self.handle.tag})"
        billed, booked = _say(self.billed), _say(self.booked or Amount())
        cost = f"It cost {billed}." if billed else "What it cost is not known yet."
        return {
            FindingKind.TURNED_UP: f"{job} exists, and the ledger had given it up. {cost}",
            FindingKind.DUPLICATE: f"{job} is a second job under one tag. {cost}",
            FindingKind.LATE: f"{job} cost {billed}; it is booked at its hold, {booked}.",
            FindingKind.DIFFERENT: f"{job} cost {billed}; {booked} is booked.",
            FindingKind.IN_DOUBT: f"{job} is still being looked for: qsgd jobs resume {self.run}.",
            FindingKind.UNSTATED: f"{job} is booked at its hold, {booked}: the service has not "
            "said what it cost.",
            FindingKind.UNKNOWN: f"{job} has our mark and is not on this ledger. {cost}",
            FindingKind.GONE: f"{job} is not at the service any more; {booked} stays booked.",
            FindingKind.UNASKED: f"{job} could not be asked about: {self.problem}",
        }[self.kind]


def compare(ledger: Ledger, statement: Statement) -> list[Finding]:
    """Where a statement and the ledger, as it is now, differ.

    The statement must be the older of the two: a job that is submitted meanwhile is on the ledger
    before it is at the service.
    """
    jobs = ledger.jobs()
    by_tag = {job.tag: job for job in jobs}
    by_id = {job.handle.job_id: job for job in jobs if job.handle is not None}
    found = (
        _look(statement.backend, stated, by_id.get(stated.handle.job_id), by_tag)
        for stated in statement.jobs
    )
    return [finding for finding in found if finding is not None]


def book(ledger: Ledger, findings: Iterable[Finding]) -> set[str]:
    """Bring the ledger to what the service says; what turned up is to be cancelled and paid for.

    Made again after a crash, it books what is left and nothing twice.

    Returns:
        The runs whose couriers have jobs to cancel now.
    """
    runs = set()
    for finding in findings:
        if finding.kind in (FindingKind.LATE, FindingKind.DIFFERENT):
            assert finding.booked_as is not None  # noqa: S101 - such a job is the ledger's
            ledger.correct(finding.booked_as, finding.billed)
        elif finding.kind.is_booked:
            ledger.stray(finding.handle.tag, finding.handle)
            runs.add(finding.run or "")
    return runs


def _look(backend: str, stated: Stated, job: Job | None, by_tag: dict[str, Job]) -> Finding | None:
    tagged = by_tag.get(stated.handle.tag)
    if job is not None:
        kind = _of_known(job, stated)
        if kind is None:
            return None
        return Finding(
            kind,
            backend,
            stated.handle,
            run=job.run,
            booked_as=job.tag,
            booked=job.spent,
            billed=stated.billed,
            problem=stated.problem,
        )
    if tagged is None:
        kind = FindingKind.UNKNOWN
    elif tagged.state is LedgerState.SUBMITTING:
        kind = FindingKind.IN_DOUBT
    else:
        kind = FindingKind.DUPLICATE if tagged.handle else FindingKind.TURNED_UP
    run = None if tagged is None else tagged.run
    return Finding(
        kind, backend, stated.handle, run=run, billed=stated.billed, problem=stated.problem
    )


def _of_known(job: Job, stated: Stated) -> FindingKind | None:
    if not job.state.has_cost:
        return None  # its courier will see to it
    if stated.problem is not None:
        return FindingKind.GONE if stated.gone else FindingKind.UNASKED
    says = {unit: stated.billed.of(unit) for unit in UNITS if stated.billed.of(unit) is not None}
    if any(unit in says for unit in job.unstated):
        return FindingKind.LATE
    if any(amount != job.spent.of(unit) for unit, amount in says.items()):
        return FindingKind.DIFFERENT
    return FindingKind.UNSTATED if job.unstated else None


def _say(amount: Amount) -> str:
    known = [(unit, amount.of(unit)) for unit in UNITS]
    said = [say(unit, n) for unit, n in known if n is not None]
    return ", ".join(said)
