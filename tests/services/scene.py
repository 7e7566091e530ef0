"""One vendor, one ledger and couriers that come and go, on one clock that nobody waits for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from by_clock import Clock, KilledError, quick_ledger

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.ledger.rows import Job
from qsgd_core.schedule.ledger.states import OPEN

WORK = Workload((CircuitBatch(ansatz(2, 1), np.array([[0.2, 0.4], [0.1, 0.3]])),))
PRICE = 1_000 + 2 * 16
"""Micro-dollars of a job of two rows and 16 shots."""


class Scene:
    """A vendor, a ledger, and couriers that come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.ledger = quick_ledger(folder, self.clock)
        self.ledger.create_budget("b", {"micro_usd": 10 * PRICE})
        self.have()

    def have(self, **options) -> None:
        """A vendor with these options and a courier that knows nothing."""
        from qsgd_filebox.backend import Filebox
        from qsgd_filebox.options import FileboxOptions

        self.backend = Filebox(
            "filebox:x",
            FileboxOptions(folder=self.folder / "vendor", **options),
            clock=self.clock,
            sleep=self.clock.sleep,
        )
        self.vendor = self.backend.vendor
        self.restart()

    def restart(self, **arguments) -> None:
        self.courier = Courier(
            self.ledger,
            self.backend,
            run="r",
            clock=self.clock,
            timer=self.clock.timer,
            **arguments,
        )

    def ask(self, tag: str = "t", *, budget: str = "b", run: str = "r") -> None:
        self.ledger.add_intent(
            WORK, tag=tag, run=run, budget=budget, backend="filebox:x", options={}, step=3,
            part=0, attempt=0, shots=16, seed=5,
        )  # fmt: skip

    def go(self, seconds: float = 120.0) -> None:
        """Rounds until nothing is open or the time is over."""
        end = self.clock.now + seconds
        while self.clock.now <= end:
            self.courier.round()
            if not self.ledger.jobs(states=OPEN):
                return
            self.clock.now += max(self.courier.idle_s(), 1e-3)

    def job(self, tag: str = "t") -> Job:
        return self.ledger.job(tag)

    def until(self, state: str) -> None:
        while self.job().state != state:
            assert self.courier.round()

    @property
    def account(self) -> tuple[int, int, int]:
        (cap,) = self.ledger.caps("b")
        return cap.reserved, cap.spent, cap.overrun

    @property
    def truth(self) -> int:
        """What the vendor will bill, all in all."""
        return sum(job["micro_usd"] for job in self.vendor.jobs())

    def dies_in(self, monkeypatch, name: str, *, after: bool = False) -> None:
        """The courier is killed before or after its next call of this ledger or backend method."""
        owner = self.backend if hasattr(type(self.backend), name) else self.ledger
        real = getattr(owner, name)

        def call(*arguments, **more):
            monkeypatch.setattr(owner, name, real)
            if after:
                real(*arguments, **more)
            raise KilledError

        monkeypatch.setattr(owner, name, call)
