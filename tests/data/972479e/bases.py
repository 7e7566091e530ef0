"""The optimizers whose states are in this folder; never to be changed."""

from __future__ import annotations

from typing import Any

import torch

import qsgd_core as qsgd

TERM: dict[str, Any] = {
    "perturbation": "circuit", "backend": "sampled", "shots": 16, "n_qubits": 4, "depth": 2,
    "seed": 3, "quantum_weight": 0.5,
}  # fmt: skip
KINDS = ("qsgd", "sgd", "gradient", "held", "normalized")


def make_optimizer(kind: str) -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
    """Two tensors and what trains them, the same every time."""
    draw = torch.Generator().manual_seed(7)
    shapes = ((3, 4), (5,))
    params = [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]
    if kind == "qsgd":
        return params, qsgd.QSGD(params, lr=1e-2, **TERM)
    if kind == "held":
        return params, qsgd.QSGD(params, lr=1e-2, every=4, **TERM)
    opt: torch.optim.Optimizer
    if kind == "sgd":
        opt = torch.optim.SGD(params, lr=1e-2, momentum=0.9)
        qsgd.attach(opt, **{**TERM, "backend": "exact", "shots": None})
    elif kind == "gradient":
        opt = torch.optim.AdamW(params, lr=1e-2)
        qsgd.attach(opt, inject="gradient", **TERM)
    else:
        opt = torch.optim.AdamW(params, lr=1e-2)
        qsgd.attach(opt, normalize="update", **TERM)
    return params, opt


def step(params: list[torch.nn.Parameter], opt: torch.optim.Optimizer, k: int) -> None:
    """Step number ``k``: the gradients depend on it and on the weights."""
    draw = torch.Generator().manual_seed(100 + k)
    for p in params:
        p.grad = 0.3 * p.detach() + 0.1 * torch.randn(p.shape, generator=draw)
    opt.step()
