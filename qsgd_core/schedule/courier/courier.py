"""The courier's rounds: intents become jobs, jobs become results, doubts are looked up.

It holds no state that matters: everything it knows is in the ledger, so it may be killed at any
instant and another one goes on. A submission is made once per tag; after any doubt the job is
looked for by its tag, and "not found" means "does not exist" only once the vendor's find horizon
has passed.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable

from qsgd_core.backend import Backend
from qsgd_core.errors import (
    AuthError,
    BackendError,
    BudgetError,
    JobFailedError,
    QSGDError,
    ResultCorruptError,
    TransientError,
    may_exist,
)
from qsgd_core.jobs import JobState, Limit, Quote, merged
from qsgd_core.schedule.ages import AgeTimer
from qsgd_core.schedule.audit.findings import book, compare
from qsgd_core.schedule.audit.statement import Stated, Statement, listed
from qsgd_core.schedule.failures import may_work_later, say_error
from qsgd_core.schedule.ledger.accounts import say_overrun
from qsgd_core.schedule.ledger.budgets import default_budget
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.rows import Job
from qsgd_core.schedule.ledger.states import OPEN, UNSENT, LedgerState
from qsgd_core.schedule.money import Amount, Cap
from qsgd_core.schedule.paid_run import DEFAULT_BUDGET

logger = logging.getLogger("qsgd_core.courier")

POLL_S = (0.1, 30.0)
"""First and longest wait between two looks at a job."""
LEDGER_S = 1.0
"""Wait between two looks at a ledger that does not answer."""
GUARD_S = 30 * 86400.0
"""A service's own spending limit lapses after this long if nobody lifts it."""
CLOCKS_S = 86400.0
"""A service's clock may differ from ours; its times may be without a zone."""
LATE_WATCH_S = 7 * 86400.0
"""For this long a job that was never found is looked for again: it may turn up after all."""


class Courier:
    """Serves the jobs of one run on one backend. One at a time: see :meth:`Ledger.serve`.

    What the backend raises for a moment is tried again later. What it raises for good before a job
    exists ends that job; after that the job stays open, for it is paid for, and is looked at again
    later. The others go on meanwhile: a round raises only when no open job of the run can be
    served any more. A job that neither its own name nor its tag finds at the vendor has ended.

    Args:
        ledger: the mailbox.
        backend: the service.
        run: whose jobs.
        submit: False to submit nothing, only to recover and collect what there is.
        clock: seconds since the epoch, for dates.
        timer: seconds from any origin, never set back, for durations.
    """

    def __init__(
        self,
        ledger: Ledger,
        backend: Backend,
        *,
        run: str,
        submit: bool = True,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._backend = backend
        self._run = run
        self._states = [state for state in OPEN if submit or not state.is_unsent]
        self._clock = clock
        self._timer = timer
        self._ages = AgeTimer(clock, timer)
        self._next_look: dict[str, float] = {}
        self._wait: dict[str, float] = {}
        self._next_late = -math.inf
        self._next_bill = -math.inf
        self._submits = submit
        self._overruns: set[Cap] = set()
        self._stuck: dict[str, Exception] = {}
        self._told_stuck: set[str] = set()
        self.trouble: tuple[float, str] | None = None
        """By the timer, since when service or ledger have not answered; what was said instead."""

    def round(self) -> bool:
        """One pass over the open jobs that are due. Whether any of them changed its state.

        Raises:
            Exception: what the first of them met with, if all open jobs are stuck.
        """
        try:
            changed = self._look_for_the_late() | self.ask_for_bills(at_once=not self._submits)
            jobs = self._ledger.jobs(run=self._run, states=self._states)
        except TransientError as error:  # the ledger itself: locked, or its server is away
            self._note(error, self._run)
            return False
        for job in jobs:
            if self._timer() < self._next_look.get(job.tag, -math.inf):
                continue
            if self._unless_for_a_moment(self._serve, job):
                changed = True
                self._next_look.pop(job.tag, None)
                self._wait.pop(job.tag, None)
            else:
                self._look_later(job.tag)
        if jobs and all(job.tag in self._stuck for job in jobs):
            self.require_none_stuck()
        return changed

    def require_none_stuck(self) -> None:
        """Raise what the first job met with that could not be served, if there is one."""
        for error in self._stuck.values():
            raise error

    def newly_stuck(self) -> list[str]:
        """What stops single jobs while the others go on, in words, each job once."""
        new = {tag: error for tag, error in self._stuck.items() if tag not in self._told_stuck}
        self._told_stuck |= set(new)
        return [
            f"Job {tag} cannot be brought forward: {say_error(error)} The run's other jobs go on; "
            "this one is tried again."
            for tag, error in new.items()
        ]

    def idle_s(self) -> float:
        """How long until there is something to look at, unless a new intent arrives."""
        try:
            jobs = self._ledger.jobs(run=self._run, states=self._states)
            self._next_bill = min(self._next_bill, self._when_a_bill_is_due())
        except TransientError:
            return LEDGER_S
        now = self._timer()
        due = [self._next_look.get(job.tag, -math.inf) - now for job in jobs]
        due += [self._next_bill - now] if self._submits else []
        return max(0.0, min(due, default=POLL_S[1]))

    def overruns(self) -> list[str]:
        """What vendors have billed above what was held, in words, each time that it grows."""
        found = set(self._ledger.frozen(self._run))
        known = {(cap.budget, cap.unit, cap.overrun) for cap in self._overruns}
        self._overruns = found
        new = [cap for cap in found if (cap.budget, cap.unit, cap.overrun) not in known]
        return [say_overrun(cap) for cap in sorted(new, key=lambda cap: (cap.budget, cap.unit))]

    def _look_later(self, tag: str) -> None:
        wait = self._wait.get(tag, POLL_S[0])
        self._next_look[tag] = self._timer() + wait
        self._wait[tag] = min(wait * 1.5, POLL_S[1])

    def _unless_for_a_moment(self, act: Callable[[Job], bool], job: Job) -> bool:
        """What ``act`` returns; False, with a line in the log, if it raised."""
        try:
            done = act(job)
        except Exception as error:  # a plugin's or an SDK's, of one job: the others go on
            if isinstance(error, BackendError) and may_work_later(error):
                self._note(error, job.tag)
            elif self._is_gone(job, error):
                return self._give_up(job, error)
            else:
                logger.warning("%s", job.tag, exc_info=error)
                self._stuck[job.tag] = error
            return False
        self._stuck.pop(job.tag, None)
        if job.state.needs_the_service:
            self.trouble = None
        return done

    def _is_gone(self, job: Job, error: Exception) -> bool:
        """Whether the vendor, which ``error`` says fails for this job, no longer lists it either.

        A job of the last moments may not be listed yet; a list that cannot be had says nothing.
        """
        if job.handle is None or job.state is LedgerState.STORED or isinstance(error, AuthError):
            return False
        age = self._ages.of(job.tag, job.handle.submitted_at)
        try:
            listed = self._backend.find(job.tag)
        except Exception as unlisted:  # noqa: BLE001  a plugin's or an SDK's
            logger.warning("%s: %r; nor can it be looked for: %r", job.tag, error, unlisted)
            return False
        there = {handle.job_id for handle in listed}
        return job.handle.job_id not in there and age > self._backend.capabilities.find_horizon_s

    def _give_up(self, job: Job, error: Exception) -> bool:
        """The vendor has lost the job. What it cost is not known: the hold is booked."""
        self._stuck.pop(job.tag, None)
        assert job.handle is not None  # noqa: S101 - _is_gone saw to it
        gone = JobFailedError(
            f"{job.backend!r} no longer has job {job.handle.job_id}, asked for at step {job.step} "
            f"({say_error(error)}) What it cost is not known: what was held for it is booked.",
            handle=job.handle.to_json(),
            may_have_spent=True,
        )
        logger.warning("%s: %s", job.tag, gone)
        if job.state is LedgerState.STRAY:
            return self._ledger.settle_stray(job.tag, Amount())
        return self._ledger.fail(job.tag, gone, Amount())

    def _note(self, error: BackendError, whose: str) -> None:
        logger.warning("%s: %s", whose, error)
        self.trouble = self.trouble or (self._timer(), str(error))

    def _serve(self, job: Job) -> bool:
        if job.state is LedgerState.INTENT:
            return self._reserve(job)
        if job.state is LedgerState.RESERVED:
            return self._submit(job)
        if job.state is LedgerState.SUBMITTING:
            return self._resolve_doubt(job)
        if job.state is LedgerState.SUBMITTED:
            return self._collect(job)
        if job.state is LedgerState.STRAY:
            return self._cancel_stray(job)
        return self._settle(job)

    def _reserve(self, job: Job) -> bool:
        try:
            quote = self._backend.quote(self._ledger.workload(job.tag), shots=job.shots)
        except QSGDError as error:
            if may_work_later(error):
                raise
            return self._ledger.fail(job.tag, error, Amount(0, 0, 0))
        budget = self.budget_for(job.budget, quote)
        if budget != job.budget:
            self._ledger.charge_to(job.tag, budget)
        try:
            self._ledger.reserve(job.tag, Amount.from_cost(quote.worst))
        except BudgetError as error:
            logger.warning("%s", error)
        return True

    def budget_for(self, asked: str, quote: Quote) -> str:
        """The budget that pays for a job with this quote."""
        if asked != DEFAULT_BUDGET:
            return asked
        return default_budget(self._ledger, quote, account=self._backend.account())

    def cancel_queued(self) -> None:
        """The run is over: give up what was not sent, cancel what waits; let run what runs."""
        for job in self._ledger.jobs(run=self._run, states=UNSENT):
            self._ledger.cancel(job.tag)
        for job in self._ledger.jobs(run=self._run, states=(LedgerState.SUBMITTED,)):
            self._unless_for_a_moment(self._cancel_if_queued, job)

    def _cancel_if_queued(self, job: Job) -> bool:
        assert job.handle is not None  # noqa: S101 - a submitted job has one
        if self._backend.status(job.handle).state is not JobState.QUEUED:
            return False
        self._ledger.cancel(job.tag)
        self._next_look.pop(job.tag, None)
        return True

    def audit(self) -> list[str]:
        """At the run's end: find what the service made of this run's jobs by itself, in words.

        A job under the run's tags that the ledger does not know becomes a stray, which the next
        rounds cancel and pay for; bills that have not been stated are asked for once more. What
        cannot be asked now is found by ``qsgd jobs audit``.
        """
        jobs = self._ledger.jobs(run=self._run)
        sent = [job for job in jobs if job.submitted_at is not None]
        if not sent:
            return []
        tags = {job.tag for job in sent}
        try:
            since = min(job.created_at for job in sent) - CLOCKS_S
            complete, handles = listed(self._backend, since=since, tags=tags)
        except Exception as error:  # noqa: BLE001  a plugin: the run's end does not depend on it
            logger.warning("%r could not be audited: %s", self._backend.name, error)
            return []
        there = tuple(Stated(handle) for handle in handles.values() if handle.tag in tags)
        statement = Statement(self._backend.name, complete, there)
        found = [f for f in compare(self._ledger, statement) if f.kind.is_booked]
        book(self._ledger, found)
        self.ask_for_bills(at_once=True)
        return [str(finding) for finding in found]

    def lift_guard(self) -> None:
        """Lift the service's own spending limit, at the run's end."""
        if guard := self._ledger.guard(self._run):
            self._backend.unguard(guard)
            self._ledger.guarded(self._run, None)

    def _set_guard(self, job: Job) -> None:
        """Once a run: what is left of a budget in dollars becomes the service's own limit too.

        The ledger holds without it, so a service that does not set it does not stop the run.
        """
        cap = next((c for c in self._ledger.caps(job.budget) if c.unit == "micro_usd"), None)
        if cap is None or self._ledger.guard(self._run) is not None:
            return
        try:
            guard = self._backend.guard(cap.unbilled / 1e6, until=self._clock() + GUARD_S)
        except QSGDError as error:
            logger.warning("The service did not set a spending limit of its own: %s", error)
            guard = None
        self._ledger.guarded(self._run, guard or "")

    def _submit(self, job: Job) -> bool:
        work = self._ledger.workload(job.tag)
        hold = job.hold.to_cost()
        self._set_guard(job)
        if not self._ledger.begin_submit(job.tag):
            return False
        try:
            handle = self._backend.submit(
                work,
                shots=job.shots,
                tag=job.tag,
                limit=Limit(usd=hold.usd, qpu_s=hold.qpu_s, shots=hold.shots),
                seed=job.seed,
            )
        except QSGDError as error:
            return self._not_submitted(job, error)
        except Exception as error:  # a plugin's surprise
            logger.exception("%s: submit failed unexpectedly.", job.tag)
            said = f"{self._backend.name!r} failed on submitting: {type(error).__name__}: {error}"
            named = BackendError(said, nothing_made=not may_exist(error))
            return self._not_submitted(job, named)
        self._ledger.submitted(job.tag, handle)
        logger.info(
            "%s: job %s on %s, %d circuits × %d shots, up to %s",
            job.tag,
            handle.job_id,
            self._backend.name,
            work.n_rows,
            job.shots,
            hold,
        )
        return True

    def _not_submitted(self, job: Job, error: QSGDError) -> bool:
        """The call gave no handle: no job, no job for now, or nobody knows."""
        if may_exist(error):
            logger.warning("%s: %s It is looked for by its tag.", job.tag, error)
            if not may_work_later(error):
                self._ledger.doubted(job.tag, error)
            return True
        if may_work_later(error):
            self._ledger.not_sent(job.tag)
            raise error
        return self._ledger.fail(job.tag, error, Amount(0, 0, 0))

    def _resolve_doubt(self, job: Job) -> bool:
        """The job may or may not exist: adopt it, or refund it once that is known."""
        since = self._ledger.doubt(job.tag)
        age = self._ages.of(job.tag, since)  # before the look: what the list shows is no newer
        handles = self._backend.find(job.tag)
        if handles:
            first, *extras = sorted(handles, key=lambda h: (h.submitted_at, h.job_id))
            for extra in extras:  # noted before the job is adopted: then nobody looks any more
                logger.warning("%s: extra job %s is cancelled.", job.tag, extra.job_id)
                self._ledger.stray(job.tag, extra)
            return self._ledger.submitted(job.tag, first)
        if age <= self._backend.capabilities.find_horizon_s:
            return False
        if job.error is not None:
            return self._ledger.fail(job.tag, job.error, Amount(0, 0, 0))
        return self._ledger.refund(job.tag, f"{self._backend.name!r} has no job under this tag")

    def _collect(self, job: Job) -> bool:
        assert job.handle is not None  # noqa: S101 - a submitted job has one
        if job.cancel_asked is not None:
            self._cancel(job)
        status = self._backend.status(job.handle)
        if status.queue_position != job.queue_position and not status.state.final:
            self._ledger.queued(job.tag, status.queue_position)
        if not status.state.final:
            return False
        if status.state is not JobState.DONE:
            return self._ledger.fail(
                job.tag,
                JobFailedError(
                    f"Job {job.handle.job_id} on {job.backend!r}, asked for at step {job.step}, "
                    f"was {status.state}: {status.reason or 'the vendor gives no reason'}. See "
                    "qsgd jobs list.",
                    handle=job.handle.to_json(),
                    may_have_spent=True,
                ),
                Amount.from_cost(status.billed),
            )
        try:
            result = self._backend.fetch(job.handle)
            who = f"Backend {job.backend!r}"
            result.expectations(self._ledger.workload(job.tag), of=who)  # raises unless it fits
        except (JobFailedError, ResultCorruptError) as error:
            if error.retryable:
                raise
            return self._ledger.fail(job.tag, error, Amount.from_cost(status.billed))
        result = dataclasses.replace(result, billed=merged(result.billed, status.billed))
        self._ledger.store(job.tag, result)
        return self._settle(job)

    def _settle(self, job: Job) -> bool:
        billed = Amount.from_cost(self._ledger.result(job.tag).billed)
        logger.info("%s: done, billed %s", job.tag, billed.to_cost())
        return self._ledger.settle(job.tag, billed)

    def _cancel_stray(self, job: Job) -> bool:
        assert job.handle is not None  # noqa: S101 - that is how it became known
        self._cancel(job)
        status = self._backend.status(job.handle)
        if not status.state.final:
            return False
        return self._ledger.settle_stray(job.tag, self._bill(job))

    def _cancel(self, job: Job) -> None:
        """Ask for it; a job that the service will not cancel can be collected all the same."""
        assert job.handle is not None  # noqa: S101 - that is how it became known
        try:
            self._backend.cancel(job.handle)
        except Exception as error:  # noqa: BLE001  a plugin's or an SDK's; the status tells the rest
            logger.warning("%s: not cancelled: %s", job.tag, say_error(error))

    def ask_for_bills(self, *, at_once: bool) -> bool:
        """Ask what jobs cost that are booked at their hold; whether any has been told.

        Nothing that goes wrong here stops the courier: the hold stays booked.

        Args:
            at_once: ask for each of the run's; else for those that are due, of every run on the
                same backend with the same options: theirs may have no courier any more.
        """
        if not at_once and self._timer() < self._next_bill:
            return False
        told, now = False, self._clock()
        for job in self._ledger.unstated(run=self._run, alike=not at_once):
            if at_once or (job.ask_at is not None and job.ask_at <= now):
                told |= self._ask_for_bill(job)
        self._next_bill = self._when_a_bill_is_due()
        return told

    def _when_a_bill_is_due(self) -> float:
        """By the timer, the next time to ask for one; other runs' may be new by then."""
        dates = [job.ask_at for job in self._ledger.unstated(run=self._run, alike=True)]
        waits = [at - self._clock() for at in dates if at is not None]
        return self._timer() + max(0.0, min(*waits, POLL_S[1]) if waits else POLL_S[1])

    def _ask_for_bill(self, job: Job) -> bool:
        billed = self._bill(job)
        was = self._ledger.state(job.tag, billed)
        if was is not None:
            logger.info("%s: billed %s, booked so far %s", job.tag, billed.to_cost(), was.to_cost())
        return was is not None

    def _bill(self, job: Job) -> Amount:
        """What the service says that a job cost, which may be nothing as yet."""
        assert job.handle is not None  # noqa: S101 - only such jobs are asked for
        try:
            return Amount.from_cost(self._backend.billed(job.handle))
        except Exception as error:  # noqa: BLE001  a plugin: what was paid for is still collected
            logger.warning("%s: what it cost was not told: %s", job.tag, say_error(error))
            return Amount()

    def _look_for_the_late(self) -> bool:
        """What was given back as never made may turn up after the horizon all the same."""
        now = self._timer()
        if now < self._next_late:
            return False
        self._next_late = now + POLL_S[1]
        changed = False
        for job in self._ledger.never_found(run=self._run):
            if self._ages.of(job.tag, job.doubt_since or 0.0) <= LATE_WATCH_S:
                changed |= self._unless_for_a_moment(self._find_late, job)
        return changed

    def _find_late(self, job: Job) -> bool:
        found = [self._ledger.stray(job.tag, handle) for handle in self._backend.find(job.tag)]
        return any(found)
