"""Tests beside the primary one: they check that it does not hang on the normal distribution.

None of them decides anything, and none is corrected for the number of arms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from qsgd_lab.stats.pairs import Floats

EXACT_FLIPS = 2**16
"""Up to 16 seeds every pattern of signs is counted; beyond, this many are drawn."""
WILCOXON_FROM = 6
"""With 5 seeds the smallest p there can be is 2/2^5 = 0.06: the test cannot find anything."""
BCA_FROM = 20
"""BCa's corrections are themselves estimates; with fewer seeds its interval is too narrow."""
_RESAMPLES = 9999


@dataclass(frozen=True)
class SignFlip:
    """A permutation test of paired differences.

    Attributes:
        p: two-sided.
        exact: whether all 2^n patterns of signs were counted, not a sample of them.
    """

    p: float
    exact: bool


@dataclass(frozen=True)
class Secondary:
    """What the other tests say.

    Attributes:
        sign_flip: None below 2 seeds.
        wilcoxon_p: Wilcoxon's signed-rank test, two-sided; None below 6 seeds.
        bca95: 95 % BCa bootstrap interval of the mean; None below 20 seeds or without spread.
    """

    sign_flip: SignFlip | None
    wilcoxon_p: float | None
    bca95: tuple[float, float] | None


def secondary(differences: Floats, *, seed: int) -> Secondary:
    """All secondary tests of paired differences.

    Args:
        differences: float64 (n,).
        seed: of the bootstrap and, beyond 16 differences, of the sign flips.
    """
    return Secondary(
        sign_flip=sign_flip(differences, seed=seed),
        wilcoxon_p=_wilcoxon(differences),
        bca95=_bca(differences, seed),
    )


def sign_flip(differences: Floats, *, seed: int) -> SignFlip | None:
    """Fisher's permutation test: were the arms the same, each difference had either sign.

    p = twice the smaller share of the 2^n sign patterns whose sum is at least (at most) the sum
    seen (``scipy.stats.permutation_test``, ``permutation_type="samples"``). Beyond 16 differences
    65,536 patterns are drawn, and the pattern seen is counted among them.

    Args:
        differences: float64 (n,).
        seed: of the patterns drawn.

    Returns:
        None for n < 2.
    """
    n = len(differences)
    if n < 2:
        return None
    found = stats.permutation_test(
        (differences,),
        _sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=EXACT_FLIPS,
        rng=seed,
    )
    return SignFlip(p=float(found.pvalue), exact=2**n <= EXACT_FLIPS)


def _sum(x: ArrayLike, axis: int) -> Floats:
    return np.asarray(np.sum(x, axis=axis), dtype=np.float64)


def _wilcoxon(differences: Floats) -> float | None:
    """Signed-rank test, zeros dropped; exact without ties and, by permutation, with ties to 13."""
    if len(differences) < WILCOXON_FROM:
        return None
    if not differences.any():
        return 1.0  # scipy would divide 0 by 0 beyond 13
    with np.errstate(divide="ignore", invalid="ignore"):  # scipy 1.17: z it then does not use
        return float(stats.wilcoxon(differences).pvalue)


def _bca(differences: Floats, seed: int) -> tuple[float, float] | None:
    """Efron (1987), bias-corrected and accelerated, 9,999 resamples."""
    if len(differences) < BCA_FROM or not np.ptp(differences):
        return None
    interval = stats.bootstrap(
        (differences,), np.mean, n_resamples=_RESAMPLES, method="BCa", rng=seed
    ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    return (low, high) if np.isfinite([low, high]).all() else None
