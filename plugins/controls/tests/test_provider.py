"""The provider, as it is installed."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from qsgd_controls.plugin import CONTROLS
from qsgd_core import QSGD
from qsgd_core.errors import ConfigError
from qsgd_core.plugins.registry import default_registry

LIGHT = """
import sys
from qsgd_controls.plugin import qsgd_register_perturbations
qsgd_register_perturbations()
sys.exit(", ".join({"torch", "numpy", "qsgd_controls.controls"} & set(sys.modules)) or 0)
"""


def steps(perturbation: str, **options: object) -> tuple[torch.Tensor, QSGD]:
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3)
    optimizer = QSGD(
        model.parameters(),
        lr=0.1,
        quantum_weight=0.5,
        perturbation=perturbation,
        perturbation_options=options or None,
        backend="exact",
    )
    x = torch.randn(8, 6)
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return model.weight.detach().clone(), optimizer


def test_all_five_are_served_by_this_distribution_and_use_no_backend():
    served = {
        found.spec.name: found
        for found in default_registry().perturbations()
        if found.distribution == "qsgd-controls"
    }
    assert set(served) == set(CONTROLS)
    assert not any(found.spec.uses_backend for found in served.values())


@pytest.mark.parametrize("name", CONTROLS)
def test_the_optimizer_runs_each_and_counts_it_as_random(name):
    weights, optimizer = steps(name)
    sine, _ = steps("sine")
    assert bool(weights.isfinite().all())
    assert not torch.equal(weights, sine)
    assert torch.equal(weights, steps(name)[0])
    sources = optimizer.qsgd_stats().sources
    assert sources["random"] == sum(sources.values()) > 0


@pytest.mark.parametrize("name", CONTROLS)
def test_matching_another_perturbation_changes_the_strength(name):
    assert not torch.equal(steps(name)[0], steps(name, match="circuit")[0])


@pytest.mark.parametrize(
    "options, told",
    [
        ({"match": "uniform"}, "classical"),
        ({"match": "sign"}, "sign"),
        ({"mach": "sine"}, "match"),
        ({"match": ""}, "match"),
    ],
)
def test_what_cannot_be_matched_is_refused(options, told):
    with pytest.raises(ConfigError, match=told):
        steps("uniform", **options)


def test_listing_the_controls_imports_neither_torch_nor_numpy():
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
