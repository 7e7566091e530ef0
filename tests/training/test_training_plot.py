"""plot.png: drawn without a display or pyplot, and missed by nobody who has no matplotlib."""

from __future__ import annotations

import sys

import pytest

from qsgd_core.training.folder.plot import draw
from qsgd_core.training.folder.summary import Summary

ROW = {"epoch": 1, "step": 5, "train_loss": 0.9, "effect_size": 0.004, "accuracy": 0.5, "loss": 1.0}


@pytest.fixture
def summary():
    return Summary(
        task="t", backend="exact", perturbation="sine", quantum_weight=0.5, n_qubits=4, depth=2,
        scope="tensor", inject="update", seed=0, epochs=2, steps=10, loss=0.1, accuracy=0.9,
        effect_size={"mean": 0.004, "max": 0.01}, sources={"exact": 1.0}, wall_s=1.0, run_dir="r",
    )  # fmt: skip


@pytest.mark.parametrize(
    "rows",
    [
        [ROW],
        [ROW, ROW | {"epoch": 2, "loss": 0.5}],
        [ROW | {"effect_size": 0.0}],
        [{"epoch": 1, "step": 5, "train_loss": 0.9, "effect_size": 0.004}],
        [ROW | {"train_loss": float("nan"), "loss": None}],
        [ROW, ROW | {"effect_size": float("inf"), "accuracy": None, "loss": float("inf")}],
        [dict.fromkeys(ROW) | {"epoch": 1}],
    ],
    ids=["one epoch", "two epochs", "no term", "no metrics", "diverged", "infinite", "nothing"],
)
def test_a_png_is_drawn_for_every_kind_of_run_without_warnings(tmp_path, summary, rows, recwarn):
    others_imported_it = "matplotlib.pyplot" in sys.modules
    path = draw(tmp_path / "plot.png", rows, summary)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000
    assert not recwarn.list
    assert ("matplotlib.pyplot" in sys.modules) == others_imported_it


def test_there_is_no_plot_of_nothing(tmp_path, summary):
    assert draw(tmp_path / "plot.png", [], summary) is None
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_one_line_says_how_to_get_it(tmp_path, summary, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    assert draw(tmp_path / "plot.png", [ROW], summary) is None
    assert "pip install 'qsgd-core[demo]'" in caplog.text
    assert len(caplog.records) == 1
