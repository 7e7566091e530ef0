"""Was the hardware worth its money? The skill score V = 1 - E²/E²_twin, with an interval.

E is how far what was used lay from the device, E_twin how far the free twin would have lain. Both
are estimated from arriving results, less their shot noise: see
:mod:`qsgd_core.schedule.courier.judge`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Verdict: TypeAlias = Literal["worth it", "not worth it", "cannot tell"]

LEVEL = 0.95
"""Confidence of the interval."""
FEWEST = 3
"""Results without which no interval can be had."""


@dataclass(frozen=True)
class Skill:
    """What a run's results say of its hardware.

    Attributes:
        n: results that were judged.
        e_sq: estimate of E², which may be below 0: shot noise is taken off. None without results.
        twin_sq: the same of the free twin.
        value: V, at most 1; None if it cannot be told, as are the bounds.
        low: lower end of its 95 % interval.
        high: upper end.
        reason: why it cannot be told.
    """

    n: int
    e_sq: float | None = None
    twin_sq: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    @property
    def verdict(self) -> Verdict:
        """Whether V is above 0 with 95 % confidence, below 0, or neither."""
        if self.low is None or self.high is None or self.low <= 0.0 <= self.high:
            return "cannot tell"
        return "worth it" if self.low > 0.0 else "not worth it"


def skill(
    e_sq: Sequence[float], twin_sq: Sequence[float], *, weights: Sequence[float] | None = None
) -> Skill:
    """V as a ratio of sums over results, with Fieller's interval.

    The interval holds every V for which the mean of e_sq - (1 - V)·twin_sq is not significantly
    different from 0 (Fieller 1954, with Student's t): exact for normal means, good from three
    results on, and it says so when the twin's own error is lost in shot noise and no ratio to it
    can be told. Results count as independent of each other.

    Args:
        e_sq: each result's estimate of E².
        twin_sq: of the free twin's, from the same results.
        weights: how much each result counts, as the number of blocks it measured; None: the same.
    """
    e, t = np.asarray(e_sq, dtype=np.float64), np.asarray(twin_sq, dtype=np.float64)
    w = np.ones(len(e)) if weights is None else np.asarray(weights, dtype=np.float64)
    n = len(e)
    if n == 0:
        return Skill(0, reason="no result has arrived that could be compared")
    means = float(np.average(e, weights=w)), float(np.average(t, weights=w))
    if n < FEWEST:
        return Skill(n, *means, reason=f"only {n} of at least {FEWEST} results have arrived")
    ratios = _fieller(e, t, w)
    if ratios is None:
        why = "the free twin is so close to the device that its error is lost in shot noise"
        return Skill(n, *means, reason=why)
    least, most = ratios
    value, low, high = (min(1.0, 1.0 - r) for r in (means[0] / means[1], most, least))
    return Skill(n, *means, value, low, high)


def _fieller(e: Floats, t: Floats, w: Floats) -> tuple[float, float] | None:
    """The interval of mean(e)/mean(t); None if mean(t) is not significantly above 0."""
    mean_e, mean_t = float(np.average(e, weights=w)), float(np.average(t, weights=w))
    rest = np.stack((e - mean_e, t - mean_t))
    (s_ee, s_et), (_, s_tt) = (w * rest) @ rest.T / (len(e) - 1)
    c_sq = student_t(len(e) - 1) ** 2 / float(w.sum())
    a = mean_t**2 - c_sq * s_tt
    if a <= 0.0 or mean_t <= 0.0:
        return None
    b = mean_e * mean_t - c_sq * s_et
    c = mean_e**2 - c_sq * s_ee
    root = math.sqrt(max(b * b - a * c, 0.0))
    return (b - root) / a, (b + root) / a


def student_t(df: int, level: float = LEVEL) -> float:
    """The two-sided quantile of Student's t, to 1 % from two degrees of freedom on.

    Cornish and Fisher's expansion, Abramowitz and Stegun 26.7.5; the core does without scipy.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    g4 = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    return z + g1 / df + g2 / df**2 + g3 / df**3 + g4 / df**4
