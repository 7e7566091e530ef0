"""A run's state in one file, written atomically and read without executing anything."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from qsgd_core import files
from qsgd_core.errors import ConfigError
from qsgd_core.training.config import MAY_CHANGE, TrainConfig

FORMAT = 1


@dataclass
class Position:
    """How far a run has come.

    Attributes:
        epoch: epochs finished.
        batch: batches trained in the epoch that is going on; 0 between epochs.
        step: optimizer steps taken; a GradScaler leaves some batches without one.
        loss_sum: sum of the training losses of those ``batch`` batches, in order.
        effect_sum: sum of the effect size over all steps of the finished epochs.
        effect_steps: number of those steps that had a term.
        elapsed_s: seconds spent training, over all sessions.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    effect_sum: float = 0.0
    effect_steps: int = 0
    elapsed_s: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """Everything needed to go on.

    Attributes:
        task: the task's name.
        config: the run's full configuration.
        position: how far it has come.
        rows: lines of metrics.jsonl up to here.
        model: its ``state_dict()``.
        optimizer: its ``state_dict()``, which carries the term's counters.
        now: random states at this point.
        epoch_start: random states where the unfinished epoch began; None between epochs.
        scaler: state of the GradScaler; None without one.
    """

    task: str
    config: dict[str, Any]
    position: Position
    rows: list[dict[str, Any]]
    model: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    now: dict[str, Any]
    epoch_start: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None
    format: int = field(default=FORMAT)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``path``; a crash leaves the old file or the new one."""
    data = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    data["position"] = asdict(checkpoint.position)
    files.write_atomically(path, lambda file: torch.save(data, file))


def load(path: Path) -> Checkpoint:
    """Read what :func:`save` wrote, with ``weights_only=True``, on the CPU.

    Raises:
        ConfigError: there is no checkpoint, it is damaged, or it is of another format.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        data = torch.load(path, map_location="cpu", weights_only=True)
        if data["format"] != FORMAT:
            raise ConfigError(
                f"{path} has format {data['format']}; this version of qsgd-core reads format "
                f"{FORMAT}. Resume the run with the version that wrote it."
            )
        data["position"] = Position(**data["position"])
        return Checkpoint(**data)
    except FileNotFoundError:
        raise ConfigError(
            f"{path.parent} has no checkpoint: the run ended before its first one was written. "
            "Start it again without --resume."
        ) from None
    except ConfigError:
        raise
    except Exception as error:
        first_line = next(iter(str(error).splitlines()), "")
        raise ConfigError(
            f"{path} is damaged and cannot be loaded ({type(error).__name__}: {first_line}). "
            "Restore it from a copy, or start the run again without --resume. Nothing was changed."
        ) from error


def check(checkpoint: Checkpoint, task: str, config: TrainConfig, path: Path) -> None:
    """Raise unless ``checkpoint`` belongs to this run.

    Raises:
        ConfigError: naming each difference.
    """
    recorded = {"task": checkpoint.task, **checkpoint.config}
    expected = {"task": task, **config.to_dict()}
    different = [
        f"{name} {recorded.get(name)!r} instead of {value!r}"
        for name, value in expected.items()
        if name not in MAY_CHANGE and recorded.get(name) != value
    ]
    if different:
        raise ConfigError(
            f"{path} is a checkpoint of another run: it has {', '.join(different)}. Put this run's "
            "own checkpoint back, or start a new run without --resume. Nothing was changed."
        )
