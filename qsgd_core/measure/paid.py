"""A run on a paid backend, for the engine: its scheduler, opened at the first step."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qsgd_core.circuits import Workload
from qsgd_core.errors import ConfigError
from qsgd_core.events import Event, Observer
from qsgd_core.files import named_after
from qsgd_core.measure.counts import Count, at_step
from qsgd_core.measure.options import ScheduleOptions, Wait
from qsgd_core.measure.paid_ranks import HeardLine, sample_for_all
from qsgd_core.measure.ranks import Ranks
from qsgd_core.measure.runner import Sample
from qsgd_core.policy import Policy

if TYPE_CHECKING:
    from qsgd_core.schedule.ledger.ledger import Ledger
    from qsgd_core.schedule.trainer.scheduler import Scheduler

SAME_RADIANS = 1e-6
"""Angles that differ by less are the same: no number of shots would tell them apart."""


@dataclass(frozen=True)
class PaidRun:
    """What a run on a paid backend is asked to do.

    Attributes:
        backend: the full name.
        backend_options: vendor options, plain JSON values.
        ledger_url: where budgets and jobs are kept.
        home: folder for the courier's log and the record of a run that names none.
        policy: when to refresh.
        wait: for results.
        budget: an amount or the name of one; None for the default budget.
        every: the refresh interval; None leaves it to budget and ``total_steps``.
        total_steps: of the whole run.
        run: id of a run that goes on; None for a new one.
        record: path of its record.
        seed: of the run.
        options: of the scheduler.
        header: what its record says of the run.
    """

    backend: str
    backend_options: Mapping[str, Any]
    ledger_url: str
    home: Path
    policy: Policy
    wait: Wait
    budget: str | None
    every: Count | None
    total_steps: int | None
    run: str | None
    record: str | None
    seed: int
    options: ScheduleOptions
    header: Mapping[str, Any] = field(default_factory=dict)


class ScheduledRunner:
    """The engine's view of a paid run. Nothing is opened before the first workload.

    Attributes:
        run_id: the run's id on the ledger.
        tell: gets the scheduler's events.
    """

    def __init__(self, asked: PaidRun) -> None:
        self.asked = asked
        self.run_id = asked.run or _new_run_id()
        self.tell: Observer = _nobody
        self._goes_on = asked.run is not None
        self._scheduler: Scheduler | None = None
        self._state: dict[str, Any] | None = None
        self._step = 0
        self._ranks = Ranks()
        self._agreed = False
        self._shared: bytes | None = None

    def run(self, work: Workload, *, shots: int | None, step: int) -> Sample:
        """See :class:`~qsgd_core.measure.runner.Runner`; the same on every rank."""
        self._step = step
        if not self._agreed:
            self.run_id = (self._ranks.share(self.run_id.encode()) or b"").decode()
            self._agreed = True
        sample = sample_for_all(self._ranks, lambda: self._ask(work, shots=shots, step=step))
        self._share_state()
        return sample

    def _share_state(self) -> None:
        """Tell every rank what a checkpoint keeps, where that has changed.

        Any of them may be asked for it: torch.distributed.checkpoint takes what all ranks have from
        whichever it likes.
        """
        if self._ranks.world == 1:
            return
        state = None if self._scheduler is None else json.dumps(self._scheduler.state()).encode()
        if heard := self._ranks.share(None if state == self._shared else state):
            self._shared, self._state = heard, json.loads(heard)

    def _ask(self, work: Workload, *, shots: int | None, step: int) -> Sample:
        """On rank 0, which alone has a scheduler."""
        if self._scheduler is None:
            self._scheduler = self._open(work, step)
        every = None if self.asked.every is None else at_step(self.asked.every, step, "every")
        z, source = self._scheduler.expectations(work, step=step, shots=shots, every=every)
        return Sample(z, source)

    def check(self, work: Workload, *, shots: int | None) -> None:
        """Nothing is known before the courier has looked."""

    def go_on_with(self, run_id: str | None, state: dict[str, Any] | None) -> None:
        """Be the run of a checkpoint: what it has paid for is there to be used."""
        self.close(finished=False)
        self._agreed, self._shared = False, None
        if run_id is not None and self.asked.run is None:
            self.run_id, self._goes_on = run_id, True
        self._state = state

    def state(self) -> dict[str, Any] | None:
        """What a checkpoint keeps, as plain JSON values."""
        return self._state if self._scheduler is None else self._scheduler.state()

    def spending(self) -> dict[str, Any] | None:
        """Jobs, shots, dollars and QPU seconds of this run so far; None means unknown.

        None on ranks other than 0, whose machines may have no ledger.
        """
        if not self._ranks.is_lead:
            return None
        if self._scheduler is None and self._state is None and not self._goes_on:
            return {"jobs": 0, "shots": 0, "cost_usd": 0.0, "qpu_s": 0.0}
        from qsgd_core.schedule.ledger.ledger import Ledger
        from qsgd_core.schedule.ledger.spending import spending

        return asdict(spending(Ledger(self.asked.ledger_url), self.run_id))

    def close(self, *, finished: bool | None = None) -> None:
        """End the courier; a finished run cancels what still waits in a queue.

        Args:
            finished: None: whether ``total_steps`` have been taken.
        """
        if self._scheduler is None:
            return
        total = self.asked.total_steps
        if finished is None:
            finished = total is not None and self._step + self.asked.options.twin_every >= total
        scheduler, self._scheduler = self._scheduler, None
        scheduler.close(finished=finished)
        self._state, self._goes_on = scheduler.state(), True

    def _has_bought(self) -> bool:
        """Whether checkpoint or record show that this run has asked for measurements."""
        if self._state is not None and self._state["asked_at"] is not None:
            return True
        if not (self._goes_on and self.asked.record and Path(self.asked.record).is_file()):
            return False
        from qsgd_core.schedule.record.reader import RecordReader

        reader = RecordReader(Path(self.asked.record))
        try:
            return reader.header.get("run_id") == self.run_id and bool(reader.refreshes())
        finally:
            reader.close()

    def _require_the_same(self, ledger: Ledger, work: Workload, step: int) -> None:
        """A program that begins a run anew is served what was paid for only if it asks the same.

        Later refreshes of the run may differ a little: results arrive at other steps.
        """
        from qsgd_core.schedule.courier.refreshes import tag
        from qsgd_core.schedule.messages import Ask, Frame

        data = ledger.asked(tag(self.run_id, step, 0, 0))
        if data is None:
            return
        other = _difference(Ask.from_frame(Frame.decode(data)).work, work)
        if other is not None:
            raise ConfigError(
                f"Run {self.run_id!r} has had {other} measured at step {step} than are asked for "
                "now: its results are not those of this program. Give it a run id of its own "
                f"(or none), or go on from a checkpoint of {self.run_id!r}. Nothing was bought."
            )

    def _open(self, work: Workload, step: int) -> Scheduler:
        from qsgd_core.schedule.ledger.budgets import open_budget
        from qsgd_core.schedule.ledger.ledger import Ledger
        from qsgd_core.schedule.trainer.config import ScheduleConfig, Staleness
        from qsgd_core.schedule.trainer.process import CourierProcess, log_of
        from qsgd_core.schedule.trainer.scheduler import Scheduler

        asked, options = self.asked, self.asked.options
        ledger = Ledger(asked.ledger_url)
        if self._has_bought() and not ledger.has_run(self.run_id):
            raise ConfigError(
                f"Run {self.run_id!r} is to go on, and it has had measurements paid for; the "
                f"ledger {asked.ledger_url.rpartition('@')[2]!r} does not know it. It is not the "
                "one that the run was begun with, and its budgets know nothing of what was spent. "
                "Name the run's own ledger with QSGD_LEDGER or QSGD_HOME. If that one is lost, let "
                f"the run go on with a budget of its own here: qsgd jobs adopt {self.run_id} "
                f"--backend {asked.backend}. Nothing was bought."
            )
        if self._goes_on and self._state is None:
            self._require_the_same(ledger, work, step)
        ledger.open_run(self.run_id, backend=asked.backend, options=asked.backend_options)
        budget = open_budget(ledger, asked.budget, run=self.run_id)
        record = Path(asked.record or asked.home / "records" / named_after(self.run_id, ".sqlite"))
        record.parent.mkdir(parents=True, exist_ok=True)
        log = log_of(self.run_id, asked.home)
        line = CourierProcess(ledger.url, self.run_id, ledger_id=ledger.id, log=log)
        config = ScheduleConfig(
            run=self.run_id,
            budget=budget,
            options=dict(asked.backend_options),
            total_steps=asked.total_steps,
            wait=asked.wait,
            on_exhausted=options.on_exhausted,
            max_in_flight=options.max_in_flight,
            max_age=Staleness(options.max_age_steps, options.max_age_radians, options.max_age_s),
            first_deadline_s=options.first_deadline_s,
            tiles=options.tiles,
            blocks_per_refresh=options.blocks_per_refresh,
            seed=asked.seed,
            record=str(record.absolute()),
            header={**asked.header, "run_id": self.run_id, "budget_name": budget},
        )
        heard = HeardLine(line, self._ranks)
        scheduler = Scheduler(heard, asked.policy, config, tell=lambda event: self.tell(event))
        if self._state is not None:
            scheduler.load_state(self._state)
        return scheduler


def _difference(before: Workload, now: Workload) -> str | None:
    """What was measured instead, in words; None if it is the same to :data:`SAME_RADIANS`."""
    if [(b.circuit, b.observables, b.n_rows) for b in before.batches] != [
        (b.circuit, b.observables, b.n_rows) for b in now.batches
    ]:
        return "other circuits"
    pairs = zip(before.batches, now.batches, strict=True)
    if all(np.allclose(a.angles, b.angles, rtol=0, atol=SAME_RADIANS) for a, b in pairs):
        return None
    return "the same circuits at other angles"


def _nobody(event: Event) -> None:
    """Nobody listens."""


def _new_run_id() -> str:
    """Date and time, and enough chance to be the run's own."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
