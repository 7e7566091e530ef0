"""The line between trainer and courier, as the scheduler sees it."""

from __future__ import annotations

from typing import Protocol

from qsgd_core.schedule.messages import Frame


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
