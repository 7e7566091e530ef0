"""A run on a paid backend, for the engine: its scheduler, opened at the first step."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsgd_core.circuits import Workload
from qsgd_core.errors import ConfigError
from qsgd_core.events import Event, Observer
from qsgd_core.files import named_after
from qsgd_core.measure.counts import Count, at_step
from qsgd_core.measure.paid_ranks import HeardLine, sample_for_all
from qsgd_core.measure.ranks import Ranks
from qsgd_core.measure.runner import Sample
from qsgd_core.policy import Policy
from qsgd_core.schedule.money import BudgetAsked
from qsgd_core.schedule.paid_run import PaidRun
from qsgd_core.schedule.questions import not_the_same

if TYPE_CHECKING:
    from qsgd_core.schedule.ledger.ledger import Ledger
    from qsgd_core.schedule.trainer.scheduler import Scheduler


class ScheduledRunner:
    """The engine's view of a paid run. Nothing is opened before the first workload.

    Args:
        run: what it is; its budget and record get their names when it is opened.
        policy: when to refresh.
        budget: that is to pay.
        every: the refresh interval; None leaves it to budget and ``run.total_steps``.
        ledger_url: where budgets and jobs are kept.
        home: folder for the courier's log and the record of a run that names none.
        goes_on: whether the run has been begun before.

    Attributes:
        paid_run: as it is known by now.
        tell: gets the scheduler's events.
    """

    def __init__(
        self,
        run: PaidRun,
        *,
        policy: Policy,
        budget: BudgetAsked,
        every: Count | None,
        ledger_url: str,
        home: Path,
        goes_on: bool,
    ) -> None:
        self.paid_run = run
        self.policy = policy
        self.tell: Observer = _nobody
        self._budget = budget
        self._every = every
        self._ledger_url = ledger_url
        self._home = home
        self._named = self._goes_on = goes_on
        self._scheduler: Scheduler | None = None
        self._state: dict[str, Any] | None = None
        self._step = 0
        self._ranks = Ranks()
        self._agreed = False
        self._shared: bytes | None = None

    @property
    def run_id(self) -> str:
        """The run's id on the ledger."""
        return self.paid_run.run_id

    def _be(self, run_id: str) -> None:
        self.paid_run = self.paid_run.model_copy(update={"run_id": run_id})

    def run(self, work: Workload, *, shots: int | None, step: int) -> Sample:
        """See :class:`~qsgd_core.measure.runner.Runner`; the same on every rank."""
        self._step = step
        if not self._agreed:
            self._be((self._ranks.share(self.run_id.encode()) or b"").decode())
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
            self._scheduler = self._open(work, shots, step)
        every = None if self._every is None else at_step(self._every, step, "every")
        z, source = self._scheduler.expectations(work, step=step, shots=shots, every=every)
        return Sample(z, source)

    def check(self, work: Workload, *, shots: int | None) -> None:
        """Nothing is known before the courier has looked."""

    def go_on_with(self, run_id: str | None, state: dict[str, Any] | None) -> None:
        """Be the run of a checkpoint: what it has paid for is there to be used."""
        bought = state is not None and state["asked_at"] is not None
        if self._named and bought and run_id not in (None, self.run_id):
            raise ConfigError(
                f"The checkpoint is of run {run_id!r}, and run={self.run_id!r} was asked for: what "
                "one of them has had measured is not the other's. Leave run out to go on with "
                f"{run_id!r}; for a run of its own from these weights, load the model's alone."
            )
        self.close(finished=False)
        self._agreed, self._shared = False, None
        if run_id is not None and not self._named:
            self._be(run_id)
            self._goes_on = True
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

        return asdict(spending(Ledger(self._ledger_url), self.run_id))

    def close(self, *, finished: bool | None = None) -> None:
        """End the courier; a finished run cancels what still waits in a queue.

        Args:
            finished: None: whether ``total_steps`` have been taken.
        """
        if self._scheduler is None:
            return
        total = self.paid_run.total_steps
        if finished is None:
            finished = total is not None and self._step + self.paid_run.schedule.twin_every >= total
        scheduler, self._scheduler = self._scheduler, None
        scheduler.close(finished=finished)
        self._state, self._goes_on = scheduler.state(), True

    def _has_bought(self) -> bool:
        """Whether checkpoint or record show that this run has asked for measurements."""
        if self._state is not None and self._state["asked_at"] is not None:
            return True
        if not (self._goes_on and self.paid_run.record and Path(self.paid_run.record).is_file()):
            return False
        from qsgd_core.schedule.record.reader import RecordReader

        reader = RecordReader(Path(self.paid_run.record))
        try:
            return reader.header.get("run_id") == self.run_id and bool(reader.refreshes())
        finally:
            reader.close()

    def _require_the_same(
        self, ledger: Ledger, work: Workload, shots: int | None, step: int
    ) -> None:
        """A program that begins a run anew is served what was paid for only if it asks the same.

        Later refreshes of the run may differ a little: results arrive at other steps.
        """
        from qsgd_core.schedule.courier.refreshes import asked_before

        before = asked_before(ledger, self.run_id, step)
        if before is not None:
            error = not_the_same(before, work, shots=shots, run=self.run_id)
            if error is not None:
                raise error

    def _open(self, work: Workload, shots: int | None, step: int) -> Scheduler:
        from qsgd_core.schedule.ledger.budgets import open_budget
        from qsgd_core.schedule.ledger.ledger import Ledger
        from qsgd_core.schedule.trainer.process import CourierProcess, log_of
        from qsgd_core.schedule.trainer.scheduler import Scheduler

        run, home = self.paid_run, self._home
        ledger = Ledger(self._ledger_url)
        if self._has_bought() and not ledger.has_run(self.run_id):
            raise ConfigError(
                f"Run {self.run_id!r} is to go on, and it has had measurements paid for; the "
                f"ledger {self._ledger_url.rpartition('@')[2]!r} does not know it. It is not the "
                "one that the run was begun with, and its budgets know nothing of what was spent. "
                "Name the run's own ledger with QSGD_LEDGER or QSGD_HOME. If that one is lost, let "
                f"the run go on with a budget of its own here: qsgd jobs adopt {self.run_id} "
                f"--backend {run.backend}. Nothing was bought."
            )
        if self._goes_on and self._state is None:
            self._require_the_same(ledger, work, shots, step)
        ledger.open_run(run.run_id, backend=run.backend, options=run.backend_options)
        record = Path(run.record or home / "records" / named_after(run.run_id, ".sqlite"))
        record.parent.mkdir(parents=True, exist_ok=True)
        named = {"budget_name": open_budget(ledger, self._budget, run=run.run_id)}
        self.paid_run = run.model_copy(update=named | {"record": str(record.absolute())})
        log = log_of(run.run_id, home)
        line = CourierProcess(ledger.url, run.run_id, ledger_id=ledger.id, log=log)
        heard = HeardLine(line, self._ranks)
        scheduler = Scheduler(
            heard, self.policy, self.paid_run, tell=lambda event: self.tell(event)
        )
        if self._state is not None:
            scheduler.load_state(self._state)
        return scheduler


def _nobody(event: Event) -> None:
    """Nobody listens."""


def new_run_id() -> str:
    """Date and time, and enough chance to be the run's own."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
