"""The primary analysis, fixed before any run: paired t on the final metric, Holm over the arms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from qsgd_lab.stats.pairs import Floats, Metric, Pairs, align, direction
from qsgd_lab.stats.secondary import Secondary, secondary, sign_flip


@dataclass(frozen=True)
class MeanSE:
    """Mean and standard error sd/√n of an arm's runs; None where too few have a value.

    Attributes:
        n: runs with a value; missing and diverged ones are not among them.
    """

    n: int
    mean: float | None
    se: float | None


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences with its test.

    Attributes:
        n: pairs.
        mean: None without a pair.
        sd: standard deviation of the differences (n-1); None below 2 pairs.
        se: sd/√n.
        ci95: 95 % interval of the mean; None below 2 pairs and without spread.
        p: two-sided, of no mean difference; None below 2 pairs.
        test: what p is of. ``sign flip`` takes the place of ``paired t`` where all differences are
            equal, as t is then 0/0 or infinite.
    """

    n: int
    mean: float | None
    sd: float | None
    se: float | None
    ci95: tuple[float, float] | None
    p: float | None
    test: Literal["paired t", "sign flip"] | None


@dataclass(frozen=True)
class Paired(Difference):
    """An arm against the baseline; the difference is arm less baseline, never turned round.

    Attributes:
        metric: ``accuracy`` or ``loss``.
        p_holm: p after Holm over all arms of the comparison; None where p is.
        baseline_mean: of the baseline over the n complete pairs.
        arm_mean: of the arm over them.
        seeds: pairs there should be: n, less what is missing or diverged.
        missing: pairs dropped because a run has no result.
        diverged_baseline: runs of the baseline that diverged; their pairs are dropped.
        diverged_arm: the same of the arm.
        divergence_p: exact McNemar test (binomial on the seeds where just one of the two diverged)
            that one diverges more often; secondary. None where nothing diverged.
        worst_case: the same difference with each diverged run at the worst value of the two arms,
            a check on what dropping those pairs did. None where nothing diverged.
        secondary: other tests of the same differences, not corrected for the number of arms.
    """

    metric: Metric
    p_holm: float | None
    baseline_mean: float | None
    arm_mean: float | None
    seeds: int
    missing: int
    diverged_baseline: int
    diverged_arm: int
    divergence_p: float | None
    worst_case: Difference | None
    secondary: Secondary


def mean_se(values: Sequence[float | None]) -> MeanSE:
    """Mean and standard error of one arm; None, NaN and ±inf are left out."""
    kept = np.array([v for v in values if v is not None and np.isfinite(v)], dtype=np.float64)
    return MeanSE(
        n=len(kept),
        mean=float(kept.mean()) if len(kept) else None,
        se=float(stats.sem(kept)) if len(kept) > 1 else None,
    )


def compare_arms(
    baseline: Mapping[int, float | None],
    arms: Mapping[str, Mapping[int, float | None]],
    *,
    metric: Metric,
    seed: int = 0,
) -> dict[str, Paired]:
    """Every arm against the baseline, corrected by Holm: the whole primary analysis.

    Args:
        baseline: seed -> final value; None is a missing run, NaN or ±inf a diverged one. A model
            with NaN weights still has an accuracy (argmax picks a class): give NaN for it.
        arms: name -> the same of that arm, in the order of the answer. All of them count for Holm,
            those without a result too: their number was fixed in advance.
        metric: ``accuracy`` or ``loss``.
        seed: of whatever the secondary tests draw.

    Raises:
        ConfigError: another metric.
    """
    found = {
        name: compare_arm(*align(baseline, arm), metric=metric, seed=seed)
        for name, arm in arms.items()
    }
    adjusted = holm([paired.p for paired in found.values()])
    return {
        name: replace(paired, p_holm=p)
        for (name, paired), p in zip(found.items(), adjusted, strict=True)
    }


def compare_arm(
    baseline: Sequence[float | None],
    arm: Sequence[float | None],
    *,
    metric: Metric,
    seed: int = 0,
) -> Paired:
    """One arm against the baseline; its ``p_holm`` is that of a comparison with no other arm.

    Args:
        baseline: final values, one a seed; None is a missing run, NaN or ±inf a diverged one.
        arm: those of the arm, in the same order of seeds.
        metric: ``accuracy`` or ``loss``.
        seed: of whatever the secondary tests draw.

    Raises:
        ConfigError: another metric, or the lengths differ.
    """
    direction(metric)
    pairs = Pairs.of(baseline, arm)
    differences = pairs.differences()
    found = paired_t(differences)
    b, a = pairs.complete
    worst = pairs.worst_case(metric)
    return Paired(
        **vars(found),
        metric=metric,
        p_holm=found.p,
        baseline_mean=float(b.mean()) if found.n else None,
        arm_mean=float(a.mean()) if found.n else None,
        seeds=len(baseline),
        missing=pairs.missing,
        diverged_baseline=pairs.diverged_baseline,
        diverged_arm=pairs.diverged_arm,
        divergence_p=_mcnemar(pairs),
        worst_case=None if worst is None else paired_t(worst),
        secondary=secondary(differences, seed=seed),
    )


def paired_t(differences: Floats) -> Difference:
    """Student's paired t: t = mean/(sd/√n) with n-1 degrees of freedom (``ttest_1samp``).

    Args:
        differences: float64 (n,), as :meth:`Pairs.differences` gives them.
    """
    n = len(differences)
    if n < 2:
        mean = float(differences[0]) if n else None
        return Difference(n, mean, sd=None, se=None, ci95=None, p=None, test=None)
    mean = float(differences.mean())
    if not np.ptp(differences):
        flip = sign_flip(differences, seed=0)
        p = None if flip is None else flip.p
        return Difference(n, mean, sd=0.0, se=0.0, ci95=None, p=p, test="sign flip")
    sd = float(differences.std(ddof=1))
    found = stats.ttest_1samp(differences, 0.0)
    low, high = found.confidence_interval(0.95)
    return Difference(
        n,
        mean,
        sd=sd,
        se=sd / math.sqrt(n),
        ci95=(float(low), float(high)),
        p=float(found.pvalue),
        test="paired t",
    )


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p-values corrected by Holm's step-down procedure, in the order given.

    The i-th smallest of k becomes max over j ≤ i of min(1, (k-j+1)·p_j): Holm (1979), Scand. J.
    Statist. 6, 65. An arm without a p counts among the k and keeps none.
    """
    k = len(ps)
    order = sorted(range(k), key=lambda i: 1.0 if (p := ps[i]) is None else p)
    adjusted: list[float | None] = [None] * k
    highest = 0.0
    for rank, i in enumerate(order):
        if (p := ps[i]) is not None:
            highest = max(highest, min(1.0, (k - rank) * p))
            adjusted[i] = highest
    return adjusted


def _mcnemar(pairs: Pairs) -> float | None:
    """Exact McNemar test: Binomial(seeds where one diverged, 1/2), two-sided."""
    if not pairs.diverged_baseline + pairs.diverged_arm:
        return None
    discordant = pairs.only_arm + pairs.only_baseline
    return float(stats.binomtest(pairs.only_arm, discordant).pvalue) if discordant else 1.0
