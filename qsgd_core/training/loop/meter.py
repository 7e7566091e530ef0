"""Sums over an epoch that stay on the device until they are read."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from qsgd_core.events import Event, StepTaken


class RunningSum:
    """Adds 0-dim tensors without synchronising; goes on to the bit from what was read.

    Args:
        total: where to begin.
        count: how many values ``total`` is the sum of.
    """

    def __init__(self, total: float = 0.0, count: int = 0) -> None:
        self.count = count
        self._start = total
        self._sum: torch.Tensor | None = None

    def add(self, value: torch.Tensor) -> None:
        """Add one value."""
        value = value.detach()
        if self._sum is None:
            # mps has no float64
            dtype = torch.float32 if value.device.type == "mps" else torch.float64
            self._sum = torch.tensor(self._start, dtype=dtype, device=value.device)
        self._sum += value
        self.count += 1

    @property
    def total(self) -> float:
        """The sum so far. Synchronises the device."""
        return self._start if self._sum is None else float(self._sum)

    @property
    def mean(self) -> float:
        """The mean so far, 0.0 of nothing. Synchronises the device."""
        return self.total / self.count if self.count else 0.0


@dataclass
class EpochMeter:
    """Training loss and effect size of the epoch that is going on; observes ``StepTaken``."""

    loss: RunningSum
    effect: RunningSum
    unknown: bool = False

    @classmethod
    def empty(cls) -> EpochMeter:
        """A meter that has seen nothing."""
        return cls(RunningSum(), RunningSum())

    def reset(self) -> None:
        """Begin another epoch."""
        self.loss, self.effect, self.unknown = RunningSum(), RunningSum(), False

    def __call__(self, event: Event) -> None:
        if not isinstance(event, StepTaken):
            return
        if event.effect_size is not None:
            self.effect.add(event.effect_size)
        elif event.source != "zero":
            self.unknown = True

    @property
    def effect_mean(self) -> float | None:
        """Mean effect size; None if a step's term is of unknown size. Synchronises the device."""
        return None if self.unknown else self.effect.mean
