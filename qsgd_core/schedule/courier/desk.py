"""The courier's desk: takes the trainer's frames, and tells it what came of them.

A refresh that was asked for becomes jobs on the ledger, together with the question itself; the
courier's rounds bring them forward; what has arrived teaches the twin and goes to the trainer as a
snapshot. Like the courier it holds no state that matters: on opening it picks up from the ledger
every refresh of the run that the trainer has not learned from yet.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qsgd_core.backend import Backend
from qsgd_core.circuits import Workload
from qsgd_core.errors import QSGDError, ResultCorruptError
from qsgd_core.jobs import Quote
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.courier.refreshes import Refresh, asked_before, tag
from qsgd_core.schedule.courier.teacher import Teacher
from qsgd_core.schedule.failures import may_work_later, pack_error, say_error
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.rows import Job
from qsgd_core.schedule.ledger.states import OPEN, LedgerState
from qsgd_core.schedule.messages import (
    Account,
    Answer,
    Applied,
    Ask,
    Finish,
    Finished,
    Frame,
    Happened,
    Message,
    News,
    Noted,
    Open,
    Opened,
    QuoteAsked,
    Refused,
    read_message,
)
from qsgd_core.schedule.money import Amount, Cap
from qsgd_core.schedule.packing.pieces import sites_in_turns
from qsgd_core.schedule.packing.tiles import pack
from qsgd_core.schedule.packing.turns import require_affordable_size
from qsgd_core.schedule.packing.ways import best_way
from qsgd_core.schedule.questions import not_the_same, same_within
from qsgd_core.schedule.record.entries import OutcomeEntry
from qsgd_core.schedule.record.writer import RecordWriter
from qsgd_core.schedule.snapshot import Snapshot
from qsgd_core.seeds import derive_seed

logger = logging.getLogger("qsgd_core.courier")

MAX_ATTEMPTS = 3
"""Times a part of a refresh is sent when each one turns out not to have reached the vendor."""
TROUBLE_S = 60.0
"""A service that has not answered for so long is worth telling."""


class Desk:
    """Serves one trainer's run. All its methods are called between two rounds of the courier.

    Args:
        ledger: where the jobs are.
        backend: the service; asked for quotes and its calibration.
        courier: brings the jobs forward.
        run: the run's id.
        clock: seconds since the epoch, for dates.
        timer: seconds from any origin, never set back, for durations.
    """

    def __init__(
        self,
        ledger: Ledger,
        backend: Backend,
        courier: Courier,
        *,
        run: str,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._backend = backend
        self._courier = courier
        self._run = run
        self._clock = clock
        self._timer = timer
        self._out: list[Frame] = []
        self._open: Open | None = None
        self._record: RecordWriter | None = None
        self._teacher = Teacher("hold")
        self._learned: set[int] = set()
        self._pending: dict[int, Refresh] = {}
        self._earlier: dict[int, float] = {}
        """Refreshes that were on the ledger before, and when they were asked for."""
        self._tiles = 1
        self._shots: int | None = None
        self._quote: Quote | None = None
        self._budget: str | None = None
        self._told_of_trouble = False
        self._told: list[Cap] = []
        self._planned: float | None = None
        self._finishing = False
        self._later: list[Callable[[], None]] = []

    @property
    def _trainer(self) -> Open:
        """Where the trainer has said that it stands."""
        assert self._open is not None  # noqa: S101  nothing else is listened to before
        return self._open

    # -- what the trainer says -------------------------------------------------------------

    def take(self, frame: Frame) -> None:
        """Act on a message; what there is to say about it comes with :meth:`news`.

        Raises:
            ConfigError: the trainer speaks another version of the protocol.
            ResultCorruptError: it is no message to a courier.
        """
        message = read_message(frame)
        logger.debug("heard %s", message)
        if self._open is None and not isinstance(message, Open):
            return  # meant for an earlier courier; all is said again
        match message:
            case Open():
                self._on_open(message)
            case QuoteAsked():
                self._on_quote(message)
            case Ask():
                self._on_ask(message)
            case Applied():
                self._on_applied(message)
            case Happened(what=what, message=words, step=step):
                if self._record is not None:
                    self._record.event(step, what, words)
            case Finish():
                self._on_finish()
            case News():
                pass  # to wake up is all there is to do
            case _:
                raise ResultCorruptError(f"A courier is not told {frame.kind!r}.")

    def _on_open(self, asked: Open) -> None:
        """A trainer that starts, comes back, or has a new courier."""
        self._open = asked
        self._learned = set(asked.learned)
        if asked.run.record is not None:
            if self._record is None:
                self._record = RecordWriter(Path(asked.run.record), clock=self._clock)
            header = asked.run.header() | {"pinned": self._backend.name}
            self._record.begin(header, step=asked.step)
        last = asked.latest
        snapshot = None if last is None else Snapshot.from_frame(Frame.decode(last.tobytes()))
        self._teacher = Teacher(asked.between, snapshot)
        alive = (*OPEN, LedgerState.SETTLED)
        steps = {job.step for job in self._ledger.jobs(run=self._run, states=alive)}
        ahead: set[int] = set()
        if asked.waits:  # it asks again when it comes to them: each step has its own s
            ahead = {step for step in steps - self._learned if step >= asked.step}
        for step in sorted(steps - ahead - self._learned - set(self._pending)):
            if (before := self._asked_before(step)) is not None:
                self._pend(before, again=False)
        asked_at = max(steps - ahead, default=None)
        self._say(Opened(asked_at, sorted(ahead)))

    def _on_quote(self, asked: QuoteAsked) -> None:
        """What a refresh would cost, and the twin before any result."""
        try:
            self._look_at(asked.work, asked.shots)
        except QSGDError as error:
            if may_work_later(error):
                self._again_later(lambda: self._on_quote(asked), error)
            else:
                self._say(Refused(pack_error(error)))
            return
        if self._teacher.nominal is not None:
            self._say(self._teacher.nominal)
        self._say(self._account())

    def _on_ask(self, ask: Ask) -> None:
        """A refresh: its jobs go on the ledger, with the question."""
        self._planned = ask.planned
        if ask.step in self._pending:
            return
        if ask.step in self._learned:  # its answer may have been lost together with a courier
            self._say(Answer(ask.step))
        elif (before := self._asked_before(ask.step)) is None:
            self._pend(ask, again=False)
        else:
            first = self._trainer.waits and not self._learned
            within = same_within(ask.shots) if first or self._trainer.waits_for_each else None
            error = not_the_same(before, ask.work, shots=ask.shots, run=self._run, radians=within)
            if error is None:
                self._pend(before, again=True)
            else:
                self._say(Answer(ask.step, pack_error(error)))

    def _on_applied(self, new: Applied) -> None:
        """The trainer uses a snapshot from a step on."""
        if self._record is not None:
            self._record.applied(new.step, new.snapshot.tobytes(), tiles=new.tiles)
        self._say(Noted(new.step))
        if new.refresh is not None:
            done = (LedgerState.SETTLED,)
            for job in self._ledger.jobs(run=self._run, step=new.refresh, states=done):
                self._ledger.consume(job.tag, new.step)

    def _on_finish(self) -> None:
        """The run is over: what waits in a queue is of no use any more."""
        self._courier.cancel_queued()
        self._courier.lift_guard()
        for message in self._courier.audit():
            self._event("audit", f"The service made a job that was not asked for: {message}")
        self._finishing = True

    # -- what the trainer is told ----------------------------------------------------------

    def news(self, *, changed: bool) -> list[Frame]:
        """What there is to say since the last call."""
        later, self._later = self._later, []
        for retry in later:
            retry()
        for refresh in list(self._pending.values()):
            self._see_to(refresh)
        if changed and self._open is None:
            self._say(News())
        if changed or self._caps() != self._told:
            self._say(self._account())
        if changed:
            for message in self._courier.overruns():
                self._event("overrun", message)
        for message in self._courier.newly_stuck():
            self._event("stuck", message)
        self._tell_trouble()
        if self._finishing:
            self._finish()
        out, self._out = self._out, []
        return out

    def _caps(self) -> list[Cap]:
        return self._ledger.caps(self._budget) if self._budget is not None else []

    def _say(self, message: Message) -> None:
        self._out.append(message.to_frame())

    def _account(self) -> Account:
        """Where the money stands."""
        self._told = self._caps()
        if self._record is not None:
            self._record.account([asdict(cap) for cap in self._told], self._planned)
        return Account(
            caps=[asdict(cap) for cap in self._told],
            quote=None if self._quote is None else asdict(self._quote),
            shots=self._shots,
            tiles=self._tiles,
            queue_s=self._ledger.queue_times(self._backend.name, most=31),
            backend=self._backend.name,
        )

    def _finish(self) -> None:
        """Once nothing is being cancelled any more: what is left runs on."""
        left = self._ledger.jobs(run=self._run, states=OPEN)
        if all(job.cancel_asked is None for job in left):
            self._say(Finished([job.tag for job in left]))
            self._finishing = False

    def _tell_trouble(self) -> None:
        trouble = self._courier.trouble
        lasting = trouble is not None and self._timer() - trouble[0] >= TROUBLE_S
        if lasting and not self._told_of_trouble and trouble is not None:
            self._event("outage", f"{self._backend.name} cannot be reached: {trouble[1]}")
        if trouble is None and self._told_of_trouble:
            self._event("reached", f"{self._backend.name} answers again.")
        self._told_of_trouble = lasting

    def _event(self, what: str, message: str) -> None:
        logger.warning("%s", message)
        if self._record is not None:
            self._record.event(None, what, message)
        self._say(Happened(what, message))

    def _again_later(self, retry: Callable[[], None], error: QSGDError) -> None:
        """The service does not answer for the moment."""
        logger.warning("%s", error)
        self._courier.trouble = self._courier.trouble or (self._timer(), str(error))
        self._later.append(retry)

    # -- a refresh -------------------------------------------------------------------------

    def _look_at(self, work: Workload, shots: int | None) -> None:
        """Price, tiles and nominal twin for blocks like these."""
        way = best_way(self._backend, work, shots=shots, tiles=self._trainer.run.schedule.tiles)
        self._shots, self._tiles, self._quote = way.shots, way.tiles, _total(way.quotes)
        price = f"{self._quote.expected} expected, {self._quote.worst} at worst"
        require_affordable_size(work.n_rows, price)
        self._budget = self._courier.budget_for(self._trainer.run.budget_name, self._quote)
        if self._teacher.nominal is None:
            per_refresh = self._trainer.run.schedule.blocks_per_refresh or work.n_rows
            sites = sites_in_turns(work, tiles=way.tiles, per_refresh=per_refresh)
            calibration = self._backend.calibration(pack(work, tiles=way.tiles).work)
            self._teacher.meet(calibration, work, sites)

    def _asked_before(self, step: int) -> Ask | None:
        """The refresh of this step that an earlier life of the run has put on the ledger."""
        found = asked_before(self._ledger, self._run, step)
        if found is not None:
            self._earlier[step] = self._ledger.job(tag(self._run, step, 0, 0)).created_at
        return found

    def _pend(self, ask: Ask, *, again: bool) -> None:
        try:
            refresh = Refresh.read(ask, self._backend.capabilities, backend=self._backend.name)
            if self._budget is None:
                self._look_at(refresh.work, refresh.shots)
        except QSGDError as error:
            if may_work_later(error):
                self._again_later(lambda: self._pend(ask, again=again), error)
            else:
                self._say(Answer(ask.step, pack_error(error)))
            return
        refresh.tags = [self._add(refresh, k, again=again).tag for k in range(len(refresh.pieces))]
        self._pending[refresh.step] = refresh
        if self._record is not None:
            self._record.asked(refresh.step, refresh.work, shots=refresh.shots, used=refresh.used)

    def _add(self, refresh: Refresh, part: int, *, again: bool = False) -> Job:
        """The part's job: the one that is on the ledger, or a new one if those are lost.

        Of its own the desk asks again only for jobs that did not reach the vendor; a trainer that
        asks anew, after a crash or from a checkpoint, gets another attempt at what failed.
        """
        there = self._ledger.jobs(run=self._run, step=refresh.step)
        last = max((job.attempt for job in there if job.part == part), default=0)
        attempt = refunds = 0
        while True:
            job = self._ledger.add_intent(
                refresh.pieces[part].packed.work,
                tag=tag(self._run, refresh.step, part, attempt),
                run=self._run,
                budget=self._budget or self._trainer.run.budget_name,
                backend=self._backend.name,
                options=self._trainer.run.backend_options,
                step=refresh.step,
                part=part,
                attempt=attempt,
                shots=refresh.shots,
                seed=derive_seed("part", refresh.seed, refresh.step, part),
                asked=refresh.ask.to_frame().encode() if part == attempt == 0 else None,
            )
            refunds += job.state is LedgerState.REFUNDED
            lost = job.state.is_lost if again else job.state.never_arrived
            if attempt >= last and (not lost or refunds >= MAX_ATTEMPTS):
                return job
            attempt += 1

    def _see_to(self, refresh: Refresh) -> None:
        """If all its jobs have ended: learn from them and tell the trainer."""
        jobs = [self._ledger.job(name) for name in refresh.tags]
        for part, job in enumerate(jobs):
            if job.state.never_arrived:
                jobs[part] = self._add(refresh, part)
                refresh.tags[part] = jobs[part].tag
        if any(job.state.is_open for job in jobs):
            return
        del self._pending[refresh.step]
        self._learned.add(refresh.step)
        for job in jobs:
            # What it would measure is of the past when it can be paid.
            if job.state is LedgerState.DENIED:
                self._ledger.cancel(job.tag)
        if any(job.state is LedgerState.SETTLED for job in jobs):
            self._learn(refresh, jobs)
            return
        error = next(job.error for job in jobs if job.error is not None)
        denied = any(job.state is LedgerState.DENIED for job in jobs)
        self._came_to_nothing(refresh, error, denied=denied)

    def _came_to_nothing(self, refresh: Refresh, error: QSGDError, *, denied: bool = False) -> None:
        if self._record is not None:
            self._record.failed(refresh.step, str(error))
        self._say(Answer(refresh.step, pack_error(error), denied))

    def _learn(self, refresh: Refresh, jobs: list[Job]) -> None:
        results = [self._ledger.result(j.tag) if j.state.has_result else None for j in jobs]
        settled = max(job.settled_at or 0.0 for job in jobs)
        try:
            taught = self._teacher.teach(refresh, results, settled=settled)
        except Exception as error:  # of this result, or of the twin: others are still to come
            logger.exception("The refresh of step %d teaches nothing.", refresh.step)
            self._came_to_nothing(refresh, _unusable(error, refresh))
            return
        lesson = taught.lesson
        paid = Amount.total(j.spent for j in jobs if j.settled_at is not None).to_cost()
        failure = next((job.error for job in jobs if job.error is not None), None)
        if self._record is not None:
            outcome = OutcomeEntry(
                refresh.step,
                self._clock(),
                executed_at=next(r for r in results if r is not None).executed_at,
                z=tuple(taught.z),
                n_rows=taught.n_rows,
                of_rows=refresh.work.n_rows,
                **asdict(taught.verdict),
                predicted_var=None if lesson is None else _mean(lesson.variance),
                innovation_sq=taught.innovation_sq,
                nis=None if lesson is None else lesson.nis,
                alarm=lesson is not None and lesson.alarm,
                cost_usd=paid.usd,
                qpu_s=paid.qpu_s,
                shots=paid.shots,
                queue_s=max(0.0, *((j.settled_at or 0.0) - (j.submitted_at or 0.0) for j in jobs)),
                error=None if failure is None else str(failure),
            )
            self._record.arrived(outcome)
        if lesson is not None and lesson.alarm:
            self._event(
                "recalibrated",
                f"The refresh of step {refresh.step} disagrees with the twin (NIS "
                f"{lesson.nis:.2f}): {self._backend.name} was recalibrated, it seems. The twin "
                "starts afresh from there.",
            )
        if failure is not None:
            self._event(
                "partial",
                f"{taught.n_rows} of {refresh.work.n_rows} blocks of the refresh of step "
                f"{refresh.step} were measured; the others keep what they had. {failure}",
            )
        self._say(taught.snapshot)
        asked_at = self._earlier.get(refresh.step)
        angles = [] if asked_at is None else [b.angles for b in refresh.work.batches]
        self._say(Answer(refresh.step, asked_at=asked_at, angles=angles))


def _unusable(error: Exception, refresh: Refresh) -> ResultCorruptError:
    return ResultCorruptError(
        f"What was measured for step {refresh.step} could not be used ({say_error(error)}). It "
        f"stays on the ledger: qsgd jobs fetch {refresh.tags[0]}"
    )


def _total(quotes: list[Quote]) -> Quote:
    """The jobs of a refresh together."""
    expected, worst = (
        Amount.total(Amount.from_cost(cost) for cost in costs).to_cost()
        for costs in ([q.expected for q in quotes], [q.worst for q in quotes])
    )
    first = quotes[0]
    return Quote(expected, worst, source=first.source, effective_date=first.effective_date)


def _mean(parts: tuple[NDArray[np.float64], ...]) -> float:
    return float(np.mean(np.concatenate([p.ravel() for p in parts])))
