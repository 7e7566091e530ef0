"""Epochs to a target that not every run reaches: censored at the horizon, never left out.

Averaging only the runs that arrive rewards an arm whose slow runs never do. So the comparison is of
restricted means (Irwin 1949; Royston and Parmar 2013), E[min(T, horizon)], where a run that does
not arrive counts as the whole horizon; seeds are paired, and the test is the sign flip. The
Kaplan-Meier curve and the log-rank test describe; the log-rank test does not know of the pairing.

All of it is secondary: nothing here is corrected for the number of arms.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from qsgd_core.errors import ConfigError
from qsgd_lab.stats.paired import paired_t
from qsgd_lab.stats.pairs import Floats, Metric, direction
from qsgd_lab.stats.secondary import SignFlip, sign_flip


@dataclass(frozen=True)
class Epochs:
    """Epochs to the target, one entry a seed.

    Attributes:
        times: epoch at which the run reached the target, or up to which it was watched and had
            not; None is a missing run.
        reached: whether it did.
        horizon: epochs that every run was given.
    """

    times: tuple[float | None, ...]
    reached: tuple[bool, ...]
    horizon: float

    def __post_init__(self) -> None:
        if len(self.times) != len(self.reached):
            raise ConfigError(
                "Epochs need one time and one flag a seed; found "
                f"{len(self.times)} times and {len(self.reached)} flags."
            )
        wrong = [t for t in self.times if t is not None and not 0 <= t <= self.horizon]
        if wrong or not math.isfinite(self.horizon):
            raise ConfigError(
                f"Times must lie between 0 and a finite horizon; found {wrong} with the horizon "
                f"{self.horizon}. Set the horizon to the epochs of the longest run."
            )

    @classmethod
    def from_curves(
        cls,
        curves: Sequence[Sequence[float | None] | None],
        *,
        target: float,
        metric: Metric,
        horizon: int,
    ) -> Epochs:
        """First epoch at or past the target.

        Args:
            curves: a run's metric after epochs 1, 2, …; what lies past the horizon is not looked
                at. None is a missing run. An epoch without a value (None) reaches nothing.
            target: to reach: at least this accuracy, at most this loss.
            metric: ``accuracy`` or ``loss``.
            horizon: epochs that every run was given.

        A run that diverges (NaN or ±inf) before it arrives never arrives: it counts as watched to
        the horizon. A curve that just ends early is censored where it ends.
        """
        sign = direction(metric)
        times: list[float | None] = []
        reached: list[bool] = []
        for curve in curves:
            if curve is None:
                times.append(None)
                reached.append(False)
                continue
            time, arrived = _arrival(curve[:horizon], sign * target, sign, horizon)
            times.append(time)
            reached.append(arrived)
        return cls(tuple(times), tuple(reached), float(horizon))

    @property
    def n_reached(self) -> int:
        """Runs that reached the target."""
        return sum(self.reached)

    @property
    def n_runs(self) -> int:
        """Runs that are not missing."""
        return sum(time is not None for time in self.times)


@dataclass(frozen=True)
class RestrictedDifference:
    """Paired difference of restricted means, in epochs; negative where the arm is faster.

    Attributes:
        n: pairs of which both runs reached the target or were watched to the horizon.
        dropped: other pairs: a run missing, or cut short before it arrived.
        horizon: at which the means are restricted.
        baseline_mean: mean of min(T, horizon) of the baseline over the pairs.
        arm_mean: the same of the arm.
        mean: arm_mean less baseline_mean.
        se: standard error of the mean difference; None below 2 pairs.
        ci95: its 95 % t interval; None below 2 pairs or without spread. The test is the sign flip.
        sign_flip: its test; None below 2 pairs.
    """

    n: int
    dropped: int
    horizon: float
    baseline_mean: float
    arm_mean: float
    mean: float
    se: float | None
    ci95: tuple[float, float] | None
    sign_flip: SignFlip | None


@dataclass(frozen=True)
class Survival:
    """Kaplan-Meier curve: the share of runs that have not reached the target yet.

    Attributes:
        times: epochs at which a run arrived or left, ascending.
        share: S(t) from that epoch on.
        low: lower end of its 95 % log-log interval; None where S is 0 or 1, which has none.
        high: the upper end.
        median: first epoch with S(t) ≤ 1/2; None if none.
        reached: runs that reached the target.
        of: runs watched.
    """

    times: tuple[float, ...]
    share: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    median: float | None
    reached: int
    of: int


@dataclass(frozen=True)
class LogRank:
    """Mantel's log-rank test, two-sided; it takes the arms as independent, so it only describes."""

    chi2: float
    p: float


def restricted_difference(
    baseline: Epochs, arm: Epochs, *, seed: int = 0
) -> RestrictedDifference | None:
    """Paired difference of restricted means, tested by sign flip.

    Args:
        baseline: one entry a seed.
        arm: the same seeds in the same order.
        seed: of the sign flips, beyond 16 pairs.

    Returns:
        None where no run of either arm reaches the target, or no pair is complete.

    Raises:
        ConfigError: other seeds or another horizon.
    """
    if len(baseline.times) != len(arm.times) or baseline.horizon != arm.horizon:
        raise ConfigError(
            "Epochs to a target are compared over the same seeds and horizon; found "
            f"{len(baseline.times)} and {len(arm.times)} seeds, horizons {baseline.horizon:g} and "
            f"{arm.horizon:g}."
        )
    b, a = _restricted(baseline), _restricted(arm)
    both = ~np.isnan(b) & ~np.isnan(a)
    b, a = b[both], a[both]
    if not len(b) or not baseline.n_reached + arm.n_reached:
        return None
    differences = a - b
    found = paired_t(differences)
    return RestrictedDifference(
        n=len(b),
        dropped=int((~both).sum()),
        horizon=baseline.horizon,
        baseline_mean=float(b.mean()),
        arm_mean=float(a.mean()),
        mean=float(differences.mean()),
        se=found.se,
        ci95=found.ci95,
        sign_flip=sign_flip(differences, seed=seed),
    )


def survival(epochs: Epochs) -> Survival | None:
    """Kaplan-Meier estimate with Greenwood's variance on the log-log scale (``scipy.stats.ecdf``).

    Returns:
        None without a run.
    """
    if not epochs.n_runs:
        return None
    curve = stats.ecdf(_censored(epochs)).sf
    with warnings.catch_warnings():  # 0/0 where S is 0 or 1, which becomes None
        warnings.simplefilter("ignore", RuntimeWarning)
        band = curve.confidence_interval(0.95, method="log-log")
    share = tuple(float(s) for s in curve.probabilities)
    times = tuple(float(t) for t in curve.quantiles)
    return Survival(
        times=times,
        share=share,
        low=_finite(band.low.probabilities),
        high=_finite(band.high.probabilities),
        median=next((t for t, s in zip(times, share, strict=True) if s <= 0.5), None),
        reached=epochs.n_reached,
        of=epochs.n_runs,
    )


def log_rank(baseline: Epochs, arm: Epochs) -> LogRank | None:
    """Log-rank test of two arms (``scipy.stats.logrank``); χ² has one degree of freedom.

    Returns:
        None where it has no variance: no run of either arm arrives, or an arm has no runs.
    """
    if not (baseline.n_runs and arm.n_runs and baseline.n_reached + arm.n_reached):
        return None
    with np.errstate(invalid="ignore"):
        found = stats.logrank(_censored(baseline), _censored(arm))
    if not np.isfinite(found.statistic):
        return None
    return LogRank(chi2=float(found.statistic) ** 2, p=float(found.pvalue))


def _arrival(
    curve: Sequence[float | None], target: float, sign: int, horizon: int
) -> tuple[float, bool]:
    """Epoch and True where the run arrives, else the last epoch it was watched and False."""
    for epoch, value in enumerate(curve, start=1):
        if value is None:
            continue
        if not math.isfinite(value):
            return horizon, False
        if sign * value >= target:
            return epoch, True
    return len(curve), False


def _restricted(epochs: Epochs) -> Floats:
    """min(T, horizon) by seed, float64 (seeds,); NaN where it is not known."""
    return np.array(
        [
            t if t is not None and (reached or t == epochs.horizon) else math.nan
            for t, reached in zip(epochs.times, epochs.reached, strict=True)
        ],
        dtype=np.float64,
    )


def _censored(epochs: Epochs) -> stats.CensoredData:
    entries = [
        (t, reached)
        for t, reached in zip(epochs.times, epochs.reached, strict=True)
        if t is not None
    ]
    return stats.CensoredData(
        uncensored=[t for t, reached in entries if reached],
        right=[t for t, reached in entries if not reached],
    )


def _finite(values: Floats) -> tuple[float | None, ...]:
    return tuple(float(v) if np.isfinite(v) else None for v in values)
