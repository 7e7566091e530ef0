"""A refresh of some of the blocks, in turns, when all of them are too many. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from qsgd_core.circuits import CircuitBatch, Workload
from qsgd_core.errors import CapabilityError, ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BLOCKS = 10_000
"""More blocks than this in one refresh are taken for a mistake."""


def cycle_length(n_rows: Sequence[int], per_refresh: int) -> int:
    """Refreshes of at most ``per_refresh`` rows that it takes to measure every row once.

    Args:
        n_rows: rows of each batch.
        per_refresh: at least 1.

    Raises:
        ConfigError: ``per_refresh`` is less.
    """
    if per_refresh < 1:
        raise ConfigError(f"A refresh measures at least one block; asked for {per_refresh}.")
    return max(1, -(-sum(n_rows) // per_refresh))


def rotation(n_rows: Sequence[int], per_refresh: int, turn: int) -> list[NDArray[np.intp]]:
    """The rows of each batch that refresh number ``turn`` measures.

    Each cycle of :func:`cycle_length` turns measures each row once. The turns of a cycle are of the
    same size to within one row, and each takes its rows from all over the workload: rows that
    follow one another, such as those of one tensor, are measured in different turns.

    Args:
        n_rows: rows of each batch.
        per_refresh: rows of one refresh, at most; at least 1.
        turn: 0, 1, 2, …

    Returns:
        intp (b,) per batch, ascending; empty where the turn has none of that batch.

    Raises:
        ConfigError: ``per_refresh`` is less than 1.
    """
    length = cycle_length(n_rows, per_refresh)
    rows = np.arange(turn % length, sum(n_rows), length, dtype=np.intp)
    ends = np.cumsum(n_rows)
    parts = np.split(rows, np.searchsorted(rows, ends[:-1]))
    return [part - (end - n) for part, end, n in zip(parts, ends, n_rows, strict=True)]


def take(work: Workload, rows: Sequence[NDArray[np.intp]]) -> Workload:
    """The given rows of each batch; a batch of which none is taken is left out.

    Args:
        work: the whole workload.
        rows: intp (b,) per batch.

    Raises:
        ConfigError: no row at all.
    """
    return Workload(
        tuple(
            CircuitBatch(batch.circuit, batch.angles[index], batch.observables)
            for batch, index in zip(work.batches, rows, strict=True)
            if len(index)
        )
    )


def scatter(
    values: Iterable[NDArray[np.float64]],
    rows: Sequence[NDArray[np.intp]],
    *,
    into: Sequence[NDArray[np.float64]],
) -> list[NDArray[np.float64]]:
    """``into`` with ``values``, of the batches that :func:`take` gave, in the places of ``rows``.

    Args:
        values: float64 (b, k) per batch of which a row was taken.
        rows: as given to :func:`take`.
        into: float64 (B, k) per batch of the whole workload; left as it is.
    """
    taken = iter(values)
    whole = [array.copy() for array in into]
    for array, index in zip(whole, rows, strict=True):
        if len(index):
            array[index] = next(taken)
    return whole


def require_affordable_size(n_blocks: int, price: str | None) -> None:
    """Refuse a refresh of more than :data:`MAX_BLOCKS` blocks, and say what it would cost.

    Args:
        n_blocks: blocks that one refresh would measure.
        price: what it would cost, in words such as ``"$512.30"``; None is unknown.

    Raises:
        CapabilityError: they are too many.
    """
    if n_blocks <= MAX_BLOCKS:
        return
    cost = "What it would cost is not known." if price is None else f"It would cost {price}."
    raise CapabilityError(
        f"One refresh would measure {n_blocks:,} blocks, and {MAX_BLOCKS:,} is the most.",
        [cost, "Use scope='tensor', one block for each tensor, or scope='model', one in all."],
    )
