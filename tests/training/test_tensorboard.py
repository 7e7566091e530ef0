"""Observer tensorboard: its files are read back with TensorBoard's own reader."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from qsgd_core import QSGD
from qsgd_core.builtin.tensorboard import TensorBoardObserver
from qsgd_core.errors import ConfigError
from qsgd_core.events import EpochEnded, RunEnded, RunStarted
from qsgd_core.plugins.registry import default_registry
from qsgd_core.scalars import EVERY
from qsgd_core.settings import load_settings
from qsgd_core.training import TrainConfig, load_task, train

SCRIPT = Path(__file__).parents[1] / "scripts" / "noisy_task.py"

pytest.importorskip("tensorboard")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {
        tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]
    }


def test_a_run_writes_loss_accuracy_and_effect_size(tmp_path):
    task, _ = load_task(f"{SCRIPT}:make_task", load_settings())
    config = TrainConfig(perturbation="circuit", epochs=4)
    summary = train(task, config, run_dir=tmp_path / "run", observers=["tensorboard"])
    found = scalars(tmp_path / "run" / "tensorboard")
    assert [step for step, _ in found["epoch/accuracy"]] == [5, 10, 15, 20]
    assert found["epoch/accuracy"][-1][1] == pytest.approx(summary.accuracy, abs=1e-6)
    assert found["epoch/effect size"][-1][1] > 0
    assert [step for step, _ in found["step/training loss"]] == [EVERY, 2 * EVERY]
    assert [step for step, _ in found["step/effect size"]] == [EVERY, 2 * EVERY]


def test_a_resumed_run_writes_over_what_came_after_its_checkpoint(tmp_path):
    for start, values in ((0, [0.1, 0.2, 0.3]), (2, [0.7])):
        observer = TensorBoardObserver(tmp_path)
        observer(RunStarted(start))
        for k, value in enumerate(values):
            observer(EpochEnded(start + k + 1, epoch=k, metrics={"accuracy": value}))
        observer(RunEnded(start + len(values)))
    found = scalars(tmp_path / "tensorboard")["epoch/accuracy"]
    assert [(step, round(value, 6)) for step, value in found] == [(1, 0.1), (2, 0.2), (3, 0.7)]


def test_a_library_user_without_a_run_gets_the_effect_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(4, 2)
    observer = default_registry().make_observer("tensorboard", None)
    optimizer = QSGD(model.parameters(), quantum_weight=0.5, observers=[observer])
    for _ in range(EVERY):
        optimizer.zero_grad()
        model(torch.ones(3, 4)).square().sum().backward()
        optimizer.step()
    observer(RunEnded(EVERY))
    (folder,) = (tmp_path / "runs").iterdir()  # TensorBoard's own default
    assert scalars(folder)["step/effect size"][0][0] == EVERY


def test_without_tensorboard_the_message_has_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'qsgd-core\[tensorboard\]'"):
        TensorBoardObserver(None)
