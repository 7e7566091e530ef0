"""What happened, as data. Observers get these; they never influence a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from qsgd_core.sources import SourceName


@dataclass(frozen=True)
class Event:
    """Base of every event; ``step`` is the number of optimizer steps taken so far."""

    step: int


@dataclass(frozen=True)
class RunStarted(Event):
    """A training run begins or goes on.

    Attributes:
        config: the run's configuration, plain JSON values.
        run_dir: its folder; None for library users.
        total_steps: optimizer steps the run will have taken at its end; None if unknown.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    run_dir: str | None = None
    total_steps: int | None = None


@dataclass(frozen=True)
class StepTaken(Event):
    """An optimizer step was taken. Values stay on the device: reading one synchronises.

    Attributes:
        effect_size: 0-dim tensor, RMS(lr·λ·Q)/RMS(base step) of this step; None if no term, or
            if nobody knows what the base optimizer made of it.
        source: where s came from, see :data:`qsgd_core.sources.SourceName`.
    """

    effect_size: Any = None
    source: SourceName = "exact"


@dataclass(frozen=True)
class BatchTrained(Event):
    """A training run has trained one batch; for library users without a run there is none.

    Attributes:
        epoch: number of the epoch that is going on, from 1.
        batch: number of the batch in it, from 1.
        loss: 0-dim tensor, the batch's training loss. Reading it synchronises.
    """

    epoch: int = 0
    batch: int = 0
    loss: Any = None


@dataclass(frozen=True)
class EpochEnded(Event):
    """An epoch of a training run ended; ``metrics`` is its line of metrics.jsonl."""

    epoch: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunEnded(Event):
    """A run ended; ``status`` is ``finished``, ``interrupted`` or ``failed``."""

    status: str = "finished"
    summary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Warned(Event):
    """Something the user should know, said once."""

    message: str = ""


@dataclass(frozen=True)
class ScheduleChanged(Event):
    """Something changed in the scheduler of a run on a paid backend.

    Attributes:
        what: planned, asked, answered, applied, fell back, denied, failed, late, partial,
            recalibrated, outage, reached, overrun, stuck, audit, stopped or left.
        message: the same for people.
        status: where the run stands, plain JSON values: see
            :meth:`qsgd_core.schedule.trainer.scheduler.Scheduler.status`.
    """

    what: str = ""
    message: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)


Observer: TypeAlias = Callable[[Event], None]
