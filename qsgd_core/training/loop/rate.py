"""The learning rate of each step: a function of the step's number, so that nothing is to be saved.

The warm-up is a share of the run, so that a run which is cut to a tenth has the same shape. The
numbers are those of transformers' ``get_linear_schedule_with_warmup`` but for the first step, which
that gives a rate of 0: it would move nothing. Here step n of a warm-up of w steps has n/w.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from qsgd_core.errors import ConfigError
from qsgd_core.training.config import TrainConfig, total_steps


def rate(config: TrainConfig, step: int) -> float:
    """The learning rate of the step that ``step`` others came before.

    Args:
        config: a full one, through :func:`planned`.
        step: optimizer steps taken so far.
    """
    lr = config.lr or 0.0
    if not varies(config):
        return lr
    n_steps, n_warmup = config.lr_steps or 0, warmup_steps(config)
    if step < n_warmup:
        return lr * ((step + 1) / n_warmup)
    if config.lr_schedule == "constant":
        return lr
    return lr * max(0.0, (n_steps - step) / max(1, n_steps - n_warmup))


def varies(config: TrainConfig) -> bool:
    """Whether the learning rate is not the same in every step."""
    return config.lr_schedule != "constant" or config.warmup != 0


def warmup_steps(config: TrainConfig) -> int:
    """Steps in which the learning rate rises."""
    return round((config.warmup or 0.0) * (config.lr_steps or 0))


def planned(config: TrainConfig, loader: Iterable[Any]) -> TrainConfig:
    """``config`` with ``lr_steps`` filled in, if its learning rate depends on them.

    Raises:
        ConfigError: nobody knows how long the run is, or it is to go on beyond its plan.
    """
    if not varies(config):
        return config
    total = total_steps(config, loader)
    if total is None:
        raise ConfigError(
            "The learning rate changes over the run, and the train_loader does not tell how many "
            "steps that is. Say so: --max-steps 2000."
        )
    if config.lr_steps is None:
        return replace(config, lr_steps=total)
    if total > config.lr_steps and config.lr_schedule == "linear":
        raise ConfigError(
            f"The learning rate of this run was planned for {config.lr_steps} steps and is 0 after "
            f"them: it cannot go on to step {total}. Start a new run of {total} steps."
        )
    return config


def describe(config: TrainConfig) -> str:
    """What changes a step beside the optimizer, in words.

    ``lr 2e-05: 500 warm-up steps, then linear to 0 at step 7,473; gradient norm at most 1;
    float32``.
    """
    said = f"lr {config.lr:g}"
    parts = []
    if n_warmup := warmup_steps(config):
        parts.append(f"{n_warmup:,} warm-up steps")
    if config.lr_schedule == "linear":
        parts.append(f"linear to 0 at step {config.lr_steps or 0:,}")
    if parts:
        said += f": {', then '.join(parts)}"
    if config.clip_norm:
        said += f"; gradient norm at most {config.clip_norm:g}"
    if config.precision == "float16":
        said += "; mixed float16"
    return said
