"""plot.png: how a run went, on one page. Needs matplotlib; without it there is no plot."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from qsgd_core import files

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qsgd_core.training.folder.summary import Summary

logger = logging.getLogger("qsgd_core")

Rows: TypeAlias = Sequence[dict[str, Any]]

TRAIN, TEST, ACCURACY, EFFECT = "#9a9a9a", "#1f4e9c", "#c4501b", "#5b2a86"


def draw(path: Path, rows: Rows, summary: Summary) -> Path | None:
    """Draw loss, accuracy and effect size over the epochs.

    Args:
        path: the PNG file to write.
        rows: lines of metrics.jsonl.
        summary: for the title.

    Returns:
        ``path``; None when there is nothing to draw or matplotlib is not installed, of which a
        warning tells.
    """
    if not rows:
        return None
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        logger.warning(
            "No plot was drawn, because matplotlib is not installed: pip install 'qsgd-core[demo]'"
        )
        return None
    figure = Figure(figsize=(7.5, 7.5), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    panels = [_draw_accuracy, _draw_loss, _draw_effect]
    if "accuracy" not in rows[0]:
        panels.remove(_draw_accuracy)
    all_axes = figure.subplots(len(panels), 1, sharex=True)
    figure.suptitle(_title(summary), fontsize=11, x=0.02, ha="left")
    epochs = [row["epoch"] for row in rows]
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        panel(axes, epochs, rows)
    all_axes[-1].set_xlabel("epoch")
    all_axes[-1].set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    files.write_atomically(path, lambda file: figure.savefig(file, format="png"))
    return path


def _draw_accuracy(axes: Axes, epochs: list[int], rows: Rows) -> None:
    accuracy = _column(rows, "accuracy")
    percent = [100 * value for value in accuracy]
    axes.set_ylabel("accuracy (%)")
    _line(axes, epochs, percent, ACCURACY, _last(accuracy[-1], "{:.1f} %"))


def _draw_loss(axes: Axes, epochs: list[int], rows: Rows) -> None:
    axes.set_ylabel("loss")
    _line(axes, epochs, _column(rows, "train_loss"), TRAIN, "")
    labels = [("training", TRAIN)]
    if "loss" in rows[0]:
        _line(axes, epochs, _column(rows, "loss"), TEST, "")
        labels.append(("evaluation", TEST))
    axes.set_ylim(bottom=0)
    axes.legend(labels=[name for name, _ in labels], labelcolor="linecolor", frameon=False)


def _draw_effect(axes: Axes, epochs: list[int], rows: Rows) -> None:
    effect = _column(rows, "effect_size")
    positive = [value for value in effect if value > 0]
    axes.set_ylabel("effect size")
    if not positive:
        axes.text(0.5, 0.5, "no quantum term was added", transform=axes.transAxes, ha="center")
        axes.set_yticks([])
        return
    axes.set_yscale("log")
    _line(axes, epochs, effect, EFFECT, _last(effect[-1], "{:.2g} % of the base step"))
    axes.axhline(1.0, color=TRAIN, linewidth=1, linestyle="--")
    axes.set_ylim(min(positive) / 5, max(4.0, 4 * max(positive)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.annotate(
        "as large as the base optimizer's step",
        (1.0, 1.0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        xytext=(-2, 4),
        ha="right",
        fontsize=8,
        color="#707070",
    )


def _line(axes: Axes, epochs: list[int], values: list[float], color: str, last: str) -> None:
    """A line with its last value written below its end."""
    axes.plot(epochs, values, color=color, marker="o", markersize=3.5, linewidth=1.6)
    axes.annotate(
        last,
        (epochs[-1], values[-1]),
        textcoords="offset points",
        xytext=(3, -16),
        ha="right",
        color=color,
    )


def _last(share: float, form: str) -> str:
    return form.format(100 * share) if math.isfinite(share) else ""


def _title(summary: Summary) -> str:
    term = (
        f"{summary.perturbation} on {summary.backend}, λ = {summary.quantum_weight:g}, "
        f"{summary.n_qubits} qubits, depth {summary.depth}"
    )
    return f"{summary.task}, seed {summary.seed}: {term}"


def _column(rows: Rows, name: str) -> list[float]:
    """Values of the epochs; NaN, at which a line breaks off, for what is not finite."""
    found = [math.nan if row.get(name) is None else float(row[name]) for row in rows]
    return [value if math.isfinite(value) else math.nan for value in found]
