"""Observer ``tensorboard``: loss, accuracy and effect size as TensorBoard scalars."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

from qsgd_core.errors import ConfigError
from qsgd_core.events import BatchTrained, EpochEnded, Event, RunEnded, RunStarted, StepTaken

EVERY = 10
"""Steps between two readings of per-step values, each of which synchronises the device."""


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
            case BatchTrained() if event.step % EVERY == 0:
                self._add("step/training loss", event.loss, event.step)
            case StepTaken() if event.effect_size is not None and event.step % EVERY == 0:
                self._add("step/effect size", event.effect_size, event.step)
            case EpochEnded():
                for name, value in event.metrics.items():
                    if name not in ("epoch", "step"):
                        self._add(f"epoch/{name.replace('_', ' ')}", value, event.step)
            case RunEnded():
                if self._writer is not None:
                    self._writer.close()

    def _add(self, tag: str, value: Any, step: int) -> None:
        if self._writer is None:
            self._open(purge_step=None)
        self._writer.add_scalar(tag, float(value), step)

    def _open(self, *, purge_step: int | None) -> None:
        self._writer = self._make(self._log_dir, purge_step=purge_step)
        weakref.finalize(self, self._writer.close)  # for library users, who get no RunEnded
