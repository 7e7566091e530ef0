"""Configuration: defaults filled in from the task and the environment, mistakes named."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from qsgd_core.errors import ConfigError
from qsgd_core.settings import load_settings
from qsgd_core.task import TaskDefaults
from qsgd_core.training.config import TrainConfig, check_same_run, resolve
from qsgd_core.training.optimizer import make_optimizer

DEFAULTS = TaskDefaults(epochs=7, lr=0.3, weight_decay=0.02, betas=(0.8, 0.9))


def full(**changes):
    return resolve(TrainConfig(**changes), DEFAULTS, load_settings())


def test_what_is_not_asked_for_comes_from_the_task_and_the_environment(monkeypatch):
    monkeypatch.setenv("QSGD_BACKEND", "sampled")
    monkeypatch.setenv("QSGD_SHOTS", "128")
    config = full()
    assert (config.epochs, config.lr, config.weight_decay) == (7, 0.3, 0.02)
    assert (config.term.backend, config.term.shots) == ("sampled", 128)
    assert (full(lr=0.0).lr, full(backend="exact").term.backend) == (0.0, "exact")


def test_options_of_the_environments_backend_do_not_go_to_another(monkeypatch):
    monkeypatch.setenv("QSGD_BACKEND_OPTIONS", '{"method": "statevector"}')
    assert full().term.backend_options == {"method": "statevector"}
    assert full(backend="exact").term.backend_options is None


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"epochs": 0}, "epochs must be an integer of at least 1, not 0"),
        ({"max_steps": -3}, "max_steps must be an integer of at least 1, not -3"),
        ({"lr": float("nan")}, "lr must be finite and at least 0, not nan"),
        ({"weight_decay": float("inf")}, "weight_decay must be finite"),
        ({"seed": -1}, "seed must be between 0"),
        ({"seed": 2**63}, "seed must be between 0"),
    ],
)
def test_a_value_out_of_range_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        full(**changes)


def test_a_configuration_survives_json_and_an_unknown_field_does_not():
    config = full(perturbation_options={"entangler": "ring"})
    assert TrainConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match=r"other fields than this version.*: novelty"):
        TrainConfig.from_dict(config.to_dict() | {"novelty": 1})


def test_resuming_may_change_the_end_and_nothing_else():
    config = full()
    check_same_run(config, {"epochs": 99, "max_steps": 3, "n_qubits": 4}, "runs/x")
    with pytest.raises(ConfigError, match=r"depth=9 \(the run has 2\).*Nothing was changed"):
        check_same_run(config, {"depth": 9, "n_qubits": 4}, "runs/x")


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "rmsprop", "adagrad", "nadam", "radam"])
def test_any_optimizer_of_torch_gets_the_term_and_the_tasks_settings(name):
    model = torch.nn.Linear(6, 3)
    made = make_optimizer(model, replace(full(), optimizer=name), DEFAULTS, ())
    optimizer = made.optimizer
    assert type(optimizer).__name__.lower() == {"adamw": "qsgd"}.get(name, name)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.02)
    assert group.get("betas", (0.8, 0.9)) == (0.8, 0.9)
    model(torch.ones(2, 6)).square().sum().backward()
    optimizer.step()
    assert made.term.qsgd_stats().sources["exact"] == 1


def test_an_optimizer_that_torch_does_not_have_is_refused_with_close_names():
    with pytest.raises(ConfigError, match=r"no optimizer 'adamm'.*Did you mean adam"):
        make_optimizer(torch.nn.Linear(2, 2), replace(full(), optimizer="adamm"), DEFAULTS, ())
