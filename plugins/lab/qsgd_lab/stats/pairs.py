"""Two arms aligned by seed: each seed is its own control, so only differences are tested.

A run may have no value, for one of two reasons that must not be mixed up:

* **missing** (None): it was not run, was cut short, or its task raised. That says nothing about the
  arm; the pair is dropped and counted.
* **diverged** (NaN or ±inf): it ended without a usable model. That is an outcome, and a bad one.
  Dropping its pair flatters the arm, so the pair is dropped from the primary analysis, counted by
  arm, and counted in again by :meth:`Pairs.worst_case` at the worst value seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qsgd_core.errors import ConfigError

Metric: TypeAlias = Literal["accuracy", "loss"]
Floats: TypeAlias = NDArray[np.float64]

_BETTER: dict[str, Literal[1, -1]] = {"accuracy": 1, "loss": -1}
_ROUNDING_BITS = 40
"""Differences are kept to 2^-40 (1e-12) of the largest value: finer is float64 noise, which would
break ties between equal differences (0.93 - 0.92 and 0.91 - 0.90)."""


def direction(metric: str) -> Literal[1, -1]:
    """1 where higher is better (``accuracy``), -1 where lower is (``loss``).

    Raises:
        ConfigError: neither of the two.
    """
    if metric not in _BETTER:
        raise ConfigError(
            f"Arms are compared by accuracy or by loss; found the metric {metric!r}. Have the "
            "task's evaluate return one of the two, and pass metric='accuracy' or metric='loss'."
        )
    return _BETTER[metric]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Baseline and arm at the same seeds.

    Attributes:
        baseline: float64 (seeds,), one value a seed; NaN where missing or diverged.
        arm: float64 (seeds,), in the same order.
        missing: pairs of which a run is missing.
        diverged_baseline: runs of the baseline that diverged, in pairs that are not missing.
        diverged_arm: the same of the arm.
        only_baseline: seeds where the baseline diverged and the arm did not.
        only_arm: seeds where the arm diverged and the baseline did not.
    """

    baseline: Floats
    arm: Floats
    missing: int
    diverged_baseline: int
    diverged_arm: int
    only_baseline: int
    only_arm: int
    _here: NDArray[np.bool_]

    @classmethod
    def of(cls, baseline: Sequence[float | None], arm: Sequence[float | None]) -> Pairs:
        """Pairs of two sequences, one entry a seed in the same order.

        Args:
            baseline: final values; None is a missing run, NaN or ±inf a diverged one.
            arm: the same of the arm.

        Raises:
            ConfigError: the lengths differ.
        """
        if len(baseline) != len(arm):
            raise ConfigError(
                f"Paired values need the same seeds in both arms; found {len(baseline)} of the "
                f"baseline and {len(arm)} of the arm. Align them with align(baseline, arm), which "
                "takes {seed: value}."
            )
        b, a = _array(baseline), _array(arm)
        here = np.array([None not in pair for pair in zip(baseline, arm, strict=True)], dtype=bool)
        lost_b, lost_a = np.isnan(b) & here, np.isnan(a) & here
        return cls(
            b,
            a,
            missing=int((~here).sum()),
            diverged_baseline=int(lost_b.sum()),
            diverged_arm=int(lost_a.sum()),
            only_baseline=int((lost_b & ~lost_a).sum()),
            only_arm=int((lost_a & ~lost_b).sum()),
            _here=here,
        )

    @property
    def complete(self) -> tuple[Floats, Floats]:
        """Baseline and arm, float64 (complete pairs,): seeds where both have a value."""
        both = ~np.isnan(self.baseline) & ~np.isnan(self.arm)
        return self.baseline[both], self.arm[both]

    def differences(self) -> Floats:
        """Arm less baseline over the complete pairs, float64 (complete pairs,)."""
        return _differences(*self.complete)

    def worst_case(self, metric: Metric) -> Floats | None:
        """Differences with each diverged run at the worst value of the two arms.

        The worst finite value that any run of either arm ended with stands for a run that ended
        with none. Two diverged runs of one seed differ by 0. Missing runs stay out.

        Returns:
            float64 (pairs that are not missing,); None where nothing diverged, or where every run
            did and there is no value to stand in.
        """
        if not self.diverged_baseline + self.diverged_arm:
            return None
        b, a = self.baseline[self._here], self.arm[self._here]
        seen = np.concatenate([b, a])
        seen = seen[~np.isnan(seen)]
        if not seen.size:
            return None
        worst = seen.min() if direction(metric) == 1 else seen.max()
        return _differences(np.nan_to_num(b, nan=worst), np.nan_to_num(a, nan=worst))


def align(
    baseline: Mapping[int, float | None], arm: Mapping[int, float | None]
) -> tuple[list[float | None], list[float | None]]:
    """Values by seed as two sequences over the seeds of either; what one lacks is missing."""
    seeds = sorted(baseline.keys() | arm.keys())
    return [baseline.get(seed) for seed in seeds], [arm.get(seed) for seed in seeds]


def _array(values: Sequence[float | None]) -> Floats:
    return np.array(
        [v if v is not None and math.isfinite(v) else math.nan for v in values], dtype=np.float64
    )


def _differences(baseline: Floats, arm: Floats) -> Floats:
    """Arm less baseline, on a grid of a power of two, so that sums are exact in any order."""
    if not baseline.size:
        return np.zeros(0)
    _, exponent = np.frexp(max(np.abs(baseline).max(), np.abs(arm).max()))
    grid = np.ldexp(1.0, int(exponent) - _ROUNDING_BITS)
    found = np.asarray(np.round((arm - baseline) / grid) * grid, dtype=np.float64)
    # Equal differences may have been rounded to both sides of a grid point.
    return np.full_like(found, found[0]) if np.ptp(found) <= 2 * grid else found
