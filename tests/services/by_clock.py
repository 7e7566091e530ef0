"""What tests of couriers in one process stand on: a clock set by hand, a death, a quick ledger."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from qsgd_core.schedule.ledger.ledger import Ledger


class KilledError(BaseException):
    """The courier dies here: nothing of it catches this."""


class Clock:
    """Seconds since the epoch, as the stage has it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.set_by = 0.0

    def __call__(self) -> float:
        return self.now + self.set_by

    def timer(self) -> float:
        """Goes on whatever the wall clock is set to."""
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def quick_ledger(folder: Path, clock: Clock) -> Ledger:
    """A new one. Nobody pulls the plug; waiting for the disk would be most of a test's time."""
    ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}", clock=clock)
    sa.event.listen(
        ledger._database._engine,
        "connect",
        lambda connection, _: connection.execute("PRAGMA synchronous=OFF"),
    )
    return ledger
