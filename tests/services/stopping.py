"""Runs that are stopped in the middle, and what they leave."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from qsgd_core.events import BatchTrained, Event


def stop_at(step: int) -> Callable[[Event], None]:
    """An observer that presses Ctrl-C while this step is going on."""

    def press(event: Event) -> None:
        if isinstance(event, BatchTrained) and event.step == step:
            signal.raise_signal(signal.SIGINT)

    return press


def state_of(run: Path) -> dict[str, Any]:
    """What the run's checkpoint holds."""
    state: dict[str, Any] = torch.load(run / "checkpoint.pt", weights_only=True)
    return state
