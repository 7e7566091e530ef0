"""A comparison in words and a table, as on the terminal; as a page, :mod:`qsgd_lab.report`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from qsgd_core.cli.show.words import number
from qsgd_lab.compare.table import ArmResult, Comparison, say_target
from qsgd_lab.stats.paired import MeanSE
from qsgd_lab.stats.pairs import Metric
from qsgd_lab.stats.sentences import p_value

COLUMNS = (
    "arm", "runs", "accuracy %", "loss", "difference", "95 % interval", "p", "p (Holm)",
    "effect size", "s per run",
)  # fmt: skip
SMALL = 5e-4
"""Of a loss, what four decimals would show with one digit or none."""
NONE = "–"
"""Stands where there is nothing to say."""


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """One row an arm, in the order of :data:`COLUMNS`."""
    return [_row(arm, comparison) for arm in comparison.arms.values()]


def short(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for a terminal: what the arms are compared by, without the rest."""
    other = "loss" if comparison.plan.metric == "accuracy" else "accuracy %"
    kept = [i for i, name in enumerate(COLUMNS) if name not in ("runs", other, "p", "s per run")]
    return [COLUMNS[i] for i in kept], [[row[i] for i in kept] for row in rows(comparison)]


def sentences(comparison: Comparison) -> list[str]:
    """What can and cannot be concluded; first of what, notes and failures."""
    arms = comparison.arms.values()
    said = [*comparison.setting, *comparison.notes]
    said += [f"{f.arm} seed {f.seed} failed: {f.error}" for f in comparison.failures]
    said += [arm.conclusion.sentence for arm in arms if arm.conclusion is not None]
    if any(arm.epochs is not None and arm.epochs.n_reached for arm in arms):
        said += [arm.epochs_sentence for arm in arms if arm.epochs_sentence is not None]
    elif comparison.plan.target is not None:
        said.append(f"No run reached {say_target(comparison.plan)}.")
    return said


def _row(arm: ArmResult, comparison: Comparison) -> tuple[str, ...]:
    metric, paired = comparison.plan.metric, arm.paired
    difference = interval = p = p_holm = NONE
    if paired is not None:
        difference = with_error(paired.mean, paired.se, metric, signed=True)
        p, p_holm = bare_p(paired.p), bare_p(paired.p_holm)
        interval = between(paired.ci95, metric)
    return (
        arm.name,
        f"{max(arm.accuracy.n, arm.loss.n)}/{len(comparison.plan.seeds)}",
        _of(arm.accuracy, "accuracy"),
        _of(arm.loss, "loss"),
        difference,
        interval,
        p,
        p_holm,
        _effect(arm),
        NONE if arm.wall_s is None else f"{arm.wall_s:.1f}",
    )


def _effect(arm: ArmResult) -> str:
    """The effect size; nothing without a run that has ended."""
    if arm.wall_s is None:
        return NONE
    return "unknown" if arm.effect_size is None else number(arm.effect_size, ".2g")


def _of(value: MeanSE, metric: Metric) -> str:
    return with_error(value.mean, value.se, metric)


def with_error(
    mean: float | None, se: float | None, metric: Metric, *, signed: bool = False
) -> str:
    """``91.31 ± 0.27``: mean and standard error."""
    if mean is None:
        return NONE
    error = "" if se is None else f" ± {rounded(se, metric)}"
    return rounded(mean, metric, signed=signed) + error


def between(ci95: tuple[float, float] | None, metric: Metric) -> str:
    """``-0.60 to +0.61``: an interval of differences."""
    return NONE if ci95 is None else " to ".join(rounded(end, metric, signed=True) for end in ci95)


def bare_p(p: float | None) -> str:
    """``0.023`` or ``< 0.0001``."""
    return NONE if p is None else p_value(p).removeprefix("p = ").removeprefix("p ")


def rounded(value: float, metric: Metric, *, signed: bool = False) -> str:
    """Accuracies in percent with two decimals, losses with four; smaller ones with two digits."""
    sign = "+" if signed else ""
    if metric == "accuracy":
        return f"{100 * value:{sign}.2f}"
    return f"{value:{sign}.2g}" if 0 < abs(value) < SMALL else f"{value:{sign}.4f}"


def between_times(times: Iterable[float]) -> str | None:
    """The first and the last, as ``2026-11-21 20:55 to 2026-11-22 01:10 UTC``; None of none.

    Args:
        times: seconds since the epoch, UTC.
    """
    found = list(times)
    if not found:
        return None
    first, last = (
        f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M}" for t in (min(found), max(found))
    )
    return f"{first} UTC" if first == last else f"{first} to {last} UTC"
