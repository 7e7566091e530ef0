"""What the tests of training libraries share: the term written out, and this process's children."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch

N = 4
"""Coordinates of a block, the default of ``n_qubits``."""


def step_by_hand(
    base: torch.optim.Optimizer, params: Sequence[torch.Tensor], *, weight: float
) -> None:
    """The base optimizer's step, and -lr·λ·sin(π θ)·g on the first N coordinates of each tensor.

    Args:
        base: knows lr; its groups have one and the same.
        params: with their gradients as the base optimizer is to use them.
        weight: λ.
    """
    lr = float(base.param_groups[0]["lr"])
    before = [p.detach().clone() for p in params]
    base.step()
    with torch.no_grad():
        for p, theta in zip(params, before, strict=True):
            term = lr * weight * torch.sin(math.pi * theta) * p.grad
            p.view(-1)[:N] -= term.view(-1)[:N]


def flat(model: torch.nn.Module) -> torch.Tensor:
    """(n_weights,): a copy of all weights, whole where they are sharded."""
    whole = (p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters())
    return torch.cat([p.detach().clone().reshape(-1) for p in whole])


def children(pid: int | None = None) -> set[int]:
    """What a process, this one if none is given, has started and not seen end: process ids."""
    tasks = Path(f"/proc/{pid or os.getpid()}/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}
