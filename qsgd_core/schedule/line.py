"""The line between trainer and courier, as the scheduler sees it."""

from __future__ import annotations

from typing import Protocol

from qsgd_core.schedule.courier import Courier
from qsgd_core.schedule.desk import Desk
from qsgd_core.schedule.wire import Frame


class Line(Protocol):
    """Frames to a courier and back."""

    @property
    def starts(self) -> int:
        """How many couriers there have been; a new one knows nothing of what was said before."""

    def send(self, frame: Frame) -> None:
        """Say something; never waits."""

    def receive(self, timeout_s: float = 0.0) -> list[Frame]:
        """What was said; waits for something up to ``timeout_s``."""

    def rest(self, seconds: float) -> None:
        """Start no courier for so long."""

    def stop(self) -> None:
        """Hang up."""


class LocalLine:
    """A courier in this process, for simulated services: a round whenever one listens."""

    starts = 1

    def __init__(self, desk: Desk, courier: Courier) -> None:
        self._desk = desk
        self._courier = courier

    def send(self, frame: Frame) -> None:
        """See :class:`Line`."""
        self._desk.take(Frame.decode(frame.encode()))

    def receive(self, timeout_s: float = 0.0) -> list[Frame]:
        """See :class:`Line`."""
        return self._desk.news(changed=self._courier.round())

    def rest(self, seconds: float) -> None:
        """See :class:`Line`."""

    def stop(self) -> None:
        """See :class:`Line`."""
