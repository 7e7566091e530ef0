"""A courier in the trainer's own process, for simulated services."""

from __future__ import annotations

from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.courier.desk import Desk
from qsgd_core.schedule.messages import Frame


class LocalLine:
    """A courier in this process, for simulated services: a round whenever one listens."""

    starts = 1

    def __init__(self, desk: Desk, courier: Courier) -> None:
        self._desk = desk
        self._courier = courier

    def send(self, frame: Frame) -> None:
        """See :class:`~qsgd_core.schedule.trainer.line.Line`."""
        self._desk.take(Frame.decode(frame.encode()))

    def receive(self, timeout_s: float = 0.0) -> list[Frame]:
        """See :class:`~qsgd_core.schedule.trainer.line.Line`."""
        return self._desk.news(changed=self._courier.round())

    def rest(self, seconds: float) -> None:
        """See :class:`~qsgd_core.schedule.trainer.line.Line`."""

    def stop(self) -> None:
        """See :class:`~qsgd_core.schedule.trainer.line.Line`."""
