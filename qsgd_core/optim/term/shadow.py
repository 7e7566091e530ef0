"""The base step that would have been taken: run, read, and undone.

Needed for the effect size of ``inject="gradient"``, where the term passes through the base
optimizer's own state. It copies parameters, gradients and state once while it runs.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

from qsgd_core.optim.coordinates.selection import Bucket

SHADOW_EVERY = 100
"""Steps between two measurements of the effect size of ``inject="gradient"``."""


@torch.no_grad()
def shadow_step(optimizer: torch.optim.Optimizer, buckets: Sequence[Bucket]) -> list[torch.Tensor]:
    """What the base optimizer's step would do to the selected coordinates, (L,) a bucket.

    The optimizer, its parameters and gradients are left as they were, to the bit. Its hooks do not
    run: the undecorated ``step`` of the class is called, and one that calls its parent's ``step``
    finds no hooks.
    """
    before = [bucket.read_params() for bucket in buckets]
    params = [p for group in optimizer.param_groups for p in group["params"]]
    weights = [p.detach().clone() for p in params]
    grads = [None if p.grad is None else p.grad.detach().clone() for p in params]
    state = {p: _copy(optimizer.state[p]) for p in params if p in optimizer.state}
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    numbers = [_copy(g) for g in groups]

    hooks = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    optimizer._optimizer_step_pre_hooks = OrderedDict()
    optimizer._optimizer_step_post_hooks = OrderedDict()
    try:
        inspect.unwrap(type(optimizer).step)(optimizer)
    finally:
        optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks = hooks
    after = [bucket.read_params() for bucket in buckets]

    for p, weight, grad in zip(params, weights, grads, strict=True):
        p.detach().copy_(weight)
        if grad is not None and p.grad is not None:
            p.grad.copy_(grad)
        if p in state:
            _restore(optimizer.state[p], state[p])
        else:
            optimizer.state.pop(p, None)
    for group, saved in zip(optimizer.param_groups, numbers, strict=True):
        _restore(group, saved | {"params": group["params"]})
    return [a - b for a, b in zip(after, before, strict=True)]


def _copy(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v.detach().clone() if isinstance(v, torch.Tensor) else v for k, v in values.items()}


def _restore(target: dict[str, Any], saved: dict[str, Any]) -> None:
    """Give ``target`` the saved values, keeping its tensors where they are."""
    for key in set(target) - set(saved):
        del target[key]
    for key, value in saved.items():
        current = target.get(key)
        if isinstance(value, torch.Tensor) and isinstance(current, torch.Tensor):
            current.copy_(value)
        else:
            target[key] = value
