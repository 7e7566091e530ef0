"""How long ago something was that may have been dated by another process."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable


class AgeTimer:
    """Ages by the dates when a thing is first asked for, and by a timer from there on.

    The wall clock may be set at any time: between processes there is nothing else to compare, but
    within one it is read once for each thing.

    Args:
        clock: seconds since the epoch.
        timer: seconds from any origin; never set back.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._timer = timer
        self._first: dict[tuple[Hashable, float], tuple[float, float]] = {}

    def of(self, what: Hashable, date: float) -> float:
        """Seconds since ``date``, not below 0; a date of the future counts as now."""
        now = self._timer()
        age, then = self._first.setdefault((what, date), (max(self._clock() - date, 0.0), now))
        return age + now - then
