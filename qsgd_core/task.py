"""What ``qsgd train`` trains: a model, its data, its loss and how it is judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TaskDefaults:
    """Settings a task is meant to be run with; the command line can override each."""

    epochs: int = 10
    lr: float = 1e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True)
class Built:
    """A task made concrete for one seed.

    Attributes:
        model: on the device it will be trained on.
        train_loader: an iterable of batches, walked once per epoch; a DataLoader that shuffles
            by torch's global generator or by a ``generator`` of its own can be resumed in
            mid-epoch to the bit.
        evaluate: model -> {metric: value}; every name in :attr:`Task.metrics` must be there. Called
            in eval mode and without gradients.
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
