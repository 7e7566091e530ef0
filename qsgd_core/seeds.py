"""Randomness: seeds derived by hash, and other people's code kept off the global generators."""

from __future__ import annotations

import hashlib
import random
import sys
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def derive_seed(*parts: int | str) -> int:
    """A seed in 0 … 2**63 - 1 from the SHA-256 of the parts, the same in every process.

    Never derive a seed by adding a step to a base: simulators that count rows up from a seed
    (Aer: row i uses seed + 2113·i) would then repeat each other's draws.
    """
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@contextmanager
def generators_put_back(seed: int | None = None) -> Iterator[None]:
    """Put the global generators of python, numpy and torch back to where they are now.

    Around code of others: scikit-learn, which PennyLane brings along, draws from python's
    ``random`` while it is imported, and a training run must not depend on what was imported when.

    Args:
        seed: what they are seeded with for the time being, so that what draws from them all the
            same draws anew at each call; None leaves them running.
    """
    put_back = [_python(), *_numpy(), *_torch()]
    if seed is not None:
        _seed_all(seed)
    try:
        yield
    finally:
        for undo in put_back:
            undo()


def _python() -> Callable[[], None]:
    state = random.getstate()
    return lambda: random.setstate(state)


def _numpy() -> Iterator[Callable[[], None]]:
    if (numpy := sys.modules.get("numpy.random")) is not None:  # else nobody has seeded it
        state = numpy.get_state()
        yield lambda: numpy.set_state(state)


def _torch() -> Iterator[Callable[[], None]]:
    torch = sys.modules.get("torch")
    if torch is None:
        return
    state = torch.get_rng_state()
    yield lambda: torch.set_rng_state(state)
    if torch.cuda.is_initialized():
        states = torch.cuda.get_rng_state_all()
        yield lambda: torch.cuda.set_rng_state_all(states)


def _seed_all(seed: int) -> None:
    """What was imported at the time; torch's CPU generator only, which costs no synchronisation."""
    random.seed(seed)
    if (numpy := sys.modules.get("numpy.random")) is not None:
        numpy.seed(seed % 2**32)
    if (torch := sys.modules.get("torch")) is not None:
        torch.default_generator.manual_seed(seed)


class RunSeed:
    """What the term of one optimizer draws from.

    Optimizers of one training (generator and critic; one optimizer a parameter) must not draw the
    same. So where nobody gave a seed, each that is made while others wait for their first step
    gets a place behind them, in the order in which the program makes them: the same in every
    process and on every rank.

    Args:
        given: the user's; None takes 0 and a place.
        owns: what the optimizer steps, by identity: one made anew over the same takes the place of
            the one before.

    Attributes:
        place: 0 for the first optimizer; a checkpoint brings its own.
    """

    def __init__(self, given: int | None, owns: Iterable[int] = ()) -> None:
        self.given = given
        self.waits = True
        self._owns = frozenset(owns)
        for before in list(_seeds):
            before.waits &= self._owns.isdisjoint(before._owns)
        others = {s.place for s in _seeds if s.waits}
        free = (k for k in count() if k not in others)
        self.place: int = next(free) if given is None else 0
        if given is None:
            _seeds.add(self)

    @property
    def value(self) -> int:
        """0 … 2**63 - 1, or what was given."""
        if self.given is not None:
            return self.given
        return derive_seed("optimizer", self.place) if self.place else 0


_seeds: WeakSet[RunSeed] = WeakSet()
