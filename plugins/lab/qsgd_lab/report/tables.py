"""The tables of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from qsgd_lab.compare import text
from qsgd_lab.compare.table import ArmResult, Comparison
from qsgd_lab.compare.text import NONE, bare_p, between, with_error
from qsgd_lab.report.claims import Beside
from qsgd_lab.report.document import Table
from qsgd_lab.stats.pairs import Metric

EFFECT = (
    "Effect size: RMS of the term over RMS of the base optimizer’s step, on the coordinates that "
    "have the term."
)


def arms(comparison: Comparison) -> Table:
    """Every arm; columns in which no arm has anything are left out."""
    rows = text.rows(comparison)
    kept = [i for i in range(len(text.COLUMNS)) if any(row[i] != NONE for row in rows)]
    unit = "percentage points" if comparison.plan.metric == "accuracy" else "loss"
    return Table(
        columns=tuple(text.COLUMNS[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in rows),
        note=(
            "Mean ± standard error over seeds. Differences are paired by seed, arm less "
            f"{comparison.plan.baseline}, in {unit} (paired t). {EFFECT}"
        ),
    )


def claims(found: Sequence[Beside]) -> Table:
    """What the paper claims beside what was found."""
    return Table(
        columns=("claim", "verdict", "paper", "here", "95 % interval", "arm"),
        rows=tuple(
            (row.claim, _verdict(row), row.paper, row.here, row.interval, row.arm or NONE)
            for row in found
        ),
        words=(0, 1, 5),
        note=(
            "Reproduced: a difference in the claimed direction was found and its interval reaches "
            "the claimed size. Not reproduced: the whole interval falls short of that size. Cannot "
            "tell: the data fit the claim and no effect."
        ),
    )


def _verdict(row: Beside) -> str:
    return row.verdict if row.same_task else f"{row.verdict}, on another task"


def secondary(comparison: Comparison) -> Table:
    """Other tests of the same differences."""
    metric = comparison.plan.metric
    rows = []
    for arm in _compared(comparison):
        paired = arm.paired
        if paired is None:
            continue
        tests, flip, worst = paired.secondary, paired.secondary.sign_flip, paired.worst_case
        kind = "" if flip is None else " (exact)" if flip.exact else " (sampled)"
        diverged = f"{paired.diverged_arm} / {paired.diverged_baseline}"
        rows.append(
            (
                arm.name,
                NONE if flip is None else f"{bare_p(flip.p)}{kind}",
                bare_p(tests.wilcoxon_p),
                between(tests.bca95, metric),
                f"{paired.n} of {paired.seeds}",
                diverged if paired.divergence_p is not None else NONE,
                bare_p(paired.divergence_p),
                NONE if worst is None else with_error(worst.mean, worst.se, metric, signed=True),
            )
        )
    return Table(
        columns=(
            "arm", "sign flip p", "Wilcoxon p", "BCa 95 % interval", "pairs",
            "diverged (arm / baseline)", "McNemar p", "difference, diverged at worst value",
        ),
        rows=tuple(rows),
        note=(
            "None of these decides anything and none is corrected for the number of arms. Wilcoxon "
            "is computed from 6 seeds on, the BCa bootstrap interval from 20."
        ),
    )  # fmt: skip


def arrivals(comparison: Comparison) -> Table:
    """Epochs to the target."""
    rows = []
    for arm in comparison.arms.values():
        if arm.epochs is None:
            continue
        found, curve, tested = arm.epochs_difference, arm.survival, arm.epochs_log_rank
        median = None if curve is None else curve.median
        flip = None if found is None else found.sign_flip
        rows.append(
            (
                arm.name,
                f"{arm.epochs.n_reached} of {arm.epochs.n_runs}",
                NONE if median is None else f"{median:g}",
                NONE if found is None else f"{found.arm_mean:.2f}",
                NONE if found is None else _signed(found.mean, found.se),
                NONE if found is None else _interval(found.ci95),
                NONE if flip is None else bare_p(flip.p),
                NONE if tested is None else bare_p(tested.p),
            )
        )
    return Table(
        columns=(
            "arm", "arrived", "median", "mean, runs that do not arrive at the horizon",
            "difference", "95 % interval", "sign flip p", "log-rank p",
        ),
        rows=tuple(rows),
        note=(
            "In epochs. Differences are of restricted means, paired by seed. The log-rank test "
            "takes arms as independent and only describes. Not corrected for the number of arms."
        ),
    )  # fmt: skip


def finals(comparison: Comparison) -> Table:
    """What each run ended with, seed by seed: the numbers that everything rests on."""
    metric = comparison.plan.metric
    rows = [
        (arm.name, *(_final(arm, seed, metric) for seed in comparison.plan.seeds))
        for arm in comparison.arms.values()
    ]
    unit = "accuracy %" if metric == "accuracy" else "loss"
    columns = (f"{unit} of seed", *(str(seed) for seed in comparison.plan.seeds))
    return Table(columns=columns, rows=tuple(rows))


def _compared(comparison: Comparison) -> Sequence[ArmResult]:
    return [arm for arm in comparison.arms.values() if arm.paired is not None]


def _final(arm: ArmResult, seed: int, metric: Metric) -> str:
    curve = arm.curves.get(seed)
    value = curve[-1] if curve else None
    if value is None:
        return NONE
    return "diverged" if value != value else text.rounded(value, metric)


def _signed(mean: float, se: float | None) -> str:
    return f"{mean:+.2f}" + ("" if se is None else f" ± {se:.2f}")


def _interval(ci95: tuple[float, float] | None) -> str:
    return NONE if ci95 is None else f"{ci95[0]:+.2f} to {ci95[1]:+.2f}"
