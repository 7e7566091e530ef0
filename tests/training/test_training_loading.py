"""A walk through the data is taken up where it stopped, whatever the loader draws from."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from qsgd_core.errors import ConfigError
from qsgd_core.settings import load_settings
from qsgd_core.training import load_task
from qsgd_core.training.loop import rng
from qsgd_core.training.loop.loading import RandomState, batches, repeats_workers

SCRIPT = Path(__file__).parents[1] / "scripts" / "noisy_task.py"


def noisy(kind: str):
    task, _ = load_task(f"{SCRIPT}:make_task", load_settings())
    task.kind = kind
    rng.seed_all(3)
    return task.build(3)


@pytest.mark.parametrize("kind", ["global", "generator", "sampler", "workers", "stream"])
def test_a_walk_taken_up_in_its_middle_gives_the_batches_that_would_have_come(kind):
    loader = noisy(kind).train_loader
    start = RandomState.of(loader)
    walk = iter(loader)
    list(islice(walk, 3))
    torch.rand(7)  # a model draws too, between the batches
    now = RandomState.from_dict(RandomState.of(loader).to_dict())
    expected = [[t.clone() for t in batch] for batch in walk]
    drawn = (random.random(), np.random.random(), torch.rand(1).item())

    other = noisy(kind).train_loader
    torch.rand(100)
    resumed = list(batches(other, skip=3, start=start, now=now))

    assert len(resumed) == len(expected) == 2
    for got, wanted in zip(resumed, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    assert (random.random(), np.random.random(), torch.rand(1).item()) == drawn


def test_data_with_fewer_batches_than_were_trained_is_refused():
    loader = noisy("global").train_loader
    state = RandomState.of(loader)
    with pytest.raises(ConfigError, match=r"9 batches into an epoch, but.*only 5"):
        batches(loader, skip=9, start=state, now=state)


def test_random_states_survive_a_file_read_with_weights_only(tmp_path):
    rng.seed_all(11)
    random.gauss(0, 1)  # leaves a second value waiting inside python's generator
    np.random.normal()  # and inside numpy's
    torch.save(rng.capture(), tmp_path / "states")
    drawn = (random.gauss(0, 1), np.random.normal(), torch.rand(3).tolist())

    rng.restore(torch.load(tmp_path / "states", weights_only=True))

    assert (random.gauss(0, 1), np.random.normal(), torch.rand(3).tolist()) == drawn


def test_only_persistent_workers_cannot_be_repeated():
    data = noisy("global").train_loader.dataset
    loader = torch.utils.data.DataLoader
    assert repeats_workers(loader(data, num_workers=1))
    assert not repeats_workers(loader(data, num_workers=1, persistent_workers=True))
    assert repeats_workers([1, 2])
