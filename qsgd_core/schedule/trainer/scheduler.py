"""The scheduler: on the training thread, at step boundaries, without disk, network or lock.

It listens to the courier, asks for a refresh when the policy wants one and the budget allows it,
and says what ⟨observables⟩ a step uses: those of the best snapshot there is.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Workload
from qsgd_core.errors import (
    BackendError,
    BudgetError,
    ConfigError,
    QSGDError,
    ResultCorruptError,
)
from qsgd_core.events import Observer, ScheduleChanged
from qsgd_core.policy import Policy, View
from qsgd_core.schedule.ages import AgeTimer
from qsgd_core.schedule.failures import unpack_error
from qsgd_core.schedule.messages import (
    PROTOCOL,
    Account,
    Answer,
    Applied,
    Ask,
    Finish,
    Finished,
    Frame,
    Happened,
    News,
    Noted,
    Open,
    Opened,
    QuoteAsked,
    Ready,
    Refused,
    Stopped,
    read_message,
)
from qsgd_core.schedule.money import say
from qsgd_core.schedule.packing.turns import cycle_length
from qsgd_core.schedule.paid_run import PaidRun
from qsgd_core.schedule.snapshot import Moment, Snapshot
from qsgd_core.schedule.trainer import patience
from qsgd_core.schedule.trainer.horizon import Horizon, refreshes_to_come
from qsgd_core.schedule.trainer.ladder import Ladder
from qsgd_core.schedule.trainer.line import Line
from qsgd_core.schedule.trainer.purse import Purse
from qsgd_core.seeds import derive_seed
from qsgd_core.sources import RUNGS, SourceName

logger = logging.getLogger(__name__)

FINAL_PHASE, RESERVE = 0.9, 0.1
"""Until this share of the steps is taken, this share of the budget is kept for the rest."""
TIMED_STEPS = 3
"""Steps that are timed before ``wait="never"`` decides whether a result can arrive at all."""
REST_S = (60.0, 3600.0)
"""First and longest pause before a courier that could not go on is tried again."""
LOOK_S = 0.5
"""Who waits for a result looks so often whether it is to go on waiting."""
LAST = (Account.kind, Noted.kind, Snapshot.kind, Happened.kind, Finished.kind)
"""What is still listened to at the end of a run."""
FINISH_S = 30.0
"""How long the end of a run waits for queued jobs to be cancelled."""


@dataclass(frozen=True, eq=False)
class _Ask:
    """A refresh that has not been answered."""

    frame: Frame
    moment: Moment


class Scheduler:
    """One run's scheduler.

    Args:
        line: to the courier.
        policy: when to refresh, and what stands in between.
        run: everything else.
        tell: gets a :class:`~qsgd_core.events.ScheduleChanged` whenever something changes.
        clock: seconds since the epoch, for dates.
        timer: seconds from any origin, never set back, for durations.
    """

    def __init__(
        self,
        line: Line,
        policy: Policy,
        run: PaidRun,
        *,
        tell: Observer,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line = line
        self._policy = policy
        self._run = run
        self._tell_event = tell
        self._clock = clock
        self._timer = timer
        self._ages = AgeTimer(clock, timer)
        self._starts = 0
        self._opened = False
        self._purse: Purse | None = None
        self._ladder = Ladder(policy.between, run.schedule)
        self._horizon = Horizon(run.total_steps, stands_still=self._waits_always)
        self._standing = False
        self._applied: Snapshot | None = None
        self._source: SourceName | None = None
        self._applied_tiles = 1
        self._not_noted: list[Frame] = []
        self._asks: dict[int, _Ask] = {}
        self._learned: list[int] = []
        self._asked_at: int | None = None
        self._turn = 0
        self._step = 0
        self._stride = 1
        self._pause_s = REST_S[0]
        self._said: set[str] = set()
        self._answers = 0
        self._worked = False
        self._finished: list[str] | None = None
        self._quote: Frame | None = None
        self._ahead: list[int] = []
        """Steps at or after this one that an earlier life of a run that waits has paid for."""

    # -- a step ----------------------------------------------------------------------------

    def expectations(
        self, work: Workload, *, step: int, shots: int | None = None, every: int | None = None
    ) -> tuple[list[NDArray[np.float64]], SourceName]:
        """⟨observables⟩ for a step, and where they come from.

        Args:
            work: every block at the angles of this step.
            step: steps taken before this one.
            shots: per circuit, for a refresh at this step; None leaves it to the courier.
            every: the interval that was asked for; None leaves it to the budget.

        Returns:
            float64 (B, n_observables) a batch, and the source: measured if all of it is a result of
            this very step, held if it is one of an earlier step.

        Raises:
            ConfigError, CapabilityError, BudgetError, BackendError: nothing has been measured yet,
                and nothing will be; or ``on_exhausted="raise"``. Nothing was spent on this step.
        """
        self._stride = max(step - self._step, 1)
        self._step = step
        self._listen(0.0)
        if not self._opened:
            self._begin(work, shots)
        self._horizon.pass_step(step, self._timer())
        ask = self._policy.measures and self._due(work, step, every)
        z, snapshot = self._use(work)
        if ask:
            self._ask(work, z, shots)
            if self._wait_for(step):
                z, snapshot = self._use(work)
        self._source = snapshot.source(step)
        self._apply(snapshot)
        return z, self._source

    def _use(self, work: Workload) -> tuple[list[NDArray[np.float64]], Snapshot]:
        """⟨observables⟩ of this step by the best snapshot there is."""
        best = self._ladder.best(work, step=self._step, age_s=self._age_s(), tiles=self._tiles)
        where = self._ladder.where(work, self._tiles)
        return best.expectations(work, where, seed=self._run.seed, step=self._step), best

    def _age_s(self) -> float:
        """Seconds since the newest result was asked for; 0 before the first."""
        measured = self._ladder.measured
        return 0.0 if measured is None else self._ages.of(measured.step, measured.wall)

    def _begin(self, work: Workload, shots: int | None) -> None:
        """Meet the courier; unless told never to wait, hear the price before anything else."""
        self._opened = True
        self._quote = QuoteAsked(work, shots).to_frame()
        self._greet()
        if self._run.wait == "never" and not self._policy.waits:
            return
        until = self._timer() + self._run.schedule.first_deadline_s
        with patience.waiting("the courier's first look at the service"):
            while self._purse is None and self._timer() < until:
                patience.require()
                self._listen(LOOK_S)

    def _due(self, work: Workload, step: int, every: int | None) -> bool:
        """Whether the policy wants a refresh now and one can be had."""
        purse = self._purse
        if (
            purse is None
            or len(self._asks) >= self._run.schedule.max_in_flight
            or step in self._asks
        ):
            return False
        if self._ahead and step <= self._ahead[-1]:
            return step in self._ahead
        total = self._run.total_steps
        view = View(
            step=step,
            total_steps=total,
            every=every,
            asked_at=self._asked_at,
            affordable=purse.affordable(len(self._asks)),
            last_useful=self._horizon.last_useful(step, self._timer(), purse),
            stride=self._stride,
        )
        stale = not self._asks and self._ladder.is_stale(work, step=step, age_s=self._age_s())
        if not (self._policy.due(view) or stale):
            return False
        if self._asked_at is None:
            return self._worth_beginning(view)
        if view.last_useful is not None and step > view.last_useful and not self._waits():
            return False
        final = total is None or every is None or step >= FINAL_PHASE * total
        if purse.holds(len(self._asks), keep=0.0 if final else RESERVE):
            self._said.discard("denied")
            return True
        if (
            self._run.schedule.on_exhausted == "raise"
            and purse.affordable(len(self._asks)) is not None
        ):
            raise BudgetError(self._denial(purse))
        self._say_once("denied", self._denial(purse))
        return False

    def _denial(self, purse: Purse) -> str:
        parts = []
        for cap in purse.caps:
            worst = purse.worst.of(cap.unit)
            asked = "an unknown amount" if worst is None else say(cap.unit, worst)
            parts.append(f"{asked} of {say(cap.unit, cap.left)} left in {cap.budget!r}")
        return (
            f"No further refresh is asked for: it may cost {'; '.join(parts)}. Raise the budget "
            "(qsgd budget raise NAME AMOUNT) to go on measuring."
        )

    def _worth_beginning(self, view: View) -> bool:
        """Before the first submission: say what will come of it, refuse if that is nothing."""
        purse = self._purse
        assert purse is not None  # noqa: S101  _due saw to it
        queue = purse.usual_queue_s()
        if not self._waits() and view.total_steps is not None:
            if self._horizon.timed(view.step) < TIMED_STEPS:
                return False
            left = view.total_steps - view.step
            left_s = left * (self._horizon.step_s(view.step, self._timer()) or 0.0)
            if queue is not None and queue > left_s:
                raise ConfigError(
                    f"This run takes about {left_s:,.0f} s more, and a result from "
                    f"{purse.backend!r} usually takes {queue:,.0f} s: none would arrive before the "
                    'last step. Use wait="first" or wait="always", train longer, or use a '
                    "simulator such as backend='exact'. Nothing was submitted."
                )
        price = ", ".join(
            say(unit, amount)
            for unit, amount in asdict(purse.expected).items()
            if amount is not None and unit != "shots"
        )
        count = refreshes_to_come(view, last=None if self._waits() else view.last_useful)
        times = "once" if count == 1 else f"about {count} times"
        often = "as often as asked" if count is None else times
        usual = "unknown" if queue is None else f"{queue:,.0f} s"
        self._say(
            "planned",
            f"{purse.backend} is measured {often}, {purse.shots} shots a circuit"
            + (f", {price} a refresh" if price else "")
            + f"; usual time to a result: {usual}.",
        )
        return True

    def _ask(self, work: Workload, used: list[NDArray[np.float64]], shots: int | None) -> None:
        purse = self._purse
        assert purse is not None  # noqa: S101  _due saw to it
        angles = [b.angles for b in work.batches]
        per_refresh = self._run.schedule.blocks_per_refresh
        question = Ask(
            step=self._step,
            work=work,
            used=used,
            shots=shots or purse.shots,
            seed=derive_seed("shots", self._run.seed, self._step),
            tiles=purse.tiles,
            per_refresh=per_refresh,
            turn=self._turn,
            planned=self._horizon.planned(self._step, self._timer(), purse),
        )
        moment = Moment(self._step, self._clock(), tuple(angles))
        self._ages.of(moment.step, moment.wall)  # its age is by the timer from here on
        ask = _Ask(question.to_frame(), moment)
        self._asks[self._step] = ask
        self._asked_at = self._step
        if per_refresh is not None:
            self._turn = (self._turn + 1) % cycle_length([len(a) for a in angles], per_refresh)
        self._line.send(ask.frame)
        self._say("asked", f"Step {self._step}: a refresh of {work.n_rows} blocks was asked for.")

    @property
    def _waits_always(self) -> bool:
        return self._policy.waits or self._run.wait == "always"

    def _waits(self) -> bool:
        return self._waits_always or (self._run.wait == "first" and self._answers == 0)

    def _wait_for(self, step: int) -> bool:
        """Stand still until the refresh of ``step`` has been answered, if that is asked for."""
        if not self._waits():
            return False
        deadline = float("inf") if self._waits_always else self._run.schedule.first_deadline_s
        began = self._timer()
        self._standing = True
        try:
            with patience.waiting(self._wait_in_words(step)):
                while step in self._asks and self._timer() < began + deadline:
                    patience.require()
                    self._listen(LOOK_S)
        except KeyboardInterrupt:  # a script's own; qsgd train asks for it by patience
            logger.warning("Interrupted while waiting for %s.", self._wait_in_words(step))
            raise
        finally:
            self._standing = False
        self._horizon.stood(self._timer() - began)
        if step in self._asks:
            self._say(
                "late",
                f"No result after {self._run.schedule.first_deadline_s:,.0f} s: training goes on "
                "with the nominal twin until one arrives.",
            )
            self._answers = max(self._answers, 1)  # the first has been waited for long enough
        return True

    def _wait_in_words(self, step: int) -> str:
        assert self._purse is not None  # noqa: S101  a refresh has been asked for
        return (
            f"the result of step {step} from {self._purse.backend}. Its jobs stay with the service "
            f"whatever ends here: see qsgd jobs list {self._run.run_id}"
        )

    # -- what a step uses ------------------------------------------------------------------

    @property
    def _tiles(self) -> int:
        """Blocks side by side in a circuit; 1 until the courier has looked at the device."""
        return 1 if self._purse is None else self._purse.tiles

    def _apply(self, snapshot: Snapshot) -> None:
        """Note a change of what is used."""
        before, self._applied = self._applied, snapshot
        tiles_before, self._applied_tiles = self._applied_tiles, self._tiles
        same = before is snapshot or (
            before is not None
            and snapshot.rung == before.rung in ("random", "zero")
            and snapshot.refresh == before.refresh
        )
        if same and tiles_before == self._tiles:
            return
        shown = _bytes(snapshot.to_frame())
        new = Applied(self._step, snapshot.refresh, snapshot.rung, self._tiles, shown)
        frame = new.to_frame()
        self._not_noted.append(frame)
        self._line.send(frame)
        if same:
            return
        fell = before is not None and RUNGS.index(snapshot.rung) > RUNGS.index(before.rung)
        what = "fell back" if fell else "applied"
        why = " What was measured is too old." if fell else ""
        self._say(what, f"From step {self._step} on s is {snapshot.rung}.{why}")

    # -- what the courier says -------------------------------------------------------------

    def _listen(self, timeout_s: float) -> None:
        if not self._opened:
            return
        try:
            frames = self._line.receive(timeout_s)
        except BackendError as error:
            self._stopped(error)
            return
        if self._line.starts != self._starts:
            self._greet()
            for ask in self._asks.values():
                self._line.send(ask.frame)
        newest = next((f for f in reversed(frames) if _is_result(f)), None)
        for frame in frames:
            if _is_result(frame) and frame is not newest:
                self._note_result(frame.values["refresh"])  # what it says is in the newest, too
            else:
                self._hear(frame)

    def _hear(self, frame: Frame) -> None:
        """Act on what the courier says.

        Raises:
            ConfigError: it speaks another version of the protocol.
            ResultCorruptError: it is no message to a trainer.
            QSGDError: what has been asked for cannot be had.
        """
        match read_message(frame):
            case Ready() | News():
                pass  # nothing that the training thread needs to know
            case Opened() as opened:
                self._on_opened(opened)
            case Account() as account:
                self._purse = Purse.of(account) or self._purse
            case Snapshot() as snapshot:
                self._on_snapshot(snapshot)
            case Answer() as answer:
                self._on_answer(answer)
            case Noted(step=noted):
                self._not_noted = [f for f in self._not_noted if f.values["step"] > noted]
            case Refused(error=packed):
                self._on_refused(unpack_error(packed))
            case Stopped(error=packed):
                self._stopped(unpack_error(packed))
            case Happened(what=what, message=message):
                self._say(what, message, record=False)
            case Finished(left=left):
                self._finished = left
            case _:
                raise ResultCorruptError(f"A trainer is not told {frame.kind!r}.")

    def _greet(self) -> None:
        """Tell a new courier where the run stands."""
        latest = self._ladder.latest
        greeting = Open(
            protocol=PROTOCOL,
            step=self._step,
            learned=self._learned,
            waits=self._waits(),
            waits_for_each=self._waits_always,
            between=self._policy.between,
            run=self._run,
            latest=None if latest is None else _bytes(latest.to_frame()),
        )
        self._line.send(greeting.to_frame())
        self._starts = self._line.starts
        if self._quote is not None:
            self._line.send(self._quote)
        for applied in self._not_noted:
            self._line.send(applied)

    def _on_opened(self, opened: Opened) -> None:
        if opened.asked_at is not None:  # paid for by an earlier life; never asked for again
            self._asked_at = max(opened.asked_at, self._asked_at or 0)
        self._ahead = opened.ahead

    def _on_snapshot(self, snapshot: Snapshot) -> None:
        if snapshot.rung == "nominal":
            self._ladder.nominal = snapshot
        else:
            self._ladder.latest = snapshot
            self._note_result(snapshot.refresh)

    def _note_result(self, refresh: int | None) -> None:
        self._worked = True
        if refresh is not None and refresh not in self._learned:
            self._learned.append(refresh)
            self._answers += 1

    def _on_answer(self, answer: Answer) -> None:
        step = answer.step
        ask = self._asks.pop(step, None)
        if step not in self._learned:
            self._learned.append(step)
        if answer.error is not None:
            self._failed(step, unpack_error(answer.error), denied=answer.denied)
            return
        self._pause_s = REST_S[0]
        if ask is not None and not self._standing:
            self._horizon.delays.append(self._step - step)
        moment = None if ask is None else ask.moment
        if answer.asked_at is not None:
            moment = Moment(step, answer.asked_at, tuple(answer.angles))
        newest = self._ladder.measured
        if moment is not None and (newest is None or step > newest.step):
            self._ladder.measured = moment
        self._say("answered", f"The refresh of step {step} has arrived.")

    def _failed(self, step: int, error: QSGDError, *, denied: bool) -> None:
        spent_by_others = denied and self._purse is not None and self._purse.could_hold()
        waits = self._waits() and not spent_by_others
        if isinstance(error, ConfigError) and (waits or not self._worked):
            raise error
        if waits and not self._worked:
            raise error
        if denied and self._run.schedule.on_exhausted == "raise":
            raise error
        self._say("denied" if denied else "failed", f"Step {step}: {error}")

    def _on_refused(self, error: QSGDError) -> None:
        """The service would not say what a refresh costs."""
        if self._purse is None:
            raise error
        self._say("failed", str(error))

    def _stopped(self, error: Exception) -> None:
        """The courier cannot go on; it is tried again later."""
        if not self._worked and (self._policy.waits or self._run.wait != "never"):
            raise error
        self._line.rest(self._pause_s)
        meanwhile = (
            "The run waits for its results"
            if self._standing and self._waits_always
            else "Training goes on with what it has"
        )
        again = f"the service is tried again in {self._pause_s:,.0f} s."
        self._say("stopped", f"{error} {meanwhile}; {again}")
        self._pause_s = min(2 * self._pause_s, REST_S[1])

    # -- status ----------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Where the run stands, for panels: plain JSON values."""
        purse, latest = self._purse, self._ladder.latest
        return {
            "backend": None if purse is None else purse.backend,
            "caps": [] if purse is None else [asdict(cap) for cap in purse.caps],
            "planned": self._horizon.planned(self._step, self._timer(), purse),
            "asked": len(self._learned) + len(self._asks),
            "arrived": self._answers,
            "in_flight": len(self._asks),
            "source": self._source,
            "measured_at": None if latest is None else latest.measured_at,
            "affordable": None if purse is None else purse.affordable(len(self._asks)),
            "queue_s": None if purse is None else purse.usual_queue_s(),
            "total_steps": self._run.total_steps,
        }

    def _say(self, what: str, message: str, *, record: bool = True) -> None:
        event = ScheduleChanged(self._step, what=what, message=message, status=self.status())
        self._tell_event(event)
        if record and what not in ("asked", "answered", "applied"):
            self._line.send(Happened(what, message, self._step).to_frame())

    def _say_once(self, what: str, message: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._say(what, message)

    # -- checkpoints and the end -----------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as plain JSON values."""
        return {
            "learned": sorted(self._learned),
            "asked_at": self._asked_at,
            "turn": self._turn,
            "answers": self._answers,
            "delays": self._horizon.delays,
            "latest": _text(self._ladder.latest),
            "measured": _text(self._ladder.measured),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`; before the first step."""
        self._learned = list(state["learned"])
        self._asked_at = state["asked_at"]
        self._turn = state["turn"]
        self._answers = state["answers"]
        self._horizon.delays = list(state["delays"])
        if state["latest"] is not None:
            self._ladder.latest = Snapshot.from_frame(_read(state["latest"]))
            self._worked = True
        if state["measured"] is not None:
            self._ladder.measured = Moment.from_frame(_read(state["measured"]))

    def close(self, *, finished: bool) -> None:
        """Hang up. A finished run cancels what waits in a queue; what runs stays on the ledger."""
        if not self._opened:
            return
        if finished and (self._asks or self._purse is not None):
            self._end()
        self._line.stop()
        self._opened = False

    def _end(self) -> None:
        self._line.rest(0.0)  # a courier that could not go on is tried once more: this is the end
        self._line.send(Finish(self._step).to_frame())
        until = self._timer() + FINISH_S
        try:
            while self._finished is None and self._timer() < until:
                frames = self._line.receive(0.5)
                if self._line.starts != self._starts:
                    self._greet()
                    self._line.send(Finish(self._step).to_frame())
                for frame in frames:
                    if frame.kind in LAST:
                        self._hear(frame)
        except BackendError:  # no courier can be had; the ledger keeps what there is
            return
        if self._finished:
            self._say(
                "left",
                f"{len(self._finished)} job(s) of this run are still running: what they cost and "
                "bring is collected by qsgd jobs resume.",
            )


def _is_result(frame: Frame) -> bool:
    return frame.kind == "snapshot" and frame.values["rung"] != "nominal"


def _bytes(frame: Frame) -> NDArray[np.uint8]:
    return np.frombuffer(frame.encode(), dtype=np.uint8)


def _text(kept: Snapshot | Moment | None) -> str | None:
    return None if kept is None else base64.b64encode(kept.to_frame().encode()).decode()


def _read(text: str) -> Frame:
    return Frame.decode(base64.b64decode(text))
