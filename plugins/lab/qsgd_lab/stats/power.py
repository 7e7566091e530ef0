"""What a paired t test of n seeds can find: power by the non-central t distribution.

With differences of mean δ and standard deviation σ, t = mean/(sd/√n) has n-1 degrees of freedom and
non-centrality δ√n/σ, so

    power(δ) = P(|T| > t_{1-α/2, n-1}),    T ~ t'(n-1, δ√n/σ)

(Cohen, Statistical Power Analysis, 1988, ch. 2; what R's ``power.t.test(strict=TRUE)`` computes).
σ is not known: the spread seen stands for it, and the answers are as good as that. Between k arms
Holm's first step tests at α/k, which is what a lone effect has to pass.
"""

from __future__ import annotations

import math

from scipy import optimize, stats

from qsgd_core.errors import ConfigError

POWER = 0.8
ALPHA = 0.05
_MOST_SEEDS = 100_000


def power_of(effect: float, *, n: int, sd: float, alpha: float = ALPHA, arms: int = 1) -> float:
    """Chance that a two-sided paired t test finds a mean difference.

    Args:
        effect: the difference, in the metric's unit; its sign does not matter.
        n: pairs, at least 2.
        sd: standard deviation of the differences, positive.
        alpha: significance level.
        arms: arms that share alpha (Holm's first step).

    Raises:
        ConfigError: a value out of range.
    """
    _check(n, sd, alpha, arms)
    if n < 2 or not sd:
        raise ConfigError(
            f"Power needs at least 2 pairs and a spread; found n={n} and sd={sd}. Run more seeds."
        )
    return _power(abs(effect) * math.sqrt(n) / sd, n, alpha / arms)


def minimum_detectable_effect(
    n: int, sd: float, *, power: float = POWER, alpha: float = ALPHA, arms: int = 1
) -> float | None:
    """The smallest mean difference that is found with this power.

    Args:
        n: pairs.
        sd: standard deviation of the differences, in the metric's unit.
        power: chance of finding it.
        alpha: two-sided significance level.
        arms: arms that share alpha (Holm's first step).

    Returns:
        In the unit of ``sd``; None below 2 pairs, which find nothing however large.

    Raises:
        ConfigError: a value out of range.
    """
    _check(n, sd, alpha, arms)
    if not alpha / arms < power < 1:
        raise ConfigError(
            f"A minimum detectable effect needs alpha < power < 1; found power={power} and alpha "
            f"{alpha} over {arms} arms. power=0.8 is usual."
        )
    if n < 2:
        return None
    high = 2 * _critical(n, alpha / arms) + 10
    while _power(high, n, alpha / arms) < power:
        high *= 2
    shift = optimize.brentq(lambda nc: _power(nc, n, alpha / arms) - power, 0.0, high)
    return float(shift) * sd / math.sqrt(n)


def seeds_needed(
    effect: float, sd: float, *, power: float = POWER, alpha: float = ALPHA, arms: int = 1
) -> int | None:
    """The fewest pairs that find a mean difference with this power.

    Args:
        effect: the difference, in the metric's unit; its sign does not matter.
        sd: standard deviation of the differences.
        power: chance of finding it.
        alpha: two-sided significance level.
        arms: arms that share alpha (Holm's first step).

    Returns:
        At least 2; None where 100,000 are too few, as for an effect of 0.

    Raises:
        ConfigError: a value out of range.
    """
    _check(2, sd, alpha, arms)
    if not sd:
        return 2 if effect else None

    def enough(n: int) -> bool:
        return power_of(effect, n=n, sd=sd, alpha=alpha, arms=arms) >= power

    high = 2
    while not enough(high):
        if high >= _MOST_SEEDS:
            return None
        high = min(2 * high, _MOST_SEEDS)
    low = max(2, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def _critical(n: int, alpha: float) -> float:
    return float(stats.t.isf(alpha / 2, n - 1))


def _power(noncentrality: float, n: int, alpha: float) -> float:
    limit = _critical(n, alpha)
    above = stats.nct.sf(limit, n - 1, noncentrality)
    below = stats.nct.sf(limit, n - 1, -noncentrality)  # nct.cdf(-limit) is NaN in scipy 1.17
    return float(above + below)


def _check(n: int, sd: float, alpha: float, arms: int) -> None:
    if n < 0 or not 0 <= sd < math.inf or not 0 < alpha < 1 or arms < 1:
        raise ConfigError(
            "Power needs n >= 0, a finite sd >= 0, 0 < alpha < 1 and arms >= 1; found "
            f"n={n}, sd={sd}, alpha={alpha}, arms={arms}."
        )
