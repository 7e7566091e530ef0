"""What a run started from and saw first: shows that the arms of a seed are paired, to the bit.

A task is watched from outside: the weights that it built, and before each of the first batches the
batch and the state of the generator that dropout draws from. Arms of one seed must agree in all of
it, whatever their term does. That is not so if a task draws from a generator that nobody seeds, or
if a perturbation draws from torch's own.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qsgd_core import files
from qsgd_core.measure.recording import fingerprint
from qsgd_core.task import Built, Task

NAME = "witness.json"
BATCHES = 8
"""So many are looked at; a generator that differs once differs ever after."""


@dataclass(frozen=True)
class Witness:
    """Digests of one run.

    Attributes:
        weights: of the initial weights and buffers.
        batches: of the first batches, in order.
        draws: of the states of torch's generators before each of them.
    """

    weights: str
    batches: tuple[str, ...]
    draws: tuple[str, ...]

    def agrees(self, other: Witness) -> bool:
        """Whether both saw the same, as far as both looked."""
        return self.weights == other.weights and all(
            a == b
            for mine, theirs in ((self.batches, other.batches), (self.draws, other.draws))
            for a, b in zip(mine, theirs, strict=False)
        )


def watched(task: Task, tell: Callable[[Witness], None]) -> Task:
    """A copy of ``task`` that tells what it builds and sees, after each of the first batches.

    Only for a run from its start: a resumed one begins with other weights and batches.
    """
    weights = ""
    batches: list[str] = []
    draws: list[str] = []
    seen = copy.copy(task)

    def build(seed: int) -> Built:
        nonlocal weights
        built = task.build(seed)
        weights = fingerprint(built.model.state_dict().values())
        return built

    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        if len(batches) < BATCHES:
            batches.append(digest(batch))
            draws.append(_generators())
            tell(Witness(weights, tuple(batches), tuple(draws)))
        return task.loss(model, batch)

    # On the instance, so that whatever else its class defines is still there.
    vars(seen).update(build=build, loss=loss)
    return seen


def write(run: Path, witness: Witness) -> None:
    """Write witness.json into a run folder."""
    files.write_json(run / NAME, vars(witness))


def read(run: Path) -> Witness | None:
    """Read it; None where there is none."""
    try:
        data = json.loads((run / NAME).read_text(encoding="utf-8"))
        return Witness(data["weights"], tuple(data["batches"]), tuple(data["draws"]))
    except (OSError, ValueError, KeyError):
        return None


def unpaired(witnesses: Mapping[str, Witness | None]) -> list[str]:
    """Names of those that do not agree with the first, of one seed."""
    known = [(name, found) for name, found in witnesses.items() if found is not None]
    return [name for name, found in known[1:] if not found.agrees(known[0][1])]


def digest(batch: Any) -> str:
    """SHA-256 of everything in a batch: tensors, numbers and text, in lists, tuples and mappings.

    Of an object that is none of these, its type alone.
    """
    sha = hashlib.sha256()
    for leaf in _leaves(batch):
        sha.update(leaf.encode())
    return sha.hexdigest()


def _leaves(value: Any) -> Iterable[str]:
    if isinstance(value, torch.Tensor):
        yield fingerprint([value])
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield f"{key}:"
            yield from _leaves(value[key])
    elif isinstance(value, (list, tuple)):
        yield f"{len(value)}["
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, (str, bytes, int, float, bool, type(None))):
        yield f"{value!r};"
    else:
        yield f"{type(value).__name__};"


def _generators() -> str:
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    return fingerprint(states)
