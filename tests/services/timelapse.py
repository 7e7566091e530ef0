"""Training on a clock of its own: a real adapter, a vendor's double, and hours that pass at once.

The optimizer, the scheduler, the desk, the courier, the ledger and the adapter are the real ones;
only the pipe between trainer and courier is left out, and nobody's clock is the machine's. A step
takes a minute. The courier ends and is started again as its process is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qsgd_core.backend import Backend
from qsgd_core.children import courier as entry
from qsgd_core.errors import QSGDError
from qsgd_core.events import Event, ScheduleChanged
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.courier.desk import Desk
from qsgd_core.schedule.courier.inline import LocalLine
from qsgd_core.schedule.failures import pack_error
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.rows import Job, Run
from qsgd_core.schedule.messages import Decoder, Frame
from qsgd_core.schedule.trainer.scheduler import Scheduler

STEP_S = 60.0
WAIT_S = 1.0
"""The clock goes on by so much whenever a trainer that waits has heard nothing."""

REAP_S = 0.2
"""No courier is started for so long after one that has ended."""


class Clock:
    """Seconds since the epoch, as trainer, courier and adapter have them."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Line:
    """In place of :class:`~qsgd_core.schedule.trainer.process.CourierProcess`.

    Attributes:
        starts: couriers so far.
    """

    def __init__(
        self,
        clock: Clock,
        url: str,
        run: str,
        *,
        ledger_id: str | None = None,
        log: Path | None = None,
    ) -> None:
        self.starts = 0
        self._clock = clock
        self._ledger = Ledger(url, clock=clock, known_as=ledger_id)
        self._run = run
        self._courier: LocalLine | None = None
        self._rest_until = 0.0
        self._last_words: list[Frame] = []

    def send(self, frame: Frame) -> None:
        self._unless_it_stops(lambda courier: courier.send(frame))

    def receive(self, timeout_s: float = 0.0) -> list[Frame]:
        until = self._clock() + timeout_s
        while True:
            frames: list[Frame] = []
            self._unless_it_stops(lambda courier, said=frames: said.extend(courier.receive()))
            frames += self._last_words
            self._last_words = []
            if frames or self._clock() >= until:
                return [frame for f in frames for frame in Decoder().feed(f.encode())]
            self._clock.sleep(min(WAIT_S, until - self._clock()))

    def rest(self, seconds: float) -> None:
        self._rest_until = self._clock() + seconds

    def stop(self) -> None:
        self._courier = None

    def _unless_it_stops(self, act: Callable[[LocalLine], None]) -> None:
        """Start a courier if there is none, and do it; what it cannot go on from is told."""
        if self._courier is None and self._clock() < self._rest_until:
            return
        try:
            if self._courier is None:
                self.starts += 1
                self._courier = self._started()
            act(self._courier)
        except QSGDError as error:
            self._ledger.stopped(self._run, error)
            self._last_words.append(Frame("stopped", {"error": pack_error(error)}))
            self._courier = None
            self._rest_until = max(self._rest_until, self._clock() + REAP_S)

    def _started(self) -> LocalLine:
        backend = entry._look(self._ledger, self._ledger.run(self._run))
        courier = Courier(
            self._ledger, backend, run=self._run, clock=self._clock, timer=self._clock
        )
        desk = Desk(
            self._ledger, backend, courier, run=self._run, clock=self._clock, timer=self._clock
        )
        return LocalLine(desk, courier)


class Training:
    """A small model, its optimizer with the term on it, and what happened.

    Args:
        home: QSGD_HOME.
        clock: everybody's.
        make: the optimizer with the term, from parameters and the term's arguments; gives
            something with ``qsgd_stats`` and ``close``, and something with ``step``.
        asked: of the term.
    """

    def __init__(self, home: Path, clock: Clock, make: Callable[..., Any], **asked: Any) -> None:
        torch.manual_seed(0)
        self.clock = clock
        self.steps = 0
        self.events: list[ScheduleChanged] = []
        self.model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
        self._data = torch.randn(16, 4)
        small = {"n_qubits": 2, "depth": 1, "perturbation": "circuit", "policy": "tracked"}
        free = {"run": "r", "schedule": {"twin_every": 1}, "observers": [self._see]}
        self.opt = make(self.model.parameters(), **{**small, **free, **asked})
        self.term = getattr(self.opt, "_term", None) or self.opt
        self.ledger = Ledger(f"sqlite:///{home / 'ledger.sqlite'}", clock=clock)
        self.record = home / "records" / "r.sqlite"

    def go(self, steps: int, *, step_s: float = STEP_S) -> None:
        """So many steps."""
        for _ in range(steps):
            self.clock.sleep(step_s)
            self.opt.zero_grad()
            (self.model(self._data) ** 2).mean().backward()
            self.opt.step()
            self.steps += 1

    def finish(self) -> None:
        """The end of the run, then whatever ``qsgd jobs resume`` still has to collect."""
        self.term.close(finished=True)
        line = Line(self.clock, self.ledger.url, "r")
        for _ in range(200):
            if not self.open():
                return
            line.receive(STEP_S)
        raise AssertionError(f"never settled: {self.open()}")

    def open(self) -> list[Job]:
        """Jobs that have not ended."""
        return [job for job in self.jobs() if job.settled_at is None]

    def jobs(self, *states: str) -> list[Job]:
        return self.ledger.jobs(run="r", states=states or None)

    def said(self, what: str) -> list[str]:
        """Messages of the events of a kind."""
        return [event.message for event in self.events if event.what == what]

    def spent(self, unit: str) -> int:
        """On the ledger; nothing may be held any more, and nothing billed above what was held."""
        (cap,) = [cap for cap in self.ledger.caps(self.budget) if cap.unit == unit]
        assert (cap.reserved, cap.overrun) == (0, 0)
        assert cap.spent == sum(job.spent.of(unit) for job in self.jobs())
        return cap.spent

    @property
    def budget(self) -> str:
        return self.jobs()[0].budget

    @property
    def learned(self) -> list[int]:
        """Steps whose refreshes the trainer has the answer to."""
        return sorted(self.term.source.paid.state()["learned"])

    def _see(self, event: Event) -> None:
        if isinstance(event, ScheduleChanged):
            self.events.append(event)


def timelapse(
    patch: pytest.MonkeyPatch, home: Path, make: Callable[[Run, str, Clock], Backend]
) -> Clock:
    """From now on runs on a backend are on the clock that is returned.

    Args:
        patch: undoes it.
        home: QSGD_HOME.
        make: the adapter for a run by a name of it, on the clock.
    """
    clock = Clock()
    home.mkdir(parents=True, exist_ok=True)
    patch.setenv("QSGD_HOME", str(home))
    patch.setattr("qsgd_core.schedule.trainer.process.CourierProcess", partial(Line, clock))
    patch.setattr(
        "qsgd_core.schedule.trainer.scheduler.Scheduler",
        partial(Scheduler, clock=clock, timer=clock),
    )
    patch.setattr(
        "qsgd_core.children.courier.open_backend", lambda run, name: make(run, name, clock)
    )
    return clock
