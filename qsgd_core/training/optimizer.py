"""The optimizer of a training run: QSGD, or any optimizer of torch.optim with the term attached."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qsgd_core.errors import ConfigError, nearest
from qsgd_core.events import Observer
from qsgd_core.optim.attach import attach
from qsgd_core.optim.has_term import HasTerm
from qsgd_core.optim.qsgd import QSGD
from qsgd_core.task import TaskDefaults
from qsgd_core.training.config import SETTINGS, TrainConfig


@dataclass(frozen=True)
class Made:
    """An optimizer with the term on it.

    Attributes:
        optimizer: what steps.
        term: what knows about the term; the same object for ``adamw``.
    """

    optimizer: torch.optim.Optimizer
    term: HasTerm


def make_optimizer(
    model: torch.nn.Module,
    config: TrainConfig,
    defaults: TaskDefaults,
    observers: Sequence[Observer],
    *,
    total_steps: int | None = None,
    record: str | None = None,
) -> Made:
    """The optimizer and the term on it.

    Args:
        model: what it trains.
        config: a full configuration.
        defaults: the task's; betas and eps go to optimizers that take them.
        observers: told of every step.
        total_steps: of the whole run, if that is known.
        record: where the run's record goes.

    Raises:
        ConfigError: an argument, a name or an optimizer that cannot be used.
    """
    term: dict[str, Any] = {name: getattr(config.term, name) for name in SETTINGS}
    term |= {"named_parameters": model.named_parameters(), "observers": observers}
    term |= {"total_steps": total_steps, "record": record}
    base: dict[str, Any] = {
        "lr": config.lr,
        "weight_decay": config.weight_decay,
        "betas": defaults.betas,
        "eps": defaults.eps,
    }
    if config.optimizer == "adamw":
        adamw = QSGD(model.parameters(), **base, **term)
        return Made(adamw, adamw)
    kind = _optimizer_class(config.optimizer)
    accepted = inspect.signature(kind).parameters
    taken = {
        name: value
        for name, value in base.items()
        # Adafactor's eps is a pair, of another meaning than the task's number.
        if name in accepted and isinstance(accepted[name].default, tuple) == (name == "betas")
    }
    optimizer = kind(model.parameters(), **taken)
    attachment = attach(optimizer, **term)
    return Made(optimizer, attachment)


def torch_optimizers() -> dict[str, Any]:
    """The classes of torch.optim by their names in lower case."""
    return {
        key.lower(): value
        for key, value in vars(torch.optim).items()
        if inspect.isclass(value)
        and issubclass(value, torch.optim.Optimizer)
        and value is not torch.optim.Optimizer
    }


def _optimizer_class(name: str) -> Any:
    known = torch_optimizers()
    if name in known:
        return known[name]
    close = nearest(name, known, 3)
    raise ConfigError(
        f"There is no optimizer {name!r} in torch.optim {torch.__version__}. "
        + (f"Did you mean {' or '.join(close)}? " if close else "")
        + f"It has {', '.join(sorted(known))}."
    )
