"""Repeating a run from its record, in a folder of its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qsgd_core.errors import ConfigError
from qsgd_core.events import Observer
from qsgd_core.schedule.record.reader import RecordReader
from qsgd_core.settings import load_settings
from qsgd_core.task import Task
from qsgd_core.training.code import edited_since
from qsgd_core.training.config import MAY_CHANGE, TrainConfig, changes, with_objects
from qsgd_core.training.folder.folder import RunFolder, find_run, read_record
from qsgd_core.training.folder.summary import Summary
from qsgd_core.training.run import check_environment, same_task, train

logger = logging.getLogger("qsgd_core")


def replay(
    run: str,
    task: Task | None = None,
    *,
    asked: Mapping[str, Any] | None = None,
    run_dir: str | Path | None = None,
    observers: Sequence[str | Observer] | None = None,
    checkpoint_every: int | None = None,
) -> Summary:
    """Repeat a run: every step gets what it got then, without backend, ledger or network.

    To the bit on the same torch build, processor type and number of threads, and for the data that
    :func:`resume` keeps to the bit; where something differs, a warning names it. Angles and weights
    are compared with the recorded ones on the way: the summary's ``replayed`` says what came of it.
    The record of a run that was interrupted or killed is repeated as far as it goes.

    Args:
        run: path of the run folder, or its name under ``QSGD_RUNS``.
        task: the run's task; None loads it by the name or script it was started with.
        asked: configuration fields that were asked for explicitly. ``epochs`` and ``max_steps``
            may end the replay earlier; any other difference is refused.
        run_dir: as in :func:`train`.
        observers: as in :func:`train`.
        checkpoint_every: as in :func:`train`.

    Raises:
        ConfigError: there is no such run, it has no record or a damaged one, or something else
            than that run was asked for; nothing was written.
    """
    settings = load_settings()
    folder = find_run(run, settings.runs)
    recorded = read_record(folder)
    asked = dict(asked or {})
    if different := changes(recorded.config, asked):
        raise ConfigError(
            f"The run in {folder.path} cannot be replayed with {', '.join(different)}: it would be "
            "another run. Leave that out, or start a new run without --replay."
        )
    check_environment(settings, recorded, asked, folder)
    config = _as_far_as_recorded(with_objects(recorded.config, asked), asked, folder)
    task = same_task(task, recorded, settings, folder)
    if edited := edited_since(recorded.code, recorded.source):
        logger.warning(
            "The task's code is not what %s was trained with: %s changed since.",
            folder.path,
            ", ".join(edited),
        )
    return train(
        task,
        config,
        source=recorded.source,
        data=None if recorded.data is None else Path(recorded.data),
        run_dir=run_dir,
        observers=observers,
        checkpoint_every=checkpoint_every,
    )


def _as_far_as_recorded(
    config: TrainConfig, asked: Mapping[str, Any], folder: RunFolder
) -> TrainConfig:
    """The run's configuration, ending where its record ends."""
    reader = RecordReader(folder.record)
    n_steps, total = reader.n_steps, reader.header.get("total_steps")
    reader.close()
    shorter = {name: asked[name] for name in MAY_CHANGE if name in asked}
    config = replace(config, **shorter).with_term(replay=str(folder.record.resolve()))
    if total is not None and n_steps < total:
        left_out = ", or left steps out for gradients that overflowed in float16"
        logger.warning(
            "The record of %s ends after step %d of %d, where that run was interrupted or "
            "killed%s: the replay ends there too.",
            folder.path,
            n_steps,
            total,
            left_out if config.precision == "float16" else "",
        )
    if shorter or total is None or n_steps < total:
        limit = n_steps if config.max_steps is None else min(config.max_steps, n_steps)
        config = replace(config, max_steps=max(limit, 1))  # of none at all, the record says so
    return config
