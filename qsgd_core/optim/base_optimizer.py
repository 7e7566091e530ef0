"""The optimizer underneath: whether the term can sit on it, and what it makes of its inputs."""

from __future__ import annotations

import gc
import inspect
import sys

import torch

from qsgd_core.errors import ConfigError
from qsgd_core.measure.ranks import Ranks

ATTACHMENT = "_qsgd_attachment"
"""Attribute of an optimizer under which its live attachment is found; copies do not have it."""


def check_optimizer(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``step`` takes a closure.

    Raises:
        ConfigError: the term cannot sit on this optimizer, with the reason.
    """
    name = type(optimizer).__name__
    if ATTACHMENT in vars(optimizer):
        raise ConfigError(f"This {name} already carries the term. Call detach() first.")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(
            f"{name} cannot step without a closure that it calls several times, and its lr is not "
            "the size of a gradient step, so -lr·λ·Q has no meaning there. "
            "Use a first-order optimizer such as torch.optim.AdamW."
        )
    for group in optimizer.param_groups:
        if not isinstance(group.get("lr"), float | int | torch.Tensor):
            raise ConfigError(
                f"{name} has no learning rate in its parameter groups; the term is -lr·λ·Q. "
                "Use an optimizer with an lr."
            )
    return closure is not None


def check_sees_model(optimizer: torch.optim.Optimizer, what: str) -> None:
    """Raise if the optimizer is one rank's part of a ZeroRedundancyOptimizer.

    Nothing in the part says so: the whole is looked for among all living objects, once.

    Args:
        optimizer: the one that carries the term.
        what: of the term needs every parameter, as the user wrote it.

    Raises:
        ConfigError: it is, with the way out.
    """
    zero = sys.modules.get("torch.distributed.optim.zero_redundancy_optimizer")
    if zero is None or Ranks().world == 1:
        return
    whole = zero.ZeroRedundancyOptimizer
    wholes = (o for o in gc.get_objects() if issubclass(type(o), whole))
    if any(vars(o).get("optim") is optimizer for o in wholes):
        raise ConfigError(
            f"{what} needs every parameter of the model, and this {type(optimizer).__name__} "
            "belongs to a ZeroRedundancyOptimizer, which gives each rank a part of them. Put the "
            "term on the whole: attach(ZeroRedundancyOptimizer(model.parameters(), "
            "torch.optim.AdamW, lr=1e-3)), say."
        )


def is_zero(lr: float | torch.Tensor) -> bool:
    """Whether lr is 0, without asking an accelerator."""
    if isinstance(lr, torch.Tensor):
        return lr.device.type == "cpu" and float(lr) == 0.0
    return lr == 0.0
