"""IBM takes five new jobs a minute from a user; asking more often only gives errors."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

JOBS_PER_WINDOW = 5
WINDOW_S = 60.0


class RateLimiter:
    """Waits as long as needed before a submission.

    Args:
        clock: monotonic seconds.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._sent: deque[float] = deque(maxlen=JOBS_PER_WINDOW)

    def wait(self) -> None:
        """Return when one more job may be sent, and count it."""
        if len(self._sent) == JOBS_PER_WINDOW:
            free_in = self._sent[0] + WINDOW_S - self._clock()
            if free_in > 0:
                self._sleep(free_in)
        self._sent.append(self._clock())
