"""Observer ``tensorboard``: loss, accuracy and effect size as TensorBoard scalars."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

from qsgd_core.errors import ConfigError
from qsgd_core.events import Event, RunEnded, RunStarted
from qsgd_core.scalars import scalars


class TensorBoardObserver:
    """Writes to ``<run_dir>/tensorboard``; without a run folder, to TensorBoard's own default.

    Args:
        run_dir: the run's folder, or None for library users.

    Raises:
        ConfigError: the tensorboard package is not installed.
    """

    def __init__(self, run_dir: Path | None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                f"Observer 'tensorboard' needs the tensorboard package ({error}). "
                "Install it: pip install 'qsgd-core[tensorboard]'"
            ) from error
        self._make = SummaryWriter
        self._log_dir = None if run_dir is None else str(run_dir / "tensorboard")
        self._writer: Any = None

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                # A resumed run writes over what came after its checkpoint.
                self._open(purge_step=event.step + 1 if event.step else None)
            case RunEnded():
                if self._writer is not None:
                    self._writer.close()
            case _:
                for tag, value, step in scalars(event):
                    self._add(tag, value, step)

    def _add(self, tag: str, value: Any, step: int) -> None:
        if self._writer is None:
            self._open(purge_step=None)
        self._writer.add_scalar(tag, float(value), step)

    def _open(self, *, purge_step: int | None) -> None:
        self._writer = self._make(self._log_dir, purge_step=purge_step)
        weakref.finalize(self, self._writer.close)  # for library users, who get no RunEnded
