"""Observer mlflow: what it logs is read back with MLflow's own client."""

from __future__ import annotations

import gc
import re
import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow.entities import Run, ViewType

from qsgd_core import QSGD, Built, Task, TaskDefaults
from qsgd_core.errors import ConfigError
from qsgd_core.events import RunEnded
from qsgd_core.plugins.registry import default_registry
from qsgd_core.scalars import EVERY
from qsgd_core.training import TrainConfig, resume, train
from qsgd_lab.mlflow import RUN_ID, MLflowObserver


class Xor(Task):
    """Four steps an epoch; raises at step ``breaks_at``."""

    name = "xor"
    metrics = ("accuracy",)
    defaults = TaskDefaults(epochs=5, lr=1e-2)

    def __init__(self, breaks_at: int | None = None) -> None:
        self.breaks_at = breaks_at
        self.calls = 0

    def build(self, seed: int) -> Built:
        x = torch.randn(32, 4)
        y = (x[:, 0] * x[:, 1] > 0).long()
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        data = torch.utils.data.TensorDataset(x, y)

        def evaluate(model: torch.nn.Module) -> dict[str, float]:
            return {"accuracy": float((model(x).argmax(1) == y).double().mean())}

        return Built(model, torch.utils.data.DataLoader(data, batch_size=8), evaluate)

    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.breaks_at:
            raise RuntimeError("no further")
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mlflow.MlflowClient:
    """MLflow's file store, the one that mlflow-skinny has without a server."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "qsgd")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    yield mlflow.MlflowClient()
    mlflow.end_run()
    mlflow.set_tracking_uri(before)


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qsgd_core.training.run.draw", lambda path, rows, summary: None)


def runs(store: mlflow.MlflowClient) -> list[Run]:
    everywhere = [e.experiment_id for e in store.search_experiments(view_type=ViewType.ALL)]
    return store.search_runs(everywhere)


def steps(store: mlflow.MlflowClient, run: Run, name: str) -> list[tuple[int, float]]:
    found = [(m.step, m.value) for m in store.get_metric_history(run.info.run_id, name)]
    return sorted(found)


def test_a_run_logs_settings_loss_accuracy_and_effect_size(store, tmp_path):
    config = TrainConfig(perturbation="circuit", quantum_weight=0.25)
    summary = train(Xor(), config, run_dir=tmp_path / "mine", observers=["mlflow"])
    (run,) = runs(store)
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    assert store.get_experiment(run.info.experiment_id).name == "qsgd"
    params = run.data.params
    assert (params["quantum_weight"], params["perturbation"]) == ("0.25", "circuit")
    assert params["backend"] == "exact"
    assert steps(store, run, "epoch/accuracy")[-1] == (20, summary.accuracy)
    assert [step for step, _ in steps(store, run, "epoch/accuracy")] == [4, 8, 12, 16, 20]
    for name in ("step/training loss", "step/effect size"):
        assert [step for step, _ in steps(store, run, name)] == [EVERY, 2 * EVERY]
    assert run.data.metrics["epoch/effect size"] > 0
    assert '"exact": 1.0' in run.data.tags["qsgd.sources"]
    assert mlflow.active_run() is None


def test_a_resumed_run_goes_on_in_the_same_run_of_mlflow(store, tmp_path):
    train(Xor(), TrainConfig(epochs=2), run_dir=tmp_path / "mine", observers=["mlflow"])
    resume(str(tmp_path / "mine"), Xor(), asked={"epochs": 3}, observers=["mlflow"])
    (run,) = runs(store)
    assert run.info.status == "FINISHED"
    assert [step for step, _ in steps(store, run, "epoch/accuracy")] == [4, 8, 12]
    assert run.data.params["epochs"] == "2"  # as it was begun: MLflow cannot change a parameter


def test_a_run_resumed_where_mlflow_has_another_store_starts_a_new_one(store, tmp_path):
    train(Xor(), TrainConfig(epochs=1), run_dir=tmp_path / "mine", observers=["mlflow"])
    mlflow.set_tracking_uri((tmp_path / "elsewhere").as_uri())
    resume(str(tmp_path / "mine"), Xor(), asked={"epochs": 2}, observers=["mlflow"])
    (run,) = runs(mlflow.MlflowClient())
    assert run.info.run_id == (tmp_path / "mine" / RUN_ID).read_text()
    assert [step for step, _ in steps(mlflow.MlflowClient(), run, "epoch/accuracy")] == [8]


def test_a_run_that_fails_is_failed_in_mlflow(store, tmp_path):
    with pytest.raises(RuntimeError, match="no further"):
        train(Xor(breaks_at=6), run_dir=tmp_path / "mine", observers=["mlflow"])
    (run,) = runs(store)
    assert run.info.status == "FAILED"
    assert [step for step, _ in steps(store, run, "epoch/accuracy")] == [4]


def test_an_active_run_is_joined_and_left_open(store, tmp_path):
    with mlflow.start_run(run_name="yours") as active:
        mlflow.log_param("seed", "my own")
        train(Xor(), TrainConfig(epochs=1), run_dir=tmp_path / "mine", observers=["mlflow"])
        assert mlflow.active_run().info.run_id == active.info.run_id
    (run,) = runs(store)
    assert (run.info.run_name, run.info.status) == ("yours", "FINISHED")
    assert (run.data.params["seed"], run.data.params["epochs"]) == ("my own", "1")
    assert "epoch/accuracy" in run.data.metrics


def test_a_library_user_gets_the_effect_size_in_the_active_run(store):
    model = torch.nn.Linear(4, 2)
    with mlflow.start_run():
        observer = default_registry().make_observer("mlflow", None)
        optimizer = QSGD(model.parameters(), observers=[observer])
        for _ in range(EVERY):
            optimizer.zero_grad()
            model(torch.ones(3, 4)).square().sum().backward()
            optimizer.step()
        observer(RunEnded(EVERY))
    (run,) = runs(store)
    expected = optimizer.qsgd_stats().effect_size
    assert steps(store, run, "step/effect size") == [(EVERY, pytest.approx(expected))]


def test_the_example_has_the_term_in_tensorboard_and_in_mlflow(
    store, tmp_path, monkeypatch, capsys
):
    """With a compiler of graphs that needs no C++."""
    example = Path(__file__).parents[3] / "examples" / "tracking.py"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    names = runpy.run_path(str(example))
    assert re.search(
        r"loss 0\.\d+; the term was \d\.\d\d% of the AdamW step", capsys.readouterr().out
    )
    assert list((tmp_path / "runs").glob("*/events*"))
    del names  # what is left is sent when the optimizer goes
    gc.collect()
    (run,) = runs(store)
    assert (run.info.run_name, run.info.status) == ("xor", "FINISHED")
    found = steps(store, run, "step/effect size")
    assert [step for step, _ in found] == list(range(EVERY, 101, EVERY))


def test_without_mlflow_the_message_has_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"pip install 'qsgd-lab\[mlflow\]'"):
        MLflowObserver(None)


def test_a_store_that_cannot_be_used_is_refused_before_training(tmp_path, monkeypatch):
    """mlflow-skinny alone has no SQL; the file store must be allowed."""
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    mlflow.set_tracking_uri((tmp_path / "another").as_uri())
    with pytest.raises(ConfigError, match=r"Set MLFLOW_TRACKING_URI=http://.* or install all"):
        train(Xor(), run_dir=tmp_path / "mine", observers=["mlflow"])
    assert not (tmp_path / "mine").exists()
