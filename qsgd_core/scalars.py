"""What a logger keeps of a run: events as named numbers, the same names wherever they go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qsgd_core.events import BatchTrained, EpochEnded, Event, StepTaken

EVERY = 10
"""Steps between two readings of per-step values, each of which synchronises the device."""


def scalars(event: Event) -> Iterator[tuple[str, Any, int]]:
    """Name, value and step of what an event tells; nothing for most events.

    Values are numbers or 0-dim tensors, still on their device.
    """
    match event:
        case BatchTrained() if event.step % EVERY == 0:
            yield "step/training loss", event.loss, event.step
        case StepTaken() if event.effect_size is not None and event.step % EVERY == 0:
            yield "step/effect size", event.effect_size, event.step
        case EpochEnded():
            for name, value in event.metrics.items():
                if name not in ("epoch", "step") and value is not None:
                    yield f"epoch/{name.replace('_', ' ')}", value, event.step
