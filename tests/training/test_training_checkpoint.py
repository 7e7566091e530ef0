"""Checkpoints: read whole or refused with what to do, and never executed."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from qsgd_core.errors import ConfigError
from qsgd_core.training.config import TrainConfig
from qsgd_core.training.loop.checkpoint import Checkpoint, Position, check, load, save
from qsgd_core.training.loop.loading import RandomState


@pytest.fixture
def checkpoint():
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return Checkpoint(
        task="t",
        config=TrainConfig().to_dict(),
        position=Position(epoch=1, batch=2, step=7, loss_sum=0.1 + 0.2),
        rows=[{"epoch": 1, "accuracy": 1 / 3}],
        model=model.state_dict(),
        optimizer=optimizer.state_dict(),
        now=RandomState.of([]).to_dict(),
    )


@pytest.fixture
def path(tmp_path, checkpoint):
    save(tmp_path / "checkpoint.pt", checkpoint)
    return tmp_path / "checkpoint.pt"


def test_what_is_saved_is_what_is_loaded(path, checkpoint):
    back = load(path)
    assert back.position == checkpoint.position
    assert (back.task, back.config, back.rows) == ("t", checkpoint.config, checkpoint.rows)
    assert torch.equal(back.model["weight"], checkpoint.model["weight"])
    moments = back.optimizer["state"][0]
    assert torch.equal(moments["exp_avg"], checkpoint.optimizer["state"][0]["exp_avg"])


@pytest.mark.parametrize("tenths", range(10))
def test_a_truncated_checkpoint_is_an_error_with_the_fix(path, tenths):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * tenths // 10])
    with pytest.raises(ConfigError, match=r"is damaged and cannot be loaded.*Restore it") as raised:
        load(path)
    assert "\n" not in str(raised.value)


def test_a_single_flipped_bit_in_a_weight_is_noticed(path, checkpoint):
    damaged = bytearray(path.read_bytes())
    at = damaged.index(checkpoint.model["weight"].numpy().tobytes())
    damaged[at + 1] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(ConfigError, match="wrong checksum"):
        load(path)


def test_a_pickle_that_runs_code_is_refused_unrun(path, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    torch.save({"format": 1, "x": Attack()}, path)
    with pytest.raises(ConfigError, match="is damaged"):
        load(path)
    assert not (tmp_path / "attacked").exists()


def test_a_missing_checkpoint_and_one_of_another_format_say_what_to_do(path, checkpoint):
    save(path, replace(checkpoint, format=99))
    with pytest.raises(ConfigError, match=r"has format 99; this version .* reads format 1"):
        load(path)
    path.unlink()
    with pytest.raises(ConfigError, match="has no checkpoint"):
        load(path)


@pytest.mark.parametrize(
    "name, value",
    [("n_qubits", 5), ("depth", 3), ("perturbation", "circuit"), ("backend", "sampled")],
)
def test_a_checkpoint_of_another_run_is_refused_naming_the_difference(checkpoint, name, value):
    config = replace(TrainConfig(), **{name: value})
    with pytest.raises(ConfigError, match=f"another run: it has {name} .* instead of {value!r}"):
        check(checkpoint, "t", config, path="run/checkpoint.pt")


def test_a_checkpoint_of_another_task_is_refused_and_of_other_epochs_is_not(checkpoint):
    check(checkpoint, "t", TrainConfig(epochs=99, max_steps=7), path="run/checkpoint.pt")
    with pytest.raises(ConfigError, match="task 't' instead of 'u'"):
        check(checkpoint, "u", TrainConfig(), path="run/checkpoint.pt")
