"""The policies ``tracked``, ``hold``, ``twin`` and ``sync``."""

from __future__ import annotations

from qsgd_core.policy import Policy, View, paced


class Tracked(Policy):
    """Refreshes evenly over the run; in between, the twin that every result has corrected."""

    def __init__(self, options: None = None) -> None:
        pass

    def due(self, view: View) -> bool:
        """See :func:`~qsgd_core.policy.paced`."""
        return paced(view)


class Hold(Tracked):
    """Refreshes evenly over the run; in between, the last result."""

    between = "hold"


class Sync(Hold):
    """Like ``hold``, and training stands still until each refresh has arrived."""

    waits = True


class TwinOnly(Policy):
    """Never asks: the vendor's own calibration figures in a model, free of charge."""

    measures = False

    def __init__(self, options: None = None) -> None:
        pass

    def due(self, view: View) -> bool:
        """Never."""
        return False
