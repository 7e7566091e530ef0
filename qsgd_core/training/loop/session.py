"""The training loop: one session from a start or a checkpoint to an end, an epoch at a time."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import torch

from qsgd_core.errors import ConfigError, WaitInterruptedError
from qsgd_core.events import BatchTrained, EpochEnded, Observer, Warned
from qsgd_core.optim.has_term import HasTerm
from qsgd_core.task import Built, Task
from qsgd_core.training.config import TrainConfig
from qsgd_core.training.loop.checkpoint import Checkpoint, Position
from qsgd_core.training.loop.interrupt import Interrupt
from qsgd_core.training.loop.loading import RandomState, batches
from qsgd_core.training.loop.meter import EpochMeter, RunningSum
from qsgd_core.training.loop.stepping import Stepper

Row: TypeAlias = dict[str, Any]
Status: TypeAlias = Literal["finished", "interrupted"]

logger = logging.getLogger("qsgd_core")

COLUMNS = ("epoch", "step", "train_loss", "effect_size")
"""What a line of metrics.jsonl says of the run itself, beside the task's metrics."""

_END = object()


class _StopRequestedError(Exception):
    """Unwinds to where the run is saved."""


@dataclass
class Parts:
    """What a session trains with."""

    task: Task
    config: TrainConfig
    built: Built
    optimizer: torch.optim.Optimizer
    stepper: Stepper
    term: HasTerm
    meter: EpochMeter
    tell: Observer


class Session:
    """A run in progress. Knows no files: ``save`` gets a checkpoint to write, and the rows.

    Attributes:
        position: how far the run has come.
        rows: lines of metrics.jsonl; the last may be of an epoch that ``max_steps`` cut short.
    """

    def __init__(
        self,
        parts: Parts,
        save: Callable[[Checkpoint], None],
        *,
        checkpoint_every: int | None = None,
    ) -> None:
        self.position = Position()
        self.rows: list[Row] = []
        self._saved = (replace(self.position), list(self.rows))
        self._parts = parts
        self._save = save
        self._checkpoint_every = checkpoint_every
        self._epoch_start: RandomState | None = None
        self._resume_from: RandomState | None = None
        self._elapsed_before = 0.0
        self._began = time.perf_counter()
        self._diverged = False
        self._renamed = False

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up a run where ``checkpoint`` left it.

        Raises:
            ConfigError: it does not fit the model or the optimizer.
        """
        parts = self._parts
        try:
            parts.built.model.load_state_dict(checkpoint.model)
            parts.optimizer.load_state_dict(dict(checkpoint.optimizer))
            parts.stepper.restore(checkpoint.scaler)
        except (RuntimeError, ValueError, KeyError) as error:
            raise ConfigError(
                f"The checkpoint does not fit task {parts.task.name!r}: {_first_line(error)}. The "
                "task's model has changed since; go back to the code the run was started with, or "
                "start a new run without --resume."
            ) from error
        self.position = replace(checkpoint.position)
        self._saved = (replace(self.position), [dict(row) for row in checkpoint.rows])
        self._elapsed_before = self.position.elapsed_s
        self.rows = [dict(row) for row in checkpoint.rows]
        parts.meter.loss = RunningSum(self.position.loss_sum, self.position.batch)
        parts.meter.effect = RunningSum(self.position.effect_sum, self.position.effect_steps)
        now = RandomState.from_dict(checkpoint.now)
        if checkpoint.epoch_start is None:
            now.apply(parts.built.train_loader)
        else:
            self._epoch_start = RandomState.from_dict(checkpoint.epoch_start)
            self._resume_from = now

    @property
    def done(self) -> bool:
        """Whether the run has come to the end that was asked for, evaluation included."""
        position = self.position
        if position.epoch >= (self._parts.config.epochs or 0):
            return True
        return self._at_limit and (position.batch == 0 or len(self.rows) > position.epoch)

    def run(self, interrupt: Interrupt) -> Status:
        """Train until the end, or until ``interrupt`` is requested; every way out is saved."""
        self._began = time.perf_counter()
        if self.done:
            return "finished"
        del self.rows[self.position.epoch :]
        try:
            while not self.done:
                if interrupt.requested:
                    raise _StopRequestedError
                self._epoch(interrupt)
        except _StopRequestedError:
            self.save()
            return "interrupted"
        except WaitInterruptedError:  # in the middle of a step: what was saved last stands
            self.position, self.rows = replace(self._saved[0]), self._saved[1]
            return "interrupted"
        return "finished"

    def save(self) -> None:
        """Write a checkpoint now."""
        self._save(self.checkpoint())
        self._saved = (replace(self.position), list(self.rows))

    def checkpoint(self) -> Checkpoint:
        """Everything needed to go on from here."""
        parts, position = self._parts, self.position
        position.loss_sum = parts.meter.loss.total
        position.effect_sum = parts.meter.effect.total
        position.effect_steps = parts.meter.effect.count
        position.elapsed_s = self._elapsed_before + time.perf_counter() - self._began
        now, start = RandomState.of(parts.built.train_loader), self._epoch_start
        if position.batch == 0:
            now, start = start or now, None
        return Checkpoint(
            task=parts.task.name,
            config=parts.config.to_dict(),
            position=replace(position),
            rows=list(self.rows),
            model=parts.built.model.state_dict(),
            optimizer=parts.optimizer.state_dict(),
            scaler=parts.stepper.state(),
            now=now.to_dict(),
            epoch_start=None if start is None else start.to_dict(),
        )

    # -- one epoch -----------------------------------------------------------------------------

    def _epoch(self, interrupt: Interrupt) -> None:
        """Train one epoch, or the rest of one, or as much of it as ``max_steps`` allows."""
        self._parts.built.model.train()
        walk = self._walk(interrupt)
        while True:
            if self._at_limit:
                here = self.checkpoint()  # looking further draws from the generators
                if next(walk, _END) is _END:
                    break
                self._cut_short(here)
                return
            batch = next(walk, _END)
            if batch is _END:
                break
            stepped = self._train(batch)
            if interrupt.requested and not self._at_limit:
                raise _StopRequestedError
            every = self._checkpoint_every
            if every is not None and stepped and self.position.step % every == 0:
                self.save()
        self._end_epoch()

    def _walk(self, interrupt: Interrupt) -> Iterator[Any]:
        """The epoch's batches that are left, with the generators as they stood."""
        loader = self._parts.built.train_loader
        if self._epoch_start is None:
            self._epoch_start = RandomState.of(loader)
        now, self._resume_from = self._resume_from, None
        walk = batches(loader, skip=self.position.batch, start=self._epoch_start, now=now)
        return self._watched(walk, interrupt)

    def _watched(self, walk: Iterator[Any], interrupt: Interrupt) -> Iterator[Any]:
        loader = self._parts.built.train_loader
        while True:
            try:
                batch = next(walk)
            except StopIteration:
                return
            except Exception as error:
                # Ctrl-C in a terminal reaches the loader's worker processes too, which then die;
                # this process has drawn nothing for the batch that did not come.
                if interrupt.requested and getattr(loader, "num_workers", 0) > 0:
                    raise _StopRequestedError from error
                raise
            yield batch

    def _train(self, batch: Any) -> bool:
        """One batch; whether a step was taken."""
        parts, position = self._parts, self.position
        parts.optimizer.zero_grad(set_to_none=True)
        with parts.stepper.autocast():
            loss = parts.task.loss(parts.built.model, batch)
        stepped = parts.stepper.step(loss, position.step)
        parts.meter.loss.add(loss)
        position.step += stepped
        position.batch += 1
        done = BatchTrained(
            position.step, epoch=position.epoch + 1, batch=position.batch, loss=loss.detach()
        )
        parts.tell(done)
        return stepped

    def _end_epoch(self) -> None:
        position = self.position
        if position.batch == 0:
            raise ConfigError(
                f"The train_loader of task {self._parts.task.name!r} gave no batch. It must be an "
                "iterable that can be walked once per epoch, such as a DataLoader, and not empty."
            )
        row = self._row(self.checkpoint)
        self._warn_if_diverged(row)
        self.rows.append(row)
        position.epoch += 1
        position.batch = 0
        self._epoch_start = None
        self._parts.meter.reset()
        self.save()
        self._parts.tell(EpochEnded(position.step, epoch=position.epoch, metrics=row))

    def _cut_short(self, here: Checkpoint) -> None:
        """``max_steps`` fell into the middle of an epoch: judge the model, but keep the place."""
        self.rows.append(self._row(lambda: here))
        self._save(replace(here, rows=list(self.rows)))
        self._parts.tell(
            EpochEnded(self.position.step, epoch=self.position.epoch + 1, metrics=self.rows[-1])
        )

    def _row(self, here: Callable[[], Checkpoint]) -> Row:
        """The line of metrics.jsonl for the epoch as far as it has come.

        Where the task's evaluate() raises, ``here`` is saved: the epoch is trained, and perhaps
        paid for, and ``--resume`` has only to evaluate again.
        """
        parts, position = self._parts, self.position
        drawn = RandomState.of(parts.built.train_loader)
        try:
            metrics = self._kept_apart(_checked(parts.task, self._evaluate()))
        except Exception:
            drawn.apply(parts.built.train_loader)
            self._save(here())
            raise
        row: Row = {
            "epoch": position.epoch + 1,
            "step": position.step,
            "train_loss": parts.meter.loss.mean,
            "effect_size": parts.meter.effect_mean,
        }
        return row | metrics

    def _evaluate(self) -> Mapping[str, float]:
        model = self._parts.built.model
        model.eval()
        with torch.no_grad(), self._parts.stepper.autocast():
            return self._parts.built.evaluate(model)

    def _kept_apart(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """A task's numbers under names that are not the run's own.

        Not refused: the first of them are seen when an epoch has been trained and paid for.
        """
        names = {name: _free_name(name, metrics) for name in metrics}
        taken = [f"{name} is {free}" for name, free in names.items() if name != free]
        if taken and not self._renamed:
            self._renamed = True
            message = (
                f"What evaluate() of task {self._parts.task.name!r} returns has names of the run's "
                f"own columns ({', '.join(COLUMNS)}), so in this run {', '.join(taken)}."
            )
            logger.warning(message)
            self._parts.tell(Warned(self.position.step, message=message))
        return {names[name]: value for name, value in metrics.items()}

    def _warn_if_diverged(self, row: Row) -> None:
        if self._diverged or math.isfinite(row["train_loss"]):
            return
        self._diverged = True
        message = (
            f"The training loss of epoch {row['epoch']} is not finite ({row['train_loss']}): the "
            "run has diverged. Try a lower lr."
        )
        logger.warning(message)
        self._parts.tell(Warned(row["step"], message=message))

    @property
    def _at_limit(self) -> bool:
        limit = self._parts.config.max_steps
        return limit is not None and self.position.step >= limit


def check_metrics(task: Task) -> None:
    """Raise unless the metrics that ``task`` promises can stand beside the run's own numbers.

    Raises:
        ConfigError: with the names that cannot.
    """
    if taken := [name for name in task.metrics if _is_column(name)]:
        raise ConfigError(
            f"Task {task.name!r} promises the metrics {', '.join(taken)}, which are columns of the "
            f"run's own ({', '.join(COLUMNS)}). Give them other names, such as task_{taken[0]}, in "
            "Task.metrics and in what evaluate() returns."
        )


def _checked(task: Task, metrics: Mapping[str, float]) -> dict[str, float]:
    """The task's metrics as plain numbers.

    Raises:
        ConfigError: one that the task promises is not there, or one that is no number.
    """
    if not isinstance(metrics, Mapping):
        raise ConfigError(
            f"evaluate() of task {task.name!r} returned {metrics!r:.80}, not names and numbers. "
            'Return a dict such as {"loss": 0.5}.'
        )
    if missing := [name for name in task.metrics if name not in metrics]:
        raise ConfigError(
            f"Task {task.name!r} promises the metrics {', '.join(task.metrics)}, but its evaluate "
            f"did not return {', '.join(missing)}. Return them, or list in Task.metrics what it "
            "returns."
        )
    found = {}
    for name, value in metrics.items():
        try:
            # A tensor in a graph warns unless asked for its item; numpy's of one element have one.
            found[str(name)] = float(value.item() if hasattr(value, "item") else value)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ConfigError(
                f"evaluate() of task {task.name!r} returned {value!r:.80} for {name!r}, which is "
                "no number. Return a float, or leave it out."
            ) from error
    return found


def _is_column(name: str) -> bool:
    """Whether loggers, which show blanks for underscores, would take it for the run's own."""
    return name.replace(" ", "_") in COLUMNS


def _free_name(name: str, beside: Mapping[str, float]) -> str:
    free = name
    while _is_column(free) or (free != name and free in beside):
        free = f"task_{free}"
    return free


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
