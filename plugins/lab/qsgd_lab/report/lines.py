"""Figures over the epochs: learning curves with bands, arrivals at the target, effect sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeAlias

from scipy import stats

from qsgd_lab.compare.table import Comparison, say_target
from qsgd_lab.compare.text import NONE
from qsgd_lab.report.document import Figure, Table
from qsgd_lab.report.palette import Look, keys, label, looks, scaled
from qsgd_lab.stats.paired import mean_se
from qsgd_lab.stats.pairs import Metric
from qsgd_lab.stats.power import ALPHA

Values: TypeAlias = Sequence[float | None]
MARKED = 30
"""Up to so many epochs have a mark each."""


def curves(comparison: Comparison) -> Figure | None:
    """The metric after each epoch: mean over seeds, with the 95 % interval of the mean."""
    metric = comparison.plan.metric
    by_arm = {
        arm.name: [[None if v is None else scaled(v, metric) for v in c] for c in columns]
        for arm in comparison.arms.values()
        if (columns := _columns(arm.curves))
    }
    if not by_arm:
        return None
    look = looks(comparison)
    means = {name: _means(columns) for name, columns in by_arm.items()}
    bands = [_band(name, columns, look[name]) for name, columns in by_arm.items()]
    percent = metric == "accuracy"
    return Figure(
        name="curves",
        title=f"{metric.capitalize()} while training",
        caption=(
            "Mean over seeds after each epoch. The band is the 95 % interval of that mean, arm by "
            "arm; as arms share their seeds, their differences are known far more finely, above. "
            "Runs that diverged are left out from there on."
        ),
        traces=(
            *(band for band in bands if band is not None),
            *(line(name, values, look[name]) for name, values in means.items()),
        ),
        layout={
            "xaxis": epochs_axis(max(map(len, means.values()))),
            "yaxis": {"title": {"text": "accuracy, %" if percent else "loss"}},
        },
        height_px=400,
        keys=keys(means, look),
        numbers=by_epoch(means, "{:.2f}" if percent else "{:.4f}"),
    )


def differences(comparison: Comparison) -> Figure | None:
    """Mean paired difference to the baseline after each epoch; None where there is no pair."""
    metric, baseline = comparison.plan.metric, comparison.plan.baseline
    base = comparison.arms[baseline].curves
    by_arm = {
        arm.name: _columns({seed: _less(c, base[seed], metric) for seed, c in pairs.items()})
        for arm in comparison.arms.values()
        if arm.name != baseline
        and (pairs := {seed: c for seed, c in arm.curves.items() if seed in base})
    }
    if not by_arm:
        return None
    look = looks(comparison)
    means = {name: _means(columns) for name, columns in by_arm.items()}
    widest = _widest(list(by_arm.values()))
    percent = metric == "accuracy"
    zero = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0}
    unit = "accuracy, points" if percent else "loss"
    said = "Mean over seeds of the paired difference after each epoch. "
    if widest:
        said += (
            "The grey band is the widest of the arms’ 95 % intervals, laid around 0: what is "
            "inside may be chance. "
        )
    return Figure(
        name="differences",
        title=f"Difference to {baseline} while training",
        caption=(
            f"{said}Only the last epoch was fixed in advance as the one that counts; of many arms "
            "and epochs, some show a difference by chance."
        ),
        traces=(*widest, *(line(name, values, look[name]) for name, values in means.items())),
        layout={
            "xaxis": epochs_axis(max(map(len, means.values()))),
            "yaxis": {"title": {"text": f"arm less {label(baseline)}, {unit}"}},
            "shapes": [zero | {"line": {"color": "muted", "width": 1}}],
        },
        height_px=360,
        keys=keys(means, look),
        numbers=by_epoch(means, "{:+.2f}" if percent else "{:+.4f}"),
    )


def arriving(comparison: Comparison) -> Figure | None:
    """Kaplan-Meier curves of the epochs to the target; None where no run arrives."""
    look = looks(comparison)
    traces, shown, horizon = [], [], 0.0
    for arm in comparison.arms.values():
        curve, epochs = arm.survival, arm.epochs
        if curve is None or epochs is None:
            continue
        shares = [1.0, *curve.share, curve.share[-1]]
        times = [0.0, *curve.times, epochs.horizon]
        drawn = line(arm.name, [100 * share for share in shares], look[arm.name])
        drawn["line"]["shape"] = "hv"
        traces.append(drawn | {"x": times, "mode": "lines"})
        shown.append(arm.name)
        horizon = epochs.horizon
    if not any(arm.survival and arm.survival.reached for arm in comparison.arms.values()):
        return None
    return Figure(
        name="arriving",
        title=f"Runs that have not reached {say_target(comparison.plan)}",
        caption=(
            "Share of the runs still short of the target after each epoch (Kaplan–Meier). A curve "
            "that does not come down to 0 has runs that never arrived; they are counted, not left "
            "out."
        ),
        traces=tuple(traces),
        layout={
            "xaxis": epochs_axis(int(horizon)) | {"range": [0, 1.02 * horizon]},
            "yaxis": {"title": {"text": "runs not there yet, %"}, "range": [0, 104]},
        },
        height_px=320,
        keys=keys(shown, look),
    )


def effects(comparison: Comparison) -> Figure | None:
    """The effect size of each epoch, mean over seeds; None where no arm had a term."""
    means = {arm.name: _means(_columns(arm.effect_curves)) for arm in comparison.arms.values()}
    return effect_figure(means, looks(comparison), "Mean over seeds. ")


def effect_figure(
    values: Mapping[str, Values], look: Mapping[str, Look], caption: str
) -> Figure | None:
    """Effect sizes over the epochs, beside a term as large as the step; 0 cannot be drawn."""
    values = {name: [v or None for v in each] for name, each in values.items() if any(each)}
    if not values:
        return None
    edge = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1.0, "y1": 1.0}
    return Figure(
        name="effect",
        title="How large the term was",
        caption=(
            f"{caption}Effect size: RMS of the term over RMS of the base optimizer’s step, on the "
            "coordinates that have the term. At 1 the term would be as large as the step; far "
            "below it, little can come of it either way."
        ),
        traces=tuple(line(name, each, look[name]) for name, each in values.items()),
        layout={
            "xaxis": epochs_axis(max(map(len, values.values()))),
            "yaxis": {
                "type": "log",
                "title": {"text": "term ÷ base step"},
                "dtick": 1,
                "tickformat": "~g",
            },
            "shapes": [edge | {"line": {"color": "muted", "width": 1, "dash": "dot"}}],
            # An annotation's place on a logarithmic axis is the logarithm.
            "annotations": [_note("as large as the step", 0.0)],
        },
        height_px=320,
        keys=keys(values, look) if len(values) > 1 else (),
        numbers=by_epoch(values, "{:.3g}"),
    )


def line(name: str, values: Values, look: Look) -> dict[str, Any]:
    """Values of the epochs 1, 2, … as a line."""
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(values) <= MARKED else "lines",
        "name": label(name),
        "legendgroup": name,
        "x": list(range(1, len(values) + 1)),
        "y": list(values),
        "line": {"color": look.colour, "dash": look.dash, "width": 2},
        "marker": {"symbol": look.symbol, "size": 7},
        "hovertemplate": "%{y:.4g}",
    }


def epochs_axis(n: int) -> dict[str, Any]:
    """An axis of whole epochs, from 1."""
    axis: dict[str, Any] = {"title": {"text": "epoch"}, "range": [0.8, max(n, 2) + 0.2]}
    return axis | ({"dtick": 1} if n <= 12 else {"nticks": 8})


def by_epoch(values: Mapping[str, Values], form: str) -> Table:
    """The same numbers, an epoch a line."""
    epochs = zip_longest(*values.values())
    rows = tuple(
        (str(i), *(_shown(value, form) for value in row)) for i, row in enumerate(epochs, start=1)
    )
    return Table(columns=("epoch", *values), rows=rows, words=())


def _band(name: str, columns: Sequence[Values], look: Look) -> dict[str, Any] | None:
    """The 95 % t interval of each epoch's mean; None where no epoch has two values."""
    means, halves = _means(columns), _half_widths(columns)
    ends = [
        (epoch, mean - half, mean + half)
        for epoch, (mean, half) in enumerate(zip(means, halves, strict=True), start=1)
        if mean is not None and half is not None
    ]
    return area(label(name), ends, look.band) | {"legendgroup": name} if ends else None


def _widest(by_arm: Sequence[Sequence[Values]]) -> list[dict[str, Any]]:
    """The widest of some arms' intervals at each epoch, around 0; none without two values."""
    halves = zip_longest(*(_half_widths(columns) for columns in by_arm))
    known = [(i, [h for h in each if h is not None]) for i, each in enumerate(halves, start=1)]
    ends = [(i, -max(some), max(some)) for i, some in known if some]
    return [area("widest", ends, "shade")] if ends else []


def area(name: str, ends: Sequence[tuple[float, float, float]], colour: str) -> dict[str, Any]:
    """What lies between (x, low, high)."""
    there, back = ends, ends[::-1]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{name}, 95 % interval",
        "x": [x for x, _, _ in there] + [x for x, _, _ in back],
        "y": [high for _, _, high in there] + [low for _, low, _ in back],
        "fill": "toself",
        "fillcolor": colour,
        "line": {"width": 0},
        "hoverinfo": "skip",
    }


def _half_widths(columns: Sequence[Values]) -> list[float | None]:
    """Half the 95 % t interval of each epoch's mean; None from fewer than two values."""
    found = [mean_se(column) for column in columns]
    return [None if m.se is None else float(stats.t.isf(ALPHA / 2, m.n - 1)) * m.se for m in found]


def _columns(by_seed: Mapping[int, Values]) -> list[list[float | None]]:
    """Values of each epoch, from curves by seed, of which some may be shorter."""
    longest = max(map(len, by_seed.values()), default=0)
    return [[c[i] for c in by_seed.values() if i < len(c)] for i in range(longest)]


def _less(curve: Values, base: Values, metric: Metric) -> list[float | None]:
    """Differences, epoch by epoch; None where either has no value, or no finite one."""
    return [
        None if a is None or b is None or not math.isfinite(a - b) else scaled(a - b, metric)
        for a, b in zip(curve, base, strict=False)
    ]


def _means(columns: Sequence[Values]) -> list[float | None]:
    return [mean_se(column).mean for column in columns]


def _note(text: str, y: float) -> dict[str, Any]:
    return {
        "xref": "paper",
        "x": 1,
        "xanchor": "right",
        "y": y,
        "yanchor": "bottom",
        "text": text,
        "showarrow": False,
        "font": {"color": "muted", "size": 12},
    }


def _shown(value: float | None, form: str) -> str:
    return NONE if value is None else form.format(value)
