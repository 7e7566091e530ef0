"""A trainer's scheduler, a courier that may die and a vendor that may fail, all on one clock.

The whole path from :class:`Scheduler` to the vendor's folder in one process: every frame is encoded
and decoded as on a pipe, every job goes through the ledger.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from by_clock import Clock, KilledError, quick_ledger
from numpy.typing import NDArray

from qsgd_core.builtin.policies import Tracked
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.events import Event, ScheduleChanged
from qsgd_core.policy import Policy
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.courier.desk import Desk
from qsgd_core.schedule.courier.inline import LocalLine
from qsgd_core.schedule.ledger.rows import Job
from qsgd_core.schedule.messages import Decoder, Frame
from qsgd_core.schedule.options import ScheduleOptions
from qsgd_core.schedule.paid_run import PaidRun
from qsgd_core.schedule.trainer.scheduler import Scheduler

MOST_S = 5.0
"""Who waits wakes up so often, on the stage's clock."""
RUN, BUDGET = "r", "b"
ROWS, SHOTS = 2, 8
PRICE = 1_000 + ROWS * SHOTS
"""Micro-dollars of a job of two rows and 8 shots."""


class Line:
    """To a courier in this process that may be killed. Who waits lets the clock run.

    Attributes:
        starts: as of :class:`~qsgd_core.schedule.trainer.line.Line`.
        heard: every frame that the trainer was told.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._local: LocalLine | None = None
        self._rest_until = 0.0
        self.starts = 0
        self.heard: list[Frame] = []

    def send(self, frame: Frame) -> None:
        if (local := self._courier()) is not None:
            try:
                local.send(frame)
            except KilledError:
                self._local = None

    def receive(self, timeout_s: float = 0.0) -> list[Frame]:
        until = self._stage.clock.now + timeout_s
        while True:
            frames = self._round()
            if frames or self._stage.clock.now >= until:  # it may wake up late
                self.heard += frames
                return frames
            self._stage.clock.now += min(max(self._stage.idle_s(), 0.05), MOST_S)

    def kill(self) -> None:
        """kill -9: what it had been told and not written down is gone."""
        self._local = None

    def rest(self, seconds: float) -> None:
        self._rest_until = self._stage.clock.now + seconds

    def stop(self) -> None:
        self._local = None

    def _courier(self) -> LocalLine | None:
        if self._local is None and self._stage.clock.now >= self._rest_until:
            self._local = self._stage.courier()
            self.starts += 1
        return self._local

    def _round(self) -> list[Frame]:
        if (local := self._courier()) is None:
            return []
        try:
            said = local.receive()
        except KilledError:
            self._local = None
            return []
        return [frame for f in said for frame in Decoder().feed(f.encode())]


class Stage:
    """One run on one ledger, with one vendor.

    Args:
        folder: for both.
        micro_usd: the budget.
    """

    def __init__(self, folder: Path, *, micro_usd: int = 100 * PRICE) -> None:
        self.folder = folder
        self.clock = Clock()
        self.ledger = quick_ledger(folder, self.clock)
        self.ledger.create_budget(BUDGET, {"micro_usd": micro_usd})
        self.events: list[ScheduleChanged] = []
        self.run = RUN
        self.have()

    def have(self, **options: Any) -> None:
        """A vendor with these options; its jobs are still there."""
        from qsgd_filebox.backend import Filebox
        from qsgd_filebox.options import FileboxOptions

        options = {"folder": self.folder / "vendor", "coins": True, **options}
        self.backend = Filebox(
            "filebox:x", FileboxOptions(**options), clock=self.clock, sleep=self.clock.sleep
        )
        wider = dataclasses.replace(self.backend.capabilities, max_qubits=30)
        self.backend.capabilities = wider
        self.vendor = self.backend.vendor

    def courier(self) -> LocalLine:
        """A new courier, which knows nothing."""
        self.ledger.open_run(self.run, backend="filebox:x", options={})
        courier = Courier(
            self.ledger, self.backend, run=self.run, clock=self.clock, timer=self.clock.timer
        )
        self.idle_s = courier.idle_s
        desk = Desk(
            self.ledger,
            self.backend,
            courier,
            run=self.run,
            clock=self.clock,
            timer=self.clock.timer,
        )
        return LocalLine(desk, courier)

    def scheduler(self, by: Policy | None = None, /, **config: Any) -> Scheduler:
        """A trainer that starts, or comes back."""
        self.line = Line(self)
        schedule = {k: config.pop(k) for k in set(config) & set(ScheduleOptions.model_fields)}
        run = {"run_id": self.run, "budget_name": BUDGET, "schedule": schedule, **config}
        return Scheduler(
            self.line,
            by or Tracked(),
            PaidRun(**run),
            tell=self._tell,
            clock=self.clock,
            timer=self.clock.timer,
        )

    def go(
        self,
        scheduler: Scheduler,
        steps: Sequence[int],
        *,
        every: int | None = None,
        work: Callable[[int], Workload] | None = None,
        step_s: float = 1.0,
    ) -> list[str]:
        """Take steps of a second each; where s came from at each."""
        sources = []
        for step in steps:
            self.clock.now += step_s
            z, source = scheduler.expectations(
                (work or work_at)(step), step=step, shots=SHOTS, every=every
            )
            self.z: list[NDArray[np.float64]] = z
            sources.append(source)
        return sources

    def jobs(self, **where: Any) -> list[Job]:
        return self.ledger.jobs(run=self.run, **where)

    def said(self, what: str) -> list[str]:
        """Messages of the scheduler's events of a kind."""
        return [event.message for event in self.events if event.what == what]

    @property
    def account(self) -> tuple[int, int, int]:
        (cap,) = self.ledger.caps(BUDGET)
        return cap.reserved, cap.spent, cap.overrun

    @property
    def truth(self) -> int:
        """What the vendor will bill, all in all."""
        return sum(job["micro_usd"] for job in self.vendor.jobs())

    def _tell(self, event: Event) -> None:
        assert isinstance(event, ScheduleChanged)
        self.events.append(event)


def work_at(step: int, *, rows: int = ROWS, n: int = 2) -> Workload:
    """The blocks of a step: their angles drift."""
    start = np.random.default_rng(0).normal(size=(rows, n))
    return Workload((CircuitBatch(ansatz(n, 1), start + 0.01 * step),))
