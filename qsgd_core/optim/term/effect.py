"""The effect size: RMS(lr·λ·Q) / RMS(base step) over the selected coordinates, kept on device.

Nothing here synchronises until :meth:`EffectSize.read`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

SOURCES = ("measured", "tracked", "nominal", "random", "zero", "exact")
"""Where a step's modulation can have come from."""


@dataclass(frozen=True)
class Stats:
    """What the term did so far.

    Attributes:
        steps: optimizer steps seen, with or without a term.
        effect_size: of the last step that had one; 0.0 if none.
        effect_size_mean: over all steps that had one.
        effect_size_max: over all steps that had one.
        sources: number of steps whose modulation came from each source.
        spending: jobs, shots, cost_usd and qpu_s on a paid backend; None on a simulator.
        replayed: of a replay, whether it has been the recorded run to the bit, and what was
            compared.
    """

    steps: int
    effect_size: float
    effect_size_mean: float
    effect_size_max: float
    sources: dict[str, int] = field(default_factory=dict)
    spending: dict[str, Any] | None = None
    replayed: dict[str, Any] | None = None


BACKLOG = 256
"""Steps whose squares wait to be folded in together, which makes a step's share of it small."""


class EffectSize:
    """Running last, maximum, sum and count of the effect size; squares in, ratio out."""

    def __init__(self) -> None:
        self._values: torch.Tensor | None = None
        self._waiting: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(self, term_sq: Sequence[torch.Tensor], base_sq: Sequence[torch.Tensor]) -> None:
        """Count one step; a step whose base step is 0 (skipped by a GradScaler) is not counted.

        Args:
            term_sq: 0-dim each, a bucket's sum of squares of the term; at least one.
            base_sq: 0-dim each, the same of the base optimizer's step.
        """
        self._waiting.append((_total(term_sq), _total(base_sq)))
        if len(self._waiting) >= BACKLOG:
            self._fold()

    def last(self) -> torch.Tensor | None:
        """0-dim tensor: the effect size of the last counted step, on the device."""
        self._fold()
        return None if self._values is None else self._values[0].clone()

    def read(self) -> tuple[float, float, float]:
        """(last, mean, max); synchronises the device."""
        last, largest, total, count = self.to_record() or [0.0] * 4
        return last, total / count if count else 0.0, largest

    def to_record(self) -> list[float] | None:
        """A JSON form that :meth:`from_record` reads back to the bit; synchronises the device."""
        self._fold()
        return None if self._values is None else self._values.tolist()

    def from_record(self, record: list[float] | None, device: torch.device) -> None:
        """Go on from a stored record."""
        self._waiting.clear()
        self._values = None
        if record is not None:
            self._values = _zeros(device)
            self._values += torch.tensor(record, dtype=self._values.dtype, device=device)

    def _fold(self) -> None:
        """Fold in what waits, step by step in its order. Does not synchronise."""
        if not self._waiting:
            return
        device = self._waiting[0][0].device
        if self._values is None:
            self._values = _zeros(device)
        term_sq, base_sq = (
            torch.stack([pair[k].to(device) for pair in self._waiting]).to(self._values.dtype)
            for k in (0, 1)
        )
        self._waiting.clear()
        valid = base_sq > 0
        effects = torch.where(valid, (term_sq / base_sq).sqrt(), 0.0)
        order = torch.arange(1, len(effects) + 1, device=device)
        newest = torch.where(valid, order, 0).argmax()
        last, largest, total, count = self._values.to(device).unbind()
        # Summed one after the other, so that when a run folds does not change its bits.
        total = torch.cat((total[None], effects)).cumsum(0)[-1]
        self._values = torch.stack(
            (
                torch.where(valid.any(), effects.gather(0, newest[None])[0], last),
                torch.maximum(largest, effects.max()),
                total,
                count + valid.sum(),
            )
        )


def _total(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum, on the device of the first."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part.to(total.device)
    return total


def _zeros(device: torch.device) -> torch.Tensor:
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return torch.zeros(4, dtype=dtype, device=device)
