"""Walking through a training loader so that the walk can be taken up in its middle.

A loader's position cannot be read from outside, but it can be reached again: put every generator
back to where it stood when the epoch began, walk past the batches that were trained, and go on.
That works for any iterable that draws its order and its augmentation from python's, numpy's or
torch's global generator or from a ``torch.Generator`` that the DataLoader or its sampler holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from qsgd_core.errors import ConfigError
from qsgd_core.training.loop import rng

HOLDERS = ("", "sampler", "batch_sampler", "batch_sampler.sampler")
"""Where below a DataLoader a ``generator`` may be."""

_END = object()


@dataclass(frozen=True)
class RandomState:
    """States of the global generators and of the loader's own.

    Attributes:
        world: as :func:`rng.capture` gives it.
        loader: where in :data:`HOLDERS` -> uint8 state tensor.
    """

    world: dict[str, Any]
    loader: dict[str, torch.Tensor]

    @classmethod
    def of(cls, loader: Iterable[Any]) -> RandomState:
        """The state right now."""
        own = {where: g.get_state() for where, g in _generators(loader).items()}
        return cls(rng.capture(), own)

    def apply(self, loader: Iterable[Any]) -> None:
        """Put every generator back."""
        for where, generator in _generators(loader).items():
            if where in self.loader:
                generator.set_state(self.loader[where])
        rng.restore(self.world)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; :meth:`from_dict` reads it back."""
        return {"world": self.world, "loader": self.loader}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RandomState:
        """Read the plain form."""
        return cls(data["world"], data["loader"])


def batches(
    loader: Iterable[Any], *, skip: int, start: RandomState, now: RandomState | None
) -> Iterator[Any]:
    """The batches of one epoch from number ``skip`` on, with the generators as they stood.

    Args:
        loader: the training data.
        skip: number of batches already trained in this epoch.
        start: generators at the epoch's start; applied when ``skip`` > 0.
        now: generators right after batch ``skip`` was trained; None when ``skip`` is 0.

    Raises:
        ConfigError: the loader has fewer batches than were already trained.
    """
    if skip:
        start.apply(loader)
    walk = iter(loader)
    for passed in range(skip):
        if next(walk, _END) is _END:
            raise ConfigError(
                f"The checkpoint is {skip} batches into an epoch, but the training data now has "
                f"only {passed}. Resume with the data the run was started on."
            )
    if now is not None:
        now.apply(loader)
    return walk


def repeats_workers(loader: Iterable[Any]) -> bool:
    """Whether a resumed walk draws what the first one drew in worker processes too.

    Persistent workers carry their generators from epoch to epoch, where nobody can read them.
    """
    return not getattr(loader, "persistent_workers", False)


def _generators(loader: Iterable[Any]) -> dict[str, torch.Generator]:
    found: dict[str, torch.Generator] = {}
    for where in HOLDERS:
        holder: Any = loader
        for part in where.split(".") if where else ():
            holder = getattr(holder, part, None)
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator) and generator not in found.values():
            found[where] = generator
    return found
