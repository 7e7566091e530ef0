"""The forest plot: every arm's difference, what could have been found, and the paper's claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qsgd_lab.compare.table import ArmResult, Comparison
from qsgd_lab.compare.text import rounded
from qsgd_lab.report.document import Figure, Key
from qsgd_lab.report.palette import Look, label, looks, scaled
from qsgd_lab.stats.claims import claimed_difference
from qsgd_lab.stats.pairs import Metric, direction

ROW_PX = 54
"""Height of an arm: its name, and below it its interval."""
DETECTABLE = "a true difference past its end would be found in 80 % of such comparisons"


def forest(comparison: Comparison) -> Figure | None:
    """Paired differences with their intervals; None where no arm has one."""
    metric = comparison.plan.metric
    arms = [arm for arm in comparison.arms.values() if arm.paired is not None]
    if not any(_mean(arm) is not None for arm in arms):
        return None
    baseline, look = comparison.plan.baseline, looks(comparison)
    rows = list(zip(range(len(arms) - 1, -1, -1), arms, strict=True))
    behind = [trace for row, arm in rows for trace in _detectable(arm, row, metric)]
    front = [t for row, arm in rows for t in _difference(arm, row, metric, look[arm.name])]
    claim = _claim(arms, metric)
    shapes, legend = [_upright(0.0, "ink", "solid")], [INTERVAL]
    if behind:
        legend.append(Key(DETECTABLE, "shade", "band"))
    if claim is not None:
        shapes.append(_upright(scaled(claim, metric), "claim", "longdashdot"))
        size = rounded(claim, metric, signed=True)
        legend.append(Key(f"the paper’s claim for λ = 0.5, {size}", "claim", "longdashdot"))
    better = "right" if direction(metric) == 1 else "left"
    unit = "accuracy, percentage points" if metric == "accuracy" else "loss"
    return Figure(
        name="forest",
        title=f"Difference to {baseline}",
        caption=(
            f"Mean paired difference in {unit}, with its 95 % interval; better is to the {better}. "
            "Arms with a quantum term have filled marks and whole lines, controls open marks and "
            "broken lines. An interval that holds 0 shows no difference. Intervals are not "
            "corrected for the number of arms; the conclusions are (Holm), and so is the bar."
        ),
        traces=(*behind, *front),
        layout={
            "annotations": [_name(arm.name, row) for row, arm in rows],
            "shapes": shapes,
            "xaxis": {
                "title": {"text": f"arm less {label(baseline)}, {unit}"},
                "range": _range([*behind, *front], 0.0 if claim is None else scaled(claim, metric)),
            },
            "yaxis": {
                "range": [-0.6, len(arms) - 0.3],
                "showticklabels": False,
                "showgrid": False,
            },
            "margin": {"l": 12, "t": 8},
        },
        height_px=80 + ROW_PX * len(arms),
        keys=tuple(legend),
    )


INTERVAL = Key("difference and its 95 % interval", "ink", "solid", "circle")


def _difference(arm: ArmResult, row: int, metric: Metric, look: Look) -> list[dict[str, Any]]:
    """Its mean, and its interval where it has one."""
    paired = arm.paired
    if paired is None or paired.mean is None:
        return []
    mark = {"color": look.colour, "symbol": look.symbol, "size": 11}
    mean = {
        "type": "scatter",
        "mode": "markers",
        "name": label(arm.name),
        "x": [scaled(paired.mean, metric)],
        "y": [row],
        "marker": mark | {"line": {"width": 2, "color": look.colour}},
        "hovertemplate": "%{x:+.4g}",
    }
    if paired.ci95 is None:
        return [mean]
    interval = {
        "type": "scatter",
        "mode": "lines",
        "name": f"{label(arm.name)}, 95 % interval",
        "x": [scaled(end, metric) for end in paired.ci95],
        "y": [row, row],
        "line": {"color": look.colour, "dash": look.dash, "width": 2.5},
        "hovertemplate": "%{x:+.4g}",
    }
    return [interval, mean]


def _detectable(arm: ArmResult, row: int, metric: Metric) -> list[dict[str, Any]]:
    """A grey bar between the differences of either sign that would just have been found."""
    size = None if arm.conclusion is None else arm.conclusion.minimum_detectable_effect
    if size is None:
        return []
    bar = {
        "type": "scatter",
        "mode": "lines",
        "name": f"{label(arm.name)}, minimum detectable effect",
        "x": [scaled(-size, metric), scaled(size, metric)],
        "y": [row, row],
        "line": {"color": "shade", "width": 16},
        "hoverinfo": "skip",
    }
    return [bar]


def _claim(arms: Sequence[ArmResult], metric: Metric) -> float | None:
    """What the paper claims at λ = 0.5, in the metric's unit."""
    bases = [arm.paired.baseline_mean for arm in arms if arm.paired is not None]
    known = [base for base in bases if base is not None]
    return claimed_difference(metric, known[0]) if known else None


def _mean(arm: ArmResult) -> float | None:
    return None if arm.paired is None else arm.paired.mean


def _range(traces: Sequence[dict[str, Any]], claim: float) -> list[float]:
    """Room for everything, 0 and the claim."""
    ends = [0.0, claim, *(x for trace in traces for x in trace["x"])]
    room = 0.06 * (max(ends) - min(ends)) or 1.0
    return [min(ends) - room, max(ends) + room]


def _name(name: str, row: int) -> dict[str, Any]:
    """The arm's name above its row: beside it, it would take half of a phone's width."""
    return {
        "xref": "paper",
        "x": 0,
        "xanchor": "left",
        "yref": "y",
        "y": row,
        "yshift": 19,
        "text": label(name),
        "showarrow": False,
        "font": {"size": 13},
    }


def _upright(x: float, colour: str, dash: str) -> dict[str, Any]:
    line = {"color": colour, "width": 1.5, "dash": dash}
    ends = {"x0": x, "x1": x, "y0": 0, "y1": 1}
    return {"type": "line", "yref": "paper", **ends, "line": line, "layer": "below"}
