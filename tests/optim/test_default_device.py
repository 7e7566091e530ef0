"""torch's default device says where a user's new tensors lie, not where the term's do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import qsgd_core as qsgd

CONTROLS = ("rademacher", "uniform", "gaussian", "permuted", "frozen")
TERMS: list[dict[str, Any]] = [
    {},
    {"scope": "all", "n_qubits": 3, "normalize": "update"},
    {"scope": "model", "n_qubits": 3},
    {"inject": "gradient"},
    {"perturbation": "circuit", "perturbation_options": {"phases": "gradient"}},
    {"perturbation": "circuit", "perturbation_options": {"entangler": "ring"}},
    {"perturbation": "circuit", "depth": 1, "perturbation_options": {"phases": [[0.5] * 4]}},
    {"backend": "sampled", "shots": 16, "every": 2},
    {"backend": "aer:statevector", "shots": 16},
    {"backend": "pennylane:default.qubit", "shots": 16},
    *({"perturbation": name} for name in CONTROLS),
    *({"perturbation": name, "backend": "sampled", "shots": 8} for name in CONTROLS),
]


@pytest.fixture(name="elsewhere")
def _elsewhere() -> Iterator[Any]:
    def switch() -> None:
        torch.set_default_device("meta")  # nothing that lands there has a value

    yield switch
    torch.set_default_device(None)


def trained(term: dict[str, Any], kind: str) -> list[torch.Tensor]:
    generator = torch.Generator("cpu").manual_seed(4)
    shapes = [(3, 4), (5,), ()]
    params = [
        torch.nn.Parameter(torch.randn(shape, generator=generator, device="cpu"))
        for shape in shapes
    ]
    groups = [{"params": params[:1]}, {"params": params[1:], "normalize": None}]
    named = [(f"p{k}", p) for k, p in enumerate(params)]
    if kind == "qsgd":
        opt: torch.optim.Optimizer = qsgd.QSGD(groups, lr=0.1, named_parameters=named, **term)
    else:
        opt = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        qsgd.attach(opt, named_parameters=named, **term)
    for step in range(4):
        for p in params:
            p.grad = None if (step == 1 and p.dim() == 1) else p.detach().cos()
        opt.step()
        opt.load_state_dict(opt.state_dict())
    return [p.detach() for p in params]


@pytest.mark.parametrize("kind", ["qsgd", "attach"])
@pytest.mark.parametrize("term", TERMS, ids=lambda term: " ".join(map(str, term.values())) or "-")
def test_a_default_device_that_is_another_changes_no_bit(term, kind, elsewhere):
    expected = trained({**term, "seed": 1}, kind)
    elsewhere()
    found = trained({**term, "seed": 1}, kind)
    assert all(p.device.type == "cpu" for p in found)
    assert all(bool((a == b).all()) for a, b in zip(found, expected, strict=True))
