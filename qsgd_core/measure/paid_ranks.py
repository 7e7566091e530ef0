"""A paid run on several ranks: rank 0 has the courier, the ledger and the record, for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from qsgd_core.errors import ResultCorruptError
from qsgd_core.measure.ranks import Ranks
from qsgd_core.measure.runner import Sample
from qsgd_core.schedule.messages import Decoder, Frame

if TYPE_CHECKING:
    from qsgd_core.schedule.trainer.line import Line


def sample_for_all(ranks: Ranks, ask: Callable[[], Sample]) -> Sample:
    """What ``ask`` gives on rank 0, to the bit, on every rank.

    A collective: every rank calls it at the same steps. Rank 0 sends the expectation values
    themselves, not a twin to compute them from: they are a few kilobytes, and processors that
    differ do not agree to the last bit.

    Args:
        ranks: of the run.
        ask: runs on rank 0 alone; there it may wait for hours if it listens on a
            :class:`HeardLine`.

    Raises:
        QSGDError: what ``ask`` raised, on every rank.
    """
    if ranks.world == 1:
        return ask()
    given: list[Sample] = []

    def encoded() -> bytes:
        given.append(sample := ask())
        return Frame("sample", {"source": sample.source}, sample.z).encode()

    payload = ranks.lead_does(encoded)
    if given:
        return given[0]
    for frame in Decoder().feed(payload or b""):
        return Sample(list(frame.arrays), frame.values["source"])
    raise ResultCorruptError("Rank 0 sent no expectation values. Do all ranks run the same script?")


class HeardLine:
    """A line to the courier whose waits the other ranks hear, so that none of them gives up.

    Args:
        line: the real one.
        ranks: of the run.
    """

    def __init__(self, line: Line, ranks: Ranks) -> None:
        self._line = line
        self._ranks = ranks

    @property
    def starts(self) -> int:
        """See :class:`~qsgd_core.schedule.trainer.line.Line`."""
        return self._line.starts

    def send(self, frame: Frame) -> None:
        """See :class:`~qsgd_core.schedule.trainer.line.Line`."""
        self._line.send(frame)

    def receive(self, timeout_s: float = 0.0) -> list[Frame]:
        """See :class:`~qsgd_core.schedule.trainer.line.Line`."""
        frames = self._line.receive(timeout_s)
        if timeout_s > 0.0:
            self._ranks.go_on_waiting()
        return frames

    def rest(self, seconds: float) -> None:
        """See :class:`~qsgd_core.schedule.trainer.line.Line`."""
        self._line.rest(seconds)

    def stop(self) -> None:
        """See :class:`~qsgd_core.schedule.trainer.line.Line`."""
        self._line.stop()
