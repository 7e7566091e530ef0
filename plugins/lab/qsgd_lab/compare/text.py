"""A comparison in words and a table: on the terminal, and as report.md in its folder."""

from __future__ import annotations

from collections.abc import Sequence

from qsgd_lab.compare.table import ArmResult, Comparison, say_target
from qsgd_lab.stats.paired import MeanSE
from qsgd_lab.stats.pairs import Metric
from qsgd_lab.stats.sentences import p_value

COLUMNS = (
    "arm", "runs", "accuracy %", "loss", "difference", "95 % interval", "p (Holm)",
    "effect size", "s per run",
)  # fmt: skip


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """One row an arm, in the order of :data:`COLUMNS`."""
    return [_row(arm, comparison) for arm in comparison.arms.values()]


def short(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for a terminal: what the arms are compared by, without the rest."""
    other = "loss" if comparison.plan.metric == "accuracy" else "accuracy %"
    kept = [i for i, name in enumerate(COLUMNS) if name not in ("runs", other, "s per run")]
    return [COLUMNS[i] for i in kept], [[row[i] for i in kept] for row in rows(comparison)]


def sentences(comparison: Comparison) -> list[str]:
    """What can and cannot be concluded, failures and notes first."""
    arms = comparison.arms.values()
    said = list(comparison.notes)
    said += [f"{f.arm} seed {f.seed} failed: {f.error}" for f in comparison.failures]
    said += [arm.conclusion.sentence for arm in arms if arm.conclusion is not None]
    if any(arm.epochs is not None and arm.epochs.n_reached for arm in arms):
        said += [arm.epochs_sentence for arm in arms if arm.epochs_sentence is not None]
    elif comparison.plan.target is not None:
        said.append(f"No run reached {say_target(comparison.plan)}.")
    return said


def markdown(comparison: Comparison) -> str:
    """The same as a Markdown page."""
    plan = comparison.plan
    lines = [
        f"# {plan.task}: {len(comparison.arms)} arms, {len(plan.seeds)} seeds",
        "",
        f"Baseline {plan.baseline}; paired differences in {plan.metric}.",
        "",
        _line(COLUMNS),
        _line(["---"] * len(COLUMNS)),
        *(_line(row) for row in rows(comparison)),
        "",
        *(f"* {sentence}" for sentence in sentences(comparison)),
        "",
    ]
    return "\n".join(lines)


def _row(arm: ArmResult, comparison: Comparison) -> tuple[str, ...]:
    metric, paired = comparison.plan.metric, arm.paired
    difference = interval = p = "–"
    if paired is not None:
        difference = _with_error(paired.mean, paired.se, metric, signed=True)
        p = p_value(paired.p_holm).removeprefix("p = ").removeprefix("p ")
        if paired.ci95 is not None:
            interval = " to ".join(_number(end, metric, signed=True) for end in paired.ci95)
    return (
        arm.name,
        f"{max(arm.accuracy.n, arm.loss.n)}/{len(comparison.plan.seeds)}",
        _of(arm.accuracy, "accuracy"),
        _of(arm.loss, "loss"),
        difference,
        interval,
        p,
        "–" if arm.effect_size is None else f"{arm.effect_size:.2g}",
        "–" if arm.wall_s is None else f"{arm.wall_s:.1f}",
    )


def _of(value: MeanSE, metric: Metric) -> str:
    return _with_error(value.mean, value.se, metric)


def _with_error(
    mean: float | None, se: float | None, metric: Metric, *, signed: bool = False
) -> str:
    if mean is None:
        return "–"
    error = "" if se is None else f" ± {_number(se, metric)}"
    return _number(mean, metric, signed=signed) + error


def _number(value: float, metric: Metric, *, signed: bool = False) -> str:
    """Accuracies in percent with two decimals, losses with four."""
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.2f}" if metric == "accuracy" else f"{value:{sign}.4f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
