"""From a task and a configuration to everything that a session trains with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qsgd_core.events import Observer
from qsgd_core.observing import Observers
from qsgd_core.task import Task
from qsgd_core.training.config import TrainConfig, total_steps
from qsgd_core.training.loop import rng
from qsgd_core.training.loop.meter import EpochMeter
from qsgd_core.training.loop.rate import planned
from qsgd_core.training.loop.session import Parts, check_metrics
from qsgd_core.training.loop.stepping import Stepper
from qsgd_core.training.optimizer import make_optimizer


def assemble(
    task: Task,
    config: TrainConfig,
    observers: Sequence[Observer] = (),
    *,
    record: Path | None = None,
) -> Parts:
    """Seed everything, then build model, data, optimizer and term. Writes and sends nothing.

    Args:
        task: what to train.
        config: a full configuration, see :func:`~qsgd_core.training.config.resolve`.
        observers: told of every event.
        record: where the run's record goes.

    Raises:
        ConfigError: something asked for cannot be done.
    """
    check_metrics(task)
    rng.seed_all(config.seed)
    built = task.build(config.seed)
    config = planned(config, built.train_loader)
    meter = EpochMeter.empty()
    tell = Observers([meter, *observers])
    made = make_optimizer(
        built.model,
        config,
        task.defaults,
        [tell],
        total_steps=total_steps(config, built.train_loader) or None,  # of 0 the loop says why
        record=None if record is None else str(record),
    )
    stepper = Stepper(built.model, made.optimizer, config)
    return Parts(task, config, built, made.optimizer, stepper, made.term, meter, tell)
