"""What ``qsgd train`` trains: a model, its data, its loss and how it is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qsgd_core.errors import ConfigError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TaskDefaults:
    """Settings a task is meant to be run with; a TrainConfig can override all but betas and eps.

    Attributes:
        lr_schedule: ``constant``, or ``linear``: down to 0 at the run's last step.
        warmup: share of the run's steps in which the learning rate first rises from 0.
        clip_norm: largest norm that a step's gradient may have, over all parameters; 0 for any.
        precision: ``float32``, or ``float16``: mixed, by torch's autocast and GradScaler.
    """

    epochs: int = 10
    lr: float = 1e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    lr_schedule: str = "constant"
    warmup: float = 0.0
    clip_norm: float = 0.0
    precision: str = "float32"


@dataclass(frozen=True)
class Built:
    """A task made concrete for one seed.

    Attributes:
        model: on the device it will be trained on.
        train_loader: an iterable of batches, walked once per epoch; a DataLoader that shuffles
            by torch's global generator or by a ``generator`` of its own can be resumed in
            mid-epoch to the bit.
        evaluate: model -> {metric: value}; every name in :attr:`Task.metrics` must be there, and
            further ones may be. A run's own columns are epoch, step, train_loss and effect_size:
            what has one of these names is called task_… in the run. Called in eval mode and without
            gradients.
    """

    model: torch.nn.Module
    train_loader: Iterable[Any]
    evaluate: Callable[[torch.nn.Module], Mapping[str, float]]


class Task(ABC):
    """A learning problem. Subclass it, or return one from ``make_task()`` in a script.

    Attributes:
        name: as shown in reports.
        summary: one line for listings.
        metrics: names of what :attr:`Built.evaluate` returns, the one to judge by first.
        defaults: the settings it is meant to be run with.
    """

    name: str
    summary: str = ""
    metrics: tuple[str, ...] = ("accuracy", "loss")
    defaults: TaskDefaults = TaskDefaults()

    @abstractmethod
    def build(self, seed: int) -> Built:
        """Model, data and evaluation of one seed: the same seed gives the same bits.

        The caller has seeded torch, numpy and random with ``seed`` just before.
        """

    @abstractmethod
    def loss(self, model: torch.nn.Module, batch: Any) -> torch.Tensor:
        """The training loss of one batch: a 0-dim tensor to call ``backward()`` on."""

    def with_data(self, folder: Path) -> Task:
        """The same task with its data in ``folder``, which exists: ``--data`` of ``qsgd``.

        Raises:
            ConfigError: it takes none, or what it needs is not there.
        """
        raise ConfigError(
            f"Task {self.name!r} brings its own data and takes no --data {folder}. Leave it out; a "
            "task of yours takes a folder by a method with_data(folder) that returns a Task."
        )

    def check(self) -> Sequence[str]:
        """Look at everything that :meth:`build` needs and that can be seen without the weights.

        Called before anything is trained or paid for, once for many runs.

        Returns:
            What whoever reads a result must know about it, a sentence each.

        Raises:
            ConfigError: :meth:`build` would fail, for any seed.
        """
        return ()

    def identity(self) -> Mapping[str, Any]:
        """What was chosen about the task beside its seed, as JSON values: part of a run's identity.

        A run is only resumed, replayed or compared with a task of the same identity.
        """
        return {}

    def as_recorded(self, identity: Mapping[str, Any]) -> Task:
        """The same task as it was when a run recorded ``identity``, perhaps in another process.

        Choices that nobody made here (by an argument, in the environment) follow the record.

        Raises:
            ConfigError: it was chosen otherwise here, or cannot be had, with each difference.
        """
        if different := differences(identity, self.identity()):
            raise ConfigError(
                f"The run was recorded with another task {self.name!r}: {'; '.join(different)}. "
                "Go back to what the run was started with, or start a new run."
            )
        return self


def differences(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Where two identities differ: ``model 'a' instead of 'b'``."""
    return [
        f"{name} {found.get(name)!r} instead of {recorded.get(name)!r}"
        for name in sorted(recorded.keys() | found.keys())
        if found.get(name) != recorded.get(name)
    ]
