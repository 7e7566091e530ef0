"""The effect size: RMS(lr·λ·Q) / RMS(base step) over the selected coordinates, kept on device.

Nothing here synchronises until :meth:`EffectSize.read`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Stats:
    """What the term did so far.

    Attributes:
        steps: optimizer steps seen, with or without a term.
        effect_size: of the last step that had one; 0.0 if none; None if a term was there and
            nobody knows what the base optimizer made of it.
        effect_size_mean: over all steps that had one; None likewise.
        effect_size_max: over all steps that had one; None likewise.
        sources: number of steps by where their modulation came from, see
            :data:`qsgd_core.sources.SourceName`.
        spending: jobs, shots, cost_usd and qpu_s on a paid backend; None on a simulator.
        replayed: of a replay, whether it has been the recorded run to the bit, and what was
            compared.
    """

    steps: int
    effect_size: float | None
    effect_size_mean: float | None
    effect_size_max: float | None
    sources: dict[str, int] = field(default_factory=dict)
    spending: dict[str, Any] | None = None
    replayed: dict[str, Any] | None = None


OVERWHELMING = 1.0
"""An effect size above this in the first steps is said: the term is larger than the step."""
FIRST_STEPS = 10
"""Steps that are looked at for it, where that waits for no device."""
BACKLOG = 256
"""Steps whose squares wait to be folded in together, which makes a step's share of it small."""


class EffectSize:
    """Running last, maximum, sum and count of the effect size; squares in, ratio out."""

    def __init__(self) -> None:
        self._values: torch.Tensor | None = None
        self._waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._known = True
        self._to_look_at = FIRST_STEPS

    def add(self, term_sq: Sequence[torch.Tensor], base_sq: Sequence[torch.Tensor]) -> str | None:
        """Count one step; a step whose base step is 0 (skipped by a GradScaler) is not counted.

        Args:
            term_sq: 0-dim each, a bucket's sum of squares of the term; at least one.
            base_sq: 0-dim each, the same of the base optimizer's step.

        Returns:
            A sentence for the user if one of the first steps is overwhelmed by the term. Another
            device than the CPU is waited for once, at the first step.
        """
        term, base = _total(term_sq), _total(base_sq)
        self._waiting.append((term, base))
        if len(self._waiting) >= BACKLOG:
            self._fold()
        return self._look(term, base) if self._to_look_at else None

    def forget(self) -> None:
        """A step had a term whose size nobody knows: from now on there is no effect size."""
        self._known = False

    def _look(self, term_sq: torch.Tensor, base_sq: torch.Tensor) -> str | None:
        first = self._to_look_at == FIRST_STEPS
        self._to_look_at -= 1
        if not first and term_sq.device.type != "cpu":
            return None
        term, base = (float(x.detach().cpu().numpy()) for x in (term_sq, base_sq))
        if not 0 < base < term / OVERWHELMING**2:
            return None
        self._to_look_at = 0
        return (
            f"The term is {(term / base) ** 0.5:.3g} times the base optimizer's step: it does not "
            "add to the training, it takes it over. The term is lr·λ·Q, and this lr may not be the "
            "size of a step (Prodigy and D-Adaptation find that by themselves), or gradients are "
            'very large. Use normalize="update", by which quantum_weight is the ratio of the term '
            "to the step, or a smaller quantum_weight."
        )

    def last(self) -> torch.Tensor | None:
        """0-dim tensor: the effect size of the last counted step, on the device."""
        self._fold()
        return None if self._values is None else self._values[0].clone()

    def read(self) -> tuple[float | None, float | None, float | None]:
        """(last, mean, max), None if unknown; synchronises the device."""
        if not self._known:
            return None, None, None
        last, largest, total, count = self.to_record() or [0.0] * 4
        return last, total / count if count else 0.0, largest

    def to_record(self) -> list[float] | None:
        """A JSON form that :meth:`from_record` reads back to the bit; synchronises the device."""
        self._fold()
        return None if self._values is None else self._values.tolist()

    def from_record(self, record: list[float] | None, device: torch.device) -> None:
        """Go on from a stored record; the first steps are over if it has one."""
        self._known = True
        self._to_look_at = FIRST_STEPS if record is None else 0
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
