"""Tells observers what happened, and keeps what they raise away from training."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from qsgd_core.events import Event, Observer

logger = logging.getLogger("qsgd_core")


class Observers:
    """Calls every observer with every event; one that raises is logged and not called again."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = list(observers)

    def __bool__(self) -> bool:
        return bool(self._observers)

    def __call__(self, event: Event) -> None:
        for observer in list(self._observers):
            try:
                observer(event)
            except Exception:
                self._observers.remove(observer)
                logger.exception("Observer %r failed and is not told of anything more.", observer)
