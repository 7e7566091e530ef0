"""The optimizer underneath: whether the term can sit on it, and what it makes of its inputs."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch

from qsgd_core.errors import ConfigError
from qsgd_core.measure.ranks import Ranks

ATTACHMENT = "_qsgd_attachment"
"""Attribute of an optimizer under which the term that it carries is found; copies have none."""

HOOKS = (
    "_optimizer_step_pre_hooks",
    "_optimizer_step_post_hooks",
    "_optimizer_state_dict_pre_hooks",
    "_optimizer_state_dict_post_hooks",
    "_optimizer_load_state_dict_pre_hooks",
    "_optimizer_load_state_dict_post_hooks",
)
"""What torch's constructor gives every optimizer; a wrapper that does not call it lacks them."""


def unwrap(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer in the wrappers of training libraries, whose own ``step`` runs no hooks.

    It lies in ``.optimizer`` (accelerate, Lightning), or is the only optimizer that a wrapper
    without hooks has (timm's Lookahead).
    """
    inner = getattr(optimizer, "optimizer", None)
    if isinstance(inner, torch.optim.Optimizer):
        return unwrap(inner)
    if isinstance(optimizer, torch.optim.Optimizer) and not _has_hooks(optimizer):
        found = {id(v): v for v in inner_optimizers(optimizer).values()}
        if len(found) == 1:
            return unwrap(*found.values())
    return optimizer


def inner_optimizers(optimizer: torch.optim.Optimizer) -> dict[str, torch.optim.Optimizer]:
    """The optimizers that an optimizer holds, by attribute."""
    held = vars(optimizer).items()
    return {name: v for name, v in held if isinstance(v, torch.optim.Optimizer)}


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Raise unless the term can sit on this optimizer.

    Raises:
        ConfigError: it cannot, with the reason.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f"attach() needs a torch.optim.Optimizer, not {type(optimizer).__name__}. "
            "Give it torch.optim.SGD(model.parameters(), lr=0.1), say."
        )
    name = type(optimizer).__name__
    if not _has_hooks(optimizer):
        inner = getattr(optimizer, "optimizer", None)
        what = "around several optimizers" if inner is None else f"around {type(inner).__name__}"
        raise ConfigError(
            f"This {name} is a wrapper {what}, without torch's hooks, so the term cannot be put on "
            "its steps. Attach the term to the torch.optim.Optimizer in it, or train without what "
            "wraps it (DeepSpeed, say)."
        )
    if ATTACHMENT in vars(optimizer):
        raise ConfigError(f"This {name} already carries the term. Call detach() first.")
    if _searches_along_lines(optimizer):
        raise ConfigError(
            f"{name} cannot step without a closure that it calls several times, and its lr is not "
            "the size of a gradient step, so -lr·λ·Q has no meaning there. "
            "Use a first-order optimizer such as torch.optim.AdamW."
        )
    for group in optimizer.param_groups:
        if "lr" not in group:
            raise ConfigError(
                f"{name} has no learning rate in its parameter groups; the term is -lr·λ·Q. "
                "Use an optimizer with an lr."
            )
        if not isinstance(group["lr"], Real | torch.Tensor):
            raise ConfigError(
                f"The lr of a parameter group of {name} must be a number or a tensor, not "
                f"{group['lr']!r}: the term is -lr·λ·Q. Give lr=float(...), say."
            )
    check_differentiable(optimizer.defaults, *optimizer.param_groups)


def check_differentiable(*settings: Mapping[str, Any]) -> None:
    """Raise if an optimizer's defaults, or one of its groups, say ``differentiable``.

    Raises:
        ConfigError: the term would be missing from the graph of such a step.
    """
    if any(group.get("differentiable") for group in settings):
        raise ConfigError(
            "differentiable=True asks for a gradient through the optimizer's step, and the term "
            "is added outside of that graph: the gradient would be wrong. Use "
            "differentiable=False, or leave the term out."
        )


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


def _has_hooks(optimizer: torch.optim.Optimizer) -> bool:
    return all(name in vars(optimizer) for name in HOOKS)


def _searches_along_lines(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is LBFGS, torch's or another: they are known by name or by their settings."""
    named = any("lbfgs" in cls.__name__.lower() for cls in type(optimizer).__mro__)
    return named or {"history_size", "max_iter"} <= optimizer.defaults.keys()
