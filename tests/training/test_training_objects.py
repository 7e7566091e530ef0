"""A run with objects in place of names: what is recorded, resumed and replayed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from qsgd_core import Built, ClassicalPerturbation, Task, TaskDefaults
from qsgd_core.builtin.simulators import SampledSimulator
from qsgd_core.errors import ConfigError
from qsgd_core.training import TrainConfig, replay, resume, train


class Half(ClassicalPerturbation):
    def modulation(self, theta, grad, *, step, name, seed, reference):  # type: ignore[no-untyped-def]
        return torch.full_like(theta, 0.5)


class Toy(Task):
    name = "toy"
    metrics = ("loss",)
    defaults = TaskDefaults(epochs=2, lr=1e-2)

    def build(self, seed: int) -> Built:
        x = torch.randn(64, 4)
        model, y = nn.Linear(4, 1), x.sum(1, keepdim=True)
        return Built(model, [(x, y)] * 3, lambda m: {"loss": float((m(x) - y).square().mean())})

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return (model(batch[0]) - batch[1]).square().mean()


@pytest.fixture(autouse=True)
def no_plot(monkeypatch):
    monkeypatch.setattr("qsgd_core.training.run.draw", lambda *_: None)


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(perturbation=Half(), backend=SampledSimulator("mine"), **changes)


def test_the_configuration_names_the_classes(tmp_path):
    summary = train(Toy(), config(), run_dir=tmp_path / "run", observers=[])
    said = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert said["perturbation"].endswith("test_training_objects.Half")
    assert said["backend"] == "qsgd_core.builtin.simulators.SampledSimulator"
    assert summary.perturbation == said["perturbation"]


def test_a_run_goes_on_with_the_objects_it_is_given_again(tmp_path):
    straight = train(Toy(), config(epochs=4), run_dir=tmp_path / "straight", observers=[])
    train(Toy(), config(), run_dir=tmp_path / "run", observers=[])
    asked = {"epochs": 4, "perturbation": Half(), "backend": SampledSimulator("mine")}
    resumed = resume(str(tmp_path / "run"), Toy(), asked=asked, observers=[])
    assert resumed.metrics["loss"] == straight.metrics["loss"]
    copy = replay(
        str(tmp_path / "run"),
        Toy(),
        asked={"perturbation": Half(), "backend": SampledSimulator("mine")},
        run_dir=tmp_path / "copy",
        observers=[],
    )
    assert copy.metrics["loss"] == straight.metrics["loss"]


def test_without_them_it_says_what_to_hand_over(tmp_path):
    train(Toy(), config(), run_dir=tmp_path / "run", observers=[])
    with pytest.raises(ConfigError, match=r"an object of class '.*Simulator'.*asked="):
        resume(str(tmp_path / "run"), Toy(), asked={"epochs": 4}, observers=[])


@pytest.mark.parametrize(
    "given, words",
    [
        ({"epoch": 3}, "Did you mean 'epochs'"),
        ({"quantum_wieght": 3}, "Did you mean 'quantum_weight'"),
        ({"policy": "trackd"}, "Did you mean 'tracked'"),
        ({"schedule": {"tile": 2}}, "Did you mean 'tiles'"),
        ({"budget": "$2O"}, "2O"),
        ({"quantum_weight": lambda step: 0.5}, "config.json cannot keep"),
        ({"total_steps": 3}, "no argument 'total_steps'"),
        ({"epochs": 2.0}, "Give epochs=2"),
    ],
)
def test_a_wrong_argument_is_refused_when_it_is_given(given, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**given)


def test_a_configuration_of_before_is_read_and_written_alike():
    before = {
        "optimizer": "adamw", "lr": 0.001, "weight_decay": 0.01, "epochs": 2, "max_steps": None,
        "lr_schedule": "constant", "warmup": 0.0, "lr_steps": None, "clip_norm": 0.0,
        "precision": "float32", "seed": 7, "quantum_weight": 0.5, "n_qubits": 4, "depth": 2,
        "perturbation": "sine", "perturbation_options": None, "backend": "exact",
        "backend_options": None, "shots": None, "scope": "tensor", "inject": "update",
        "normalize": None, "every": None, "policy": "gone", "wait": "first", "budget": "gone-too",
        "run": "a-run", "schedule": None, "replay": None,
    }  # fmt: skip
    assert TrainConfig.from_dict(before).to_dict() == before
