"""The figures of a run: what it learned, how large its term was, what it paid and got."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from qsgd_core.schedule.record.entries import OutcomeEntry
from qsgd_core.schedule.record.history import Point, Spread
from qsgd_lab.report.document import Figure, Key, Table
from qsgd_lab.report.lines import by_epoch, effect_figure, epochs_axis, line
from qsgd_lab.report.palette import Look, keys

Rows = Sequence[Mapping[str, Any]]
UNITS = {"usd": "US dollars", "qpu_s": "seconds of QPU time", "shots": "shots"}
FOUND, EXPECTED = Look("blue", "solid", "circle"), Look("orange", "dash", "square-open")


def metric(rows: Rows, name: str) -> Figure | None:
    """A metric after each epoch; the loss beside the training loss. None where it is missing."""
    columns = {"training": "train_loss", "evaluation": "loss"} if name == "loss" else {name: name}
    scale = 100.0 if name == "accuracy" else 1.0
    found = {title: _column(rows, column, scale) for title, column in columns.items()}
    values = {title: each for title, each in found.items() if any(v is not None for v in each)}
    if not values:
        return None
    look = {"training": EXPECTED, "evaluation": FOUND, name: FOUND}
    return Figure(
        name=f"metric-{name}",
        title=name.capitalize(),
        caption=f"{name.capitalize()} after each epoch.",
        traces=tuple(line(title, each, look[title]) for title, each in values.items()),
        layout={
            "xaxis": epochs_axis(len(rows)),
            "yaxis": {"title": {"text": "accuracy, %" if name == "accuracy" else name}},
        },
        height_px=300,
        keys=keys(values, look) if len(values) > 1 else (),
        numbers=by_epoch(values, "{:.4g}"),
    )


def effect(rows: Rows) -> Figure | None:
    """The effect size of each epoch; None for a run without a term."""
    values = {"effect size": _column(rows, "effect_size", 1.0)}
    look = {"effect size": Look("purple", "solid", "circle")}
    return effect_figure(values, look, "Mean of each epoch. ")


def burn_down(unit: str, points: Sequence[Point]) -> Figure | None:
    """A budget over the steps; None without a note of it."""
    if not points:
        return None
    steps, cap = [p.step for p in points], points[-1].cap
    spent = [p.spent + p.overrun for p in points]
    held = [p.spent + p.overrun + p.reserved for p in points]
    area = {"fill": "tozeroy", "fillcolor": "shade"}
    traces = [
        _held_until(steps, held, "held", "shade", 0) | area,
        _held_until(steps, spent, "spent", "blue", 2),
    ]
    legend = [
        Key("spent", "blue", group="spent"),
        Key("held for jobs under way", "shade", "band", group="held"),
    ]
    if any(p.planned is not None for p in points):
        plan = _held_until(steps, [p.planned for p in points], "plan", "orange", 2)
        plan["line"] |= {"dash": "dash", "shape": "linear"}
        traces.append(plan)
        legend.append(Key("plan", "orange", "dash", group="plan"))
    legend.append(Key("cap", "ink", "dot"))
    edge = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": cap, "y1": cap}
    return Figure(
        name=f"burn-down-{unit.replace('_', '-')}",
        title="Budget over the steps",
        caption=f"Spent and held of the budget’s {UNITS[unit]}, beside the plan and the cap.",
        traces=tuple(traces),
        layout={
            "xaxis": {"title": {"text": "step"}},
            "yaxis": {"title": {"text": UNITS[unit]}, "range": [0, 1.08 * max(cap, *held)]},
            "shapes": [edge | {"line": {"color": "ink", "width": 1.5, "dash": "dot"}}],
        },
        height_px=300,
        keys=tuple(legend),
        numbers=Table(
            words=(),
            columns=("step", "spent", "held", "plan", "cap"),
            rows=tuple(
                (f"{p.step:,}", *(_shown(v) for v in (s, p.reserved, p.planned, p.cap)))
                for p, s in zip(points, spent, strict=True)
            ),
        ),
    )


def staleness(spread: Spread) -> Figure | None:
    """Steps by how long ago what they used was measured; None where nothing was."""
    if not spread.counts:
        return None
    edges = list(zip(spread.edges, spread.edges[1:], strict=False))
    names = [f"{a:.0f}" if b - a <= 1 else f"{a:.0f} to {b - 1:.0f}" for a, b in edges]
    bars = {
        "type": "bar",
        "name": "steps",
        "x": names,
        "y": list(spread.counts),
        "marker": {"color": "blue"},
        "hovertemplate": "%{y} steps",
    }
    return Figure(
        name="staleness",
        title="How old the measurements were",
        caption="Steps, by how many steps ago what they used had been measured.",
        traces=(bars,),
        layout={
            "xaxis": {"title": {"text": "age, steps"}, "type": "category"},
            "yaxis": {"title": {"text": "steps"}},
        },
        height_px=280,
        numbers=Table(
            words=(),
            columns=("age, steps", "steps"),
            rows=tuple((n, f"{c:,}") for n, c in zip(names, spread.counts, strict=True)),
        ),
    )


def errors(outcomes: Sequence[OutcomeEntry]) -> Figure | None:
    """The noise model's error at each result, expected and found; None where it learned nothing."""
    known = [o for o in outcomes if o.predicted_var is not None and o.innovation_sq is not None]
    if not known:
        return None
    values = {
        "expected": [_root(o.predicted_var) for o in known],
        "found": [_root(o.innovation_sq) for o in known],
    }
    look = {"expected": EXPECTED, "found": FOUND}
    steps = [o.step for o in known]
    return Figure(
        name="errors",
        title="Predicted and realised error",
        caption=(
            "How far off ⟨Z⟩ the noise model expected to be at each result, and how far off it "
            "was: RMS over the observables, shot noise taken off, 0 where that exceeds the error."
        ),
        traces=tuple(line(n, v, look[n]) | {"x": steps} for n, v in values.items()),
        layout={
            "xaxis": {"title": {"text": "step"}},
            "yaxis": {"title": {"text": "RMS error of ⟨Z⟩"}, "rangemode": "tozero"},
        },
        height_px=300,
        keys=keys(values, look),
        numbers=Table(
            words=(),
            columns=("step", *values),
            rows=tuple(
                (f"{step:,}", f"{a:.4f}", f"{b:.4f}")
                for step, a, b in zip(steps, *values.values(), strict=True)
            ),
        ),
    )


def _held_until(
    x: Sequence[int], y: Sequence[float | None], name: str, colour: str, width: int
) -> dict[str, Any]:
    """A line that holds each value until the next one."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "legendgroup": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, "width": width, "shape": "hv"},
    }


def _column(rows: Rows, name: str, scale: float) -> list[float | None]:
    found = [row.get(name) for row in rows]
    return [None if value is None else scale * float(value) for value in found]


def _root(square: float | None) -> float:
    return math.sqrt(max(square or 0.0, 0.0))


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}"
