"""The ledger: budgets, reservations, the life of every job, stored results.

intent → reserved → submitting → submitted → stored → settled, with the ends denied, failed and
refunded. A job that turns up at the vendor although nobody waits for it (a refunded one that comes
late, the second of two under one tag) is a stray: it is cancelled, and what it costs is spent.
Every arrow is one guarded transaction, so that two processes, or one that is killed at any instant,
cannot take it twice. A job is paid for in the ledger before it exists, and a hold is given back
only when it is known that the job does not exist or what it cost.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from qsgd_core.circuits import Workload
from qsgd_core.errors import BudgetError, ConfigError, JobFailedError, QSGDError
from qsgd_core.jobs import JobHandle, Result
from qsgd_core.schedule.failures import pack_error
from qsgd_core.schedule.ledger import accounts
from qsgd_core.schedule.ledger.bills import Bills, provisional
from qsgd_core.schedule.ledger.database import Database
from qsgd_core.schedule.ledger.rows import Job, find_job, to_job
from qsgd_core.schedule.ledger.runs import Runs
from qsgd_core.schedule.ledger.states import OPEN, UNSENT, LedgerState, before
from qsgd_core.schedule.ledger.tables import jobs as jobs_table
from qsgd_core.schedule.ledger.tables import payloads
from qsgd_core.schedule.ledger.writes import NONE, Write
from qsgd_core.schedule.money import UNITS, Amount, Cap
from qsgd_core.schedule.storage import pack_result, pack_workload, unpack_result, unpack_workload


class Ledger(Runs, Bills):
    """Budgets and jobs in one database, shared by any number of processes.

    Args:
        url: SQLAlchemy URL.
        clock: seconds since the epoch.
        known_as: the :attr:`id` of the ledger that must be there; None: whichever is, or a new one.
        seen: a write that must be in it.

    Attributes:
        url: absolute.
        id: of this ledger.

    Raises:
        ConfigError: the database cannot be opened. Every method may raise TransientError when
            another process keeps it locked.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] = time.time,
        known_as: str | None = None,
        seen: Write = NONE,
    ) -> None:
        self._clock = clock
        self._database = Database(url, known_as=known_as, seen=seen)
        self.url, self.id = self._database.url, self._database.id

    @property
    def seen(self) -> Write:
        """The newest write that was found in it; in the same ledger it is found again."""
        return self._database.seen

    # -- budgets ---------------------------------------------------------------------------

    def create_budget(self, name: str, limits: Mapping[str, int]) -> None:
        """A new budget with a cap in each of the given units.

        Raises:
            ConfigError: no unit, a unit that does not exist, a cap below 1, or a name in use.
        """
        with self._database.write() as db:
            if accounts.read_caps(db, name):
                raise ConfigError(
                    f"Budget {name!r} exists already. Raise it with qsgd budget raise {name} "
                    "AMOUNT, or give another name."
                )
            accounts.create(db, name, limits, now=self._clock())

    def ensure_budget(self, name: str, limits: Mapping[str, int]) -> None:
        """The budget, made if it does not exist; an existing one is never changed."""
        with self._database.write() as db:
            if not accounts.read_caps(db, name):
                accounts.create(db, name, limits, now=self._clock())

    def raise_budget(self, name: str, limits: Mapping[str, int]) -> None:
        """Set higher caps, all or none; jobs that were denied may try again.

        A frozen budget stays frozen until its overrun fits under the cap.

        Raises:
            ConfigError: no such budget or unit, or a cap that is not higher.
        """
        with self._database.write() as db:
            accounts.raise_caps(db, name, limits)
            _move(db, LedgerState.INTENT, jobs_table.c.budget == name, error=None)

    def caps(self, name: str | None = None) -> list[Cap]:
        """The caps of one budget, or of all."""
        with self._database.read() as db:
            return accounts.read_caps(db, name)

    # -- the life of a job -----------------------------------------------------------------

    def add_intent(
        self,
        work: Workload,
        *,
        tag: str,
        run: str,
        budget: str,
        backend: str,
        options: Mapping[str, Any],
        step: int,
        part: int,
        attempt: int,
        shots: int,
        seed: int,
        asked: bytes | None = None,
    ) -> Job:
        """Write down what is to be measured. The same tag again gives the job that is there.

        ``asked`` is kept with it: the question that the job is a part of, see :meth:`asked`.
        """
        with self._database.write() as db:
            found = find_job(db, tag)
            if found is not None:
                return found
            db.execute(
                jobs_table.insert().values(
                    tag=tag,
                    run=run,
                    budget=budget,
                    backend=backend,
                    options=json.dumps(dict(options), sort_keys=True),
                    step=step,
                    part=part,
                    attempt=attempt,
                    digest=work.digest(),
                    shots=shots,
                    seed=seed,
                    state=LedgerState.INTENT,
                    created_at=self._clock(),
                )
            )
            _store(db, tag, "workload", pack_workload(work))
            if asked is not None:
                _store(db, tag, "asked", asked)
        return self.job(tag)

    def charge_to(self, tag: str, budget: str) -> None:
        """Name the budget that pays for an intent."""
        with self._database.write() as db:
            where = (jobs_table.c.tag == tag, jobs_table.c.state == LedgerState.INTENT)
            db.execute(jobs_table.update().where(*where).values(budget=budget))

    def reserve(self, tag: str, hold: Amount) -> None:
        """intent → reserved: hold the worst case in every capped unit, all or nothing.

        Raises:
            BudgetExceededError: it does not fit; the job is denied until the cap is raised.
            BudgetError: the cost is unknown in a unit that the budget caps, or there is no such
                budget; the job is denied.
        """
        with self._database.write() as db:
            job = find_job(db, tag)
            if job is None or job.state is not LedgerState.INTENT:
                return
            limits = accounts.read_caps(db, job.budget)
            refusal: BudgetError | None = BudgetError(f"There is no budget {job.budget!r}.")
            if limits:
                refusal = accounts.refusal(limits, hold, backend=job.backend)
            if refusal is not None:
                _move_job(db, tag, LedgerState.DENIED, error=pack_error(refusal))
            else:
                accounts.hold(db, limits, hold)
                holds = {f"hold_{unit}": hold.of(unit) for unit in UNITS}
                _move_job(db, tag, LedgerState.RESERVED, **holds)
        if refusal is not None:
            raise refusal

    def begin_submit(self, tag: str) -> bool:
        """reserved → submitting. True for exactly one caller: that one may submit."""
        with self._database.write() as db:
            return _move_job(db, tag, LedgerState.SUBMITTING, submitted_at=self._clock())

    def not_sent(self, tag: str) -> bool:
        """submitting → reserved: the service refused the call outright; it may be made again."""
        with self._database.write() as db:
            where = jobs_table.c.state == LedgerState.SUBMITTING
            return _move_job(db, tag, LedgerState.RESERVED, where, submitted_at=None)

    def doubt(self, tag: str) -> float:
        """Since when nobody has been submitting this job and nobody knows whether it exists.

        Counted from the first call, made when the call that submitted it is over or its process is
        dead: until then the job may still come to be.
        """
        with self._database.write() as db:
            now = self._clock()
            where = (jobs_table.c.tag == tag, jobs_table.c.doubt_since.is_(None))
            db.execute(jobs_table.update().where(*where).values(doubt_since=now))
            since = db.execute(
                sa.select(jobs_table.c.doubt_since).where(jobs_table.c.tag == tag)
            ).scalar()
        return now if since is None else float(since)

    def doubted(self, tag: str, error: QSGDError) -> bool:
        """Keep what a submission ended with: why it failed, should the job not be found."""
        with self._database.write() as db:
            where = (jobs_table.c.tag == tag, jobs_table.c.state == LedgerState.SUBMITTING)
            update = jobs_table.update().where(*where).values(error=pack_error(error))
            return db.execute(update).rowcount == 1

    def submitted(self, tag: str, handle: JobHandle) -> bool:
        """submitting → submitted: the job exists and this is its name."""
        with self._database.write() as db:
            named = {"handle": handle.to_json(), "doubt_since": None, "error": None}
            return _move_job(db, tag, LedgerState.SUBMITTED, **named)

    def queued(self, tag: str, position: int | None) -> None:
        """Keep where a submitted job is in the vendor's queue; None: it runs, or nobody says."""
        with self._database.write() as db:
            where = (jobs_table.c.tag == tag, jobs_table.c.state == LedgerState.SUBMITTED)
            db.execute(jobs_table.update().where(*where).values(queue_position=position))

    def store(self, tag: str, result: Result) -> bool:
        """submitted → stored: the result is safe before anything else happens to it."""
        with self._database.write() as db:
            moved = _move_job(db, tag, LedgerState.STORED)
            if moved:
                _store(db, tag, "result", pack_result(result))
            return moved

    def settle(self, tag: str, actual: Amount) -> bool:
        """stored → settled: the hold becomes spending. False if it had been settled before.

        What is unknown in ``actual`` is taken to be the hold until it is stated: see
        :meth:`state`. What a vendor billed above the hold goes to ``overrun``, which freezes the
        budget; settling itself never fails.
        """
        return self._close(tag, LedgerState.SETTLED, actual)

    def fail(self, tag: str, error: QSGDError, actual: Amount) -> bool:
        """The job ended without a result: the hold becomes what it cost all the same."""
        known = [state for state in OPEN if state is not LedgerState.STRAY]
        return self._close(tag, LedgerState.FAILED, actual, of=known, error=error)

    def refund(self, tag: str, reason: str) -> bool:
        """submitting → refunded: the job does not exist, and the hold is given back."""
        error = JobFailedError(f"Job {tag} was given up: {reason}.")
        return self._close(tag, LedgerState.REFUNDED, Amount(0, 0, 0), error=error)

    def stray(self, tag: str, handle: JobHandle) -> bool:
        """A job under this tag that nobody waits for turned up: it is to be cancelled.

        A job that was given up as never made, free of charge, becomes the stray itself; beside any
        other job, the stray gets a row of its own. False if it is on the ledger already.
        """
        with self._database.write() as db:
            job = find_job(db, tag)
            if job is None or (job.handle and job.handle.job_id == handle.job_id):
                return False
            named = {"handle": handle.to_json(), "settled_at": None, "unheld": True}
            named |= dict.fromkeys(("unstated", "ask_at", "n_asks", "corrected_at"))
            named |= dict.fromkeys(f"spent_{unit}" for unit in UNITS)
            free = job.handle is None and not any(job.spent.of(unit) for unit in UNITS)
            if free and _move_job(db, tag, LedgerState.STRAY, **named):
                return True
            own = f"{tag}+{hashlib.sha256(handle.job_id.encode()).hexdigest()[:8]}"
            if find_job(db, own) is not None:
                return False
            row = db.execute(sa.select(jobs_table).where(jobs_table.c.tag == tag)).mappings().one()
            first = {"state": LedgerState.STRAY, "came_from": None, "consumed_step": None}
            copy = {**row, **named, **first, "tag": own}
            db.execute(jobs_table.insert().values(copy))
            return True

    def settle_stray(self, tag: str, actual: Amount) -> bool:
        """stray → failed: what it cost is spent, over the cap if need be."""
        error = JobFailedError(
            f"Job {tag} turned up at the vendor although nobody waited for it, and was cancelled.",
            may_have_spent=True,
        )
        return self._close(tag, LedgerState.FAILED, actual, of=(LedgerState.STRAY,), error=error)

    def consume(self, tag: str, step: int) -> None:
        """Note the step at which the result was first applied."""
        with self._database.write() as db:
            where = (jobs_table.c.tag == tag, jobs_table.c.consumed_step.is_(None))
            db.execute(jobs_table.update().where(*where).values(consumed_step=step))

    def cancel(self, tag: str) -> Job:
        """Give up a job that was not submitted; have the courier cancel one that was.

        Raises:
            ConfigError: there is no such job.
        """
        error = JobFailedError(f"Job {tag} was cancelled before it was submitted; it cost nothing.")
        if not self._close(tag, LedgerState.FAILED, Amount(0, 0, 0), of=UNSENT, error=error):
            with self._database.write() as db:
                where = (jobs_table.c.tag == tag, jobs_table.c.state.in_(OPEN))
                db.execute(jobs_table.update().where(*where).values(cancel_asked=self._clock()))
        return self.job(tag)

    # -- reading ---------------------------------------------------------------------------

    def job(self, tag: str) -> Job:
        """One job.

        Raises:
            ConfigError: there is none under this tag.
        """
        with self._database.read() as db:
            found = find_job(db, tag)
        if found is None:
            raise ConfigError(f"The ledger has no job {tag!r}. See qsgd jobs list.")
        return found

    def jobs(
        self,
        *,
        run: str | None = None,
        step: int | None = None,
        states: Iterable[LedgerState] | None = None,
    ) -> list[Job]:
        """Jobs in the order they were asked for."""
        order = (jobs_table.c.created_at, jobs_table.c.step, jobs_table.c.part, jobs_table.c.tag)
        query = sa.select(jobs_table).order_by(*order)
        if run is not None:
            query = query.where(jobs_table.c.run == run)
        if step is not None:
            query = query.where(jobs_table.c.step == step)
        if states is not None:
            query = query.where(jobs_table.c.state.in_(tuple(states)))
        with self._database.read() as db:
            return [to_job(row) for row in db.execute(query).mappings()]

    def never_found(self, *, run: str | None = None) -> list[Job]:
        """Jobs that were given up after a doubt: they may turn up at the vendor after all."""
        jobs = self.jobs(run=run, states=before(LedgerState.STRAY))
        return [job for job in jobs if job.handle is None and job.doubt_since is not None]

    def paid_before(self) -> bool:
        """Whether any job on this ledger has ever come to be at a vendor."""
        query = sa.select(sa.exists().where(jobs_table.c.handle.is_not(None)))
        with self._database.read() as db:
            return bool(db.execute(query).scalar())

    def frozen(self, run: str) -> list[Cap]:
        """The caps above which a vendor has billed, of the budgets that pay for a run's jobs."""
        mine = sa.select(jobs_table.c.budget).where(jobs_table.c.run == run).distinct()
        with self._database.read() as db:
            names = list(db.execute(mine).scalars())
            found = [cap for name in names for cap in accounts.read_caps(db, name)]
        return [cap for cap in found if cap.overrun]

    def workload(self, tag: str) -> Workload:
        """What the job measures, to the bit."""
        return unpack_workload(self._payload(tag, "workload"))

    def result(self, tag: str) -> Result:
        """What was measured.

        Raises:
            ConfigError: nothing is stored under this tag.
        """
        return unpack_result(self._payload(tag, "result"))

    def asked(self, tag: str) -> bytes | None:
        """What :meth:`add_intent` was given to keep; None if there is nothing."""
        where = (payloads.c.tag == tag, payloads.c.kind == "asked")
        with self._database.read() as db:
            data = db.execute(sa.select(payloads.c.data).where(*where)).scalar()
        return None if data is None else bytes(data)

    def queue_times(self, backend: str, *, most: int = 200) -> list[float]:
        """Seconds from submission to result of the newest settled jobs on a backend."""
        took = jobs_table.c.settled_at - jobs_table.c.submitted_at
        query = (
            sa.select(took)
            .where(jobs_table.c.backend == backend, jobs_table.c.state == LedgerState.SETTLED)
            .order_by(jobs_table.c.settled_at.desc())
            .limit(most)
        )
        with self._database.read() as db:
            return [float(s) for (s,) in db.execute(query) if s is not None and s >= 0]

    def _payload(self, tag: str, kind: str) -> bytes:
        where = (payloads.c.tag == tag, payloads.c.kind == kind)
        with self._database.read() as db:
            data = db.execute(sa.select(payloads.c.data).where(*where)).scalar()
        if data is None:
            state = self.job(tag).state
            raise ConfigError(f"The ledger has no {kind} for job {tag!r}; it is {state}.")
        return bytes(data)

    def _close(
        self,
        tag: str,
        after: LedgerState,
        actual: Amount,
        *,
        of: Iterable[LedgerState] = LedgerState,
        error: QSGDError | None = None,
    ) -> bool:
        """End a job, if it is in one of the states ``of``: its hold goes, its cost is spent."""
        with self._database.write() as db:
            job = find_job(db, tag)
            if job is None or job.state not in set(before(after)).intersection(of):
                return False
            now, limits = self._clock(), accounts.read_caps(db, job.budget)
            cost = provisional(job.hold, actual, limits, now=now)
            text = None if error is None else pack_error(error)
            _move_job(db, tag, after, error=text, settled_at=now, **cost)
            paid = Amount(**{unit: cost[f"spent_{unit}"] for unit in UNITS})
            accounts.spend(
                db,
                job.budget,
                held=None if job.unheld or job.state is LedgerState.STRAY else job.hold,
                paid=paid,
            )
            return True


def _move_job(
    db: sa.Connection,
    tag: str,
    after: LedgerState,
    *where: sa.ColumnElement[bool],
    **values: object,
) -> bool:
    """Change a job's state if a move leads there from the one that it has; whether it does."""
    return _move(db, after, jobs_table.c.tag == tag, *where, **values) == 1


def _move(
    db: sa.Connection, after: LedgerState, *where: sa.ColumnElement[bool], **values: object
) -> int:
    """Change the state of the jobs from whose own a move leads there; how many there were."""
    state = jobs_table.c.state
    moved = {"state": after, "came_from": state, **values}
    update = jobs_table.update().where(state.in_(before(after)), *where).values(moved)
    return db.execute(update).rowcount


def _store(db: sa.Connection, tag: str, kind: str, data: bytes) -> None:
    db.execute(payloads.insert().values(tag=tag, kind=kind, data=data))
