"""``normalize="update"``: λ is the ratio RMS(term) / RMS(base step), by weights saved to files.

Nothing of the term's own arithmetic is used: weights before and after a step, and after the same
step of torch's own optimizer from the same state, are written out in float64 and read by numpy.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import qsgd_core as qsgd

WEIGHT, STEPS, N_QUBITS = 0.5, 15, 4


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)).double()


def backward(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 6, generator=generator, dtype=torch.float64)
    (model(x) - x[:, :3] * x[:, 3:]).square().mean().backward()


BASES = {
    "AdamW": lambda params: torch.optim.AdamW(params, lr=3e-3, weight_decay=0.05),
    "SGD": lambda params: torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=1e-3),
}


def twin(model: nn.Module, optimizer: torch.optim.Optimizer, base: str) -> nn.Module:
    """The model after a step of torch's own optimizer from the present state: λ = 0."""
    other = copy.deepcopy(model)
    plain = BASES[base](other.parameters())
    plain.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for p, q in zip(other.parameters(), model.parameters(), strict=True):
        p.grad = q.grad.clone()
    plain.step()
    return other


def write(path: Path, model: nn.Module) -> None:
    np.savez(path, **{name: p.detach().numpy() for name, p in model.named_parameters()})


def record(folder: Path, base: str, scope: str, perturbation: str) -> None:
    """Files before-K, plain-K and after-K for every step K of a run with the term."""
    model = make_model()
    options = {"quantum_weight": WEIGHT, "scope": scope, "n_qubits": N_QUBITS}
    options |= {"normalize": "update", "perturbation": perturbation}
    optimizer: torch.optim.Optimizer
    if base == "AdamW":
        optimizer = qsgd.QSGD(model.parameters(), lr=3e-3, weight_decay=0.05, **options)
    else:
        optimizer = BASES[base](model.parameters())
        qsgd.attach(optimizer, **options)
    for step in range(STEPS):
        optimizer.zero_grad()
        backward(model, step)
        write(folder / f"before-{step}.npz", model)
        write(folder / f"plain-{step}.npz", twin(model, optimizer, base))
        optimizer.step()
        write(folder / f"after-{step}.npz", model)


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize("perturbation", ["sine", "circuit"])
@pytest.mark.parametrize("scope", ["tensor", "all"])
@pytest.mark.parametrize("base", BASES)
def test_the_term_of_each_tensor_is_lambda_times_its_base_step(tmp_path, base, scope, perturbation):
    record(tmp_path, base, scope, perturbation)
    ratios = []
    for step in range(STEPS):
        before, plain, after = (
            np.load(tmp_path / f"{when}-{step}.npz") for when in ("before", "plain", "after")
        )
        for name in before.files:
            touched = slice(N_QUBITS) if scope == "tensor" else slice(None)
            own = (after[name] - plain[name]).ravel()
            step_of_base = (plain[name] - before[name]).ravel()
            assert own.dtype == np.float64
            ratios.append(rms(own[touched]) / rms(step_of_base[touched]))
            if scope == "tensor":
                np.testing.assert_array_equal(own[N_QUBITS:], 0.0)
    assert len(ratios) == STEPS * 4
    np.testing.assert_allclose(ratios, WEIGHT, rtol=0, atol=1e-6)
