"""Runs on disk: start one, or go on with one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from qsgd_core import files
from qsgd_core.errors import ConfigError
from qsgd_core.events import Observer, RunEnded, RunStarted
from qsgd_core.measure.counts import check_count
from qsgd_core.plugins.registry import default_registry
from qsgd_core.schedule.trainer import patience
from qsgd_core.settings import Settings, load_settings
from qsgd_core.task import Task
from qsgd_core.training import code
from qsgd_core.training.config import (
    MAY_CHANGE,
    TrainConfig,
    check_same_run,
    resolve,
    total_steps,
    with_objects,
)
from qsgd_core.training.folder import environment
from qsgd_core.training.folder.folder import (
    RunFolder,
    RunRecord,
    begin,
    find_run,
    new_folder,
    read_record,
    write_record,
)
from qsgd_core.training.folder.plot import draw
from qsgd_core.training.folder.summary import Summary, summarise
from qsgd_core.training.loop import checkpoint as checkpoints
from qsgd_core.training.loop.interrupt import Interrupt
from qsgd_core.training.loop.session import Parts, Session
from qsgd_core.training.setup import assemble
from qsgd_core.training.tasks import recorded_task


def train(
    task: Task,
    config: TrainConfig | None = None,
    *,
    source: str | None = None,
    data: str | Path | None = None,
    run_dir: str | Path | None = None,
    observers: Sequence[str | Observer] | None = None,
    checkpoint_every: int | None = None,
) -> Summary:
    """Train ``task`` in a fresh run folder.

    A checkpoint is written at the start, after every epoch, every ``checkpoint_every`` steps and
    on Ctrl-C, which ends the session after the step it falls into (``status`` is then
    ``interrupted``). Nothing is written before everything that was asked for has been checked.

    Args:
        task: what to train.
        config: how; None for all defaults.
        source: how :func:`resume` finds the task again: its name or ``/path/script.py:function``.
        data: folder that the task was given its data in, for the same purpose.
        run_dir: the run's folder, new or empty; None for one named after the time under
            ``QSGD_RUNS``.
        observers: names or functions that are told of events; None for ``QSGD_OBSERVERS``.
        checkpoint_every: steps between checkpoints within an epoch.

    Raises:
        ConfigError: something asked for cannot be done; nothing was written.

    Example:
        >>> from qsgd_core.builtin.digits import Digits
        >>> from qsgd_core.training import TrainConfig, train
        >>> summary = train(Digits(), TrainConfig(max_steps=2, quantum_weight=0.1), observers=[])
        >>> summary.status, summary.steps
        ('finished', 2)
    """
    settings = load_settings()
    if not isinstance(config, TrainConfig | None):
        raise ConfigError(f"config must be a TrainConfig(...), not {config!r:.80}.")
    full = resolve(config or TrainConfig(), task.defaults, settings)
    _check_every(checkpoint_every)
    where = new_folder(
        None if run_dir is None else Path(run_dir),
        runs=settings.runs,
        task=task.name,
        seed=full.seed,
        now=datetime.now(),
    )
    with where as folder:
        full = full.with_term(run=_run_id(folder.path))
        told = default_registry(settings).make_observers(observers, folder.path)
        parts = assemble(task, full, told, record=folder.record)
        begin(folder)
        try:
            session = _session(parts, folder, checkpoint_every)
            write_record(
                folder,
                RunRecord(
                    task.name,
                    source,
                    parts.config,
                    environment.describe(parts),
                    data=None if data is None else str(Path(data).resolve()),
                    identity=task.identity(),
                    code=code.code_of(source),
                ),
            )
            session.save()
            return _finish(session, parts, folder)
        finally:
            folder.unlock()


def resume(
    run: str,
    task: Task | None = None,
    *,
    asked: Mapping[str, Any] | None = None,
    observers: Sequence[str | Observer] | None = None,
    checkpoint_every: int | None = None,
) -> Summary:
    """Go on with a run from its last checkpoint, to the same bits as if it had never stopped.

    Bits are kept for data whose order and augmentation come from python's, numpy's or torch's
    generators, on the same machine type, torch version and number of threads; where the run
    folder names others, a warning says so. A finished run is left as it is, unless ``asked``
    extends it.

    Args:
        run: path of the run folder, or its name under ``QSGD_RUNS``.
        task: the run's task; None loads it by the name or script it was started with.
        asked: configuration fields that were asked for explicitly. ``epochs`` and ``max_steps``
            may differ from the run's; any other difference is refused. For a perturbation, a
            simulator or a policy that was an object, one of its class has to be here again.
        observers: as in :func:`train`.
        checkpoint_every: as in :func:`train`.

    Raises:
        ConfigError: there is no such run, it is of another configuration, or its checkpoint is
            damaged or of another run; nothing was changed.
    """
    settings = load_settings()
    _check_every(checkpoint_every)
    folder = find_run(run, settings.runs)
    record = read_record(folder)
    asked = dict(asked or {})
    check_same_run(record.config, asked, str(folder.path))
    check_environment(settings, record, asked, folder)
    task = same_task(task, record, settings, folder)
    with _held(folder):
        saved = checkpoints.load(folder.checkpoint)
        checkpoints.check(saved, record.task, record.config, folder.checkpoint)
        changes = {name: asked[name] for name in MAY_CHANGE if name in asked}
        config = replace(with_objects(record.config, asked), **changes)
        full = resolve(config, task.defaults, settings)
        _check_not_behind(full, saved, folder)
        told = default_registry(settings).make_observers(observers, folder.path)
        parts = assemble(task, full, told, record=folder.record)
        session = _session(parts, folder, checkpoint_every)
        session.restore(saved)
        environment.warn_of_differences(record, parts)
        if parts.config != record.config:
            write_record(folder, replace(record, config=parts.config))
        return _finish(session, parts, folder)


def _finish(session: Session, parts: Parts, folder: RunFolder) -> Summary:
    """Run the session to its end and leave summary and plot."""
    trained = not session.done
    files.write_json_lines(folder.metrics, session.rows)
    started = RunStarted(
        session.position.step,
        config=parts.config.to_dict(),
        run_dir=str(folder.path),
        total_steps=total_steps(parts.config, parts.built.train_loader),
    )
    parts.tell(started)
    status = "failed"
    try:
        with Interrupt() as interrupt, patience.until(lambda: interrupt.requested):
            status = session.run(interrupt)
    except BaseException:
        parts.tell(RunEnded(session.position.step, status="failed"))
        raise
    finally:
        parts.term.close(finished=status == "finished")
    summary = summarise(parts, session, folder.path, status, trained=trained)
    beside = {"status": status, "ended_at": time.time()}
    files.write_json(folder.summary, beside | summary.to_dict())
    plot = draw(folder.plot, session.rows, summary)
    parts.tell(RunEnded(session.position.step, status=status, summary=summary.to_dict()))
    return replace(summary, plot=plot)


@contextmanager
def _held(folder: RunFolder) -> Iterator[None]:
    """Keep other processes out of the folder."""
    folder.lock()
    try:
        yield
    finally:
        folder.unlock()


def _run_id(path: Path) -> str:
    """The run's name on the ledger: its folder's, and enough chance to be one of a kind."""
    return f"{path.name.encode(errors='replace').decode()}-{uuid4().hex[:12]}"


def _session(parts: Parts, folder: RunFolder, checkpoint_every: int | None) -> Session:
    def save(checkpoint: checkpoints.Checkpoint) -> None:
        checkpoints.save(folder.checkpoint, checkpoint)
        files.write_json_lines(folder.metrics, checkpoint.rows)

    return Session(parts, save, checkpoint_every=checkpoint_every)


def same_task(task: Task | None, record: RunRecord, settings: Settings, folder: RunFolder) -> Task:
    """The task of a recorded run: ``task`` if that is it, else as the record says.

    Raises:
        ConfigError: it cannot be found, or is another one.
    """
    task = task or recorded_task(record, settings, folder.path)
    if task.name != record.task:
        raise ConfigError(
            f"The run in {folder.path} trains task {record.task!r}, not {task.name!r}. Name that "
            "task, or leave the task out."
        )
    return task.as_recorded(record.identity)


def check_environment(
    settings: Settings, record: RunRecord, asked: Mapping[str, Any], folder: RunFolder
) -> None:
    """Raise if the environment names another source of s than the run has.

    Setting QSGD_BACKEND always changes where s comes from: it must not be passed over in silence.
    """
    for name in ("backend", "backend_options", "shots"):
        have, found = getattr(record.config.term, name), getattr(settings, name)
        covered = name in asked or (name == "backend_options" and "backend" in asked)
        if name in settings.model_fields_set and not covered and (found or None) != have:
            raise ConfigError(
                f"QSGD_{name.upper()} is {found!r}, but the run in {folder.path} has {have!r}. "
                f"Unset QSGD_{name.upper()}"
                + (f", or say that you mean it: --backend {have}." if name == "backend" else ".")
            )


def _check_every(checkpoint_every: int | None) -> None:
    if checkpoint_every is not None:
        check_count("checkpoint_every", checkpoint_every)


def _check_not_behind(
    config: TrainConfig, saved: checkpoints.Checkpoint, folder: RunFolder
) -> None:
    """Raise if the run has already gone beyond the end that is asked for."""
    position = saved.position
    for name, limit, reached in (
        ("epochs", config.epochs, position.epoch),
        ("max_steps", config.max_steps, position.step),
    ):
        if limit is not None and limit < reached:
            raise ConfigError(
                f"{name}={limit} was asked for, but the run in {folder.path} has come to {reached} "
                f"already. Ask for {name}={reached} or more. Nothing was changed."
            )
