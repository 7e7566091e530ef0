"""Ctrl-C as a request: finish the step, save, stop. A second one ends the process at once.

A step that waits for a vendor's queue is given up, and the run stands at its last checkpoint.
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from qsgd_core.schedule.trainer import patience

logger = logging.getLogger(__name__)


class Interrupt:
    """While entered, the first SIGINT sets :attr:`requested`; the second does what the system
    does with it. Outside the main thread, where python takes no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if (waited_for := patience.waited_for()) is not None:
            now = f"Training waits for {waited_for}. It stops now, at its last checkpoint"
        else:
            now = "Training stops when this step is finished and saved"
        said = f"{now}. A second Ctrl-C ends it at once."
        # Not here: the signal may have come while this very thread was writing to stderr.
        threading.Thread(target=logger.warning, args=("%s", said), daemon=True).start()
