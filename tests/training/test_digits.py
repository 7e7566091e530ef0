"""Task digits: real data, a fixed split, the same bits for the same seed, and it learns."""

from __future__ import annotations

import sys

import pytest
import torch

from qsgd_core.builtin.digits import Digits
from qsgd_core.errors import ConfigError
from qsgd_core.plugins.registry import default_registry
from qsgd_core.training import TrainConfig, train


def build(seed: int):
    torch.manual_seed(seed)
    return Digits().build(seed)


def test_the_split_is_fixed_stratified_and_complete():
    images, labels = build(0).train_loader.dataset.tensors
    other, _ = build(1).train_loader.dataset.tensors
    assert torch.equal(images, other)
    assert images.shape == (1437, 8, 8)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    counts = labels.bincount(minlength=10)
    assert counts.min() >= 139  # the classes have 174 to 183 images; four fifths of each
    assert counts.max() <= 147


def test_the_same_seed_gives_the_same_model_and_order_and_another_does_not():
    one, same, other = build(3), build(3), build(4)
    first = [labels for _, labels in one.train_loader]
    assert all(torch.equal(a, b) for a, (_, b) in zip(first, same.train_loader, strict=True))
    assert not all(torch.equal(a, b) for a, (_, b) in zip(first, other.train_loader, strict=True))
    weights = [built.model.head.weight for built in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_model_is_the_papers_transformer_at_its_size():
    model = build(0).model
    assert len(model.encoder.layers) == 2
    layer = model.encoder.layers[0]
    assert (layer.self_attn.embed_dim, layer.self_attn.num_heads) == (64, 4)
    assert layer.linear1.out_features == 128
    assert model(torch.zeros(5, 8, 8)).shape == (5, 10)


def test_an_untrained_model_guesses():
    built = build(0)
    with torch.no_grad():
        metrics = built.evaluate(built.model.eval())
    assert set(metrics) == set(Digits.metrics)
    # 360 test images, one in ten right: 5 sigma is 5 * sqrt(0.1 * 0.9 / 360) = 0.08; an untrained
    # network may also answer the same class throughout, which is right for 10 %.
    assert metrics["accuracy"] < 0.3


def test_two_epochs_with_the_term_on_are_enough_for_most_digits(tmp_path):
    config = TrainConfig(perturbation="circuit", epochs=2)
    assert train(Digits(), config, run_dir=tmp_path / "run").accuracy > 0.9


def test_without_scikit_learn_the_message_has_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'qsgd-core\[demo\]'"):
        build(0)


def test_the_registry_serves_it():
    assert isinstance(default_registry().make_task("digits"), Digits)


@pytest.mark.slow
def test_five_seeds_reach_95_percent_on_average_and_none_is_below_93(tmp_path):
    config = {"perturbation": "circuit", "backend": "exact"}
    accuracies = [
        train(Digits(), TrainConfig(**config, seed=s), run_dir=tmp_path / str(s)).accuracy
        for s in range(5)
    ]
    assert sum(accuracies) / 5 >= 0.95
    assert min(accuracies) >= 0.93
