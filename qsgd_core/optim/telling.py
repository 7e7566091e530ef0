"""What the term says: to the log, and to observers."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from qsgd_core.events import Event, Observer, ScheduleChanged, Warned
from qsgd_core.measure.ranks import Ranks
from qsgd_core.observing import Observers
from qsgd_core.optim.config import logger
from qsgd_core.plugins.registry import Registry

QUIET = ("asked", "answered", "applied")
"""What a scheduler says as a matter of course."""


class Telling:
    """Passes events on; says each warning once.

    Args:
        observers: names or functions. What has a name writes somewhere: rank 0 speaks for all.
        registry: knows the names.

    Attributes:
        step: the step that warnings are said at.
    """

    def __init__(self, observers: Sequence[str | Observer] | None, registry: Registry) -> None:
        if not Ranks().is_lead:
            observers = [o for o in observers or () if callable(o)]
        self.step = 0
        self._observers = Observers(registry.make_observers(observers, None))
        self._said: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._observers)

    def tell(self, event: Event) -> None:
        """Tell the observers; what a scheduler says beyond the usual goes to the log too."""
        if isinstance(event, ScheduleChanged) and event.what not in QUIET:
            logger.log(logging.INFO if event.what == "planned" else logging.WARNING, event.message)
        self._observers(event)

    def warn(self, message: str) -> None:
        """Say something once."""
        if message not in self._said:
            self._said.add(message)
            logger.warning(message)
            self._observers(Warned(self.step, message=message))
