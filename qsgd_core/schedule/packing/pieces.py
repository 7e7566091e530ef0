"""A refresh as jobs, and their results as one, whole or with rows missing. Pure.

:func:`divide` makes :class:`Piece` records of a packed workload, one per job. A piece says which
blocks it measures, so each result is of use on its own; :func:`gather` puts together those that
came. :func:`split` and :func:`join` do the same for results that are all there.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import CircuitBatch, Workload
from qsgd_core.errors import CapabilityError
from qsgd_core.jobs import Result
from qsgd_core.schedule.packing.tiles import Packed, Places, pack
from qsgd_core.schedule.packing.turns import cycle_length, rotation, scatter, take

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Piece:
    """What one job of a refresh measures.

    Attributes:
        packed: ``packed.work`` is submitted; ``packed.logical`` has this job's blocks only.
        rows: intp (b,) per batch of the whole refresh: which of its rows this job measures.
    """

    packed: Packed
    rows: tuple[NDArray[np.intp], ...]


def divide(packed: Packed, has: Capabilities, *, shots: int) -> list[Piece]:
    """One piece per job that ``packed`` takes; together they hold each row once.

    Raises:
        CapabilityError: not even one row fits.
    """
    pieces = []
    start = 0
    for work in split(packed.work, has, shots=shots):
        stop = start + work.n_rows
        rows = tuple(
            np.flatnonzero((start <= place.row) & (place.row < stop)) for place in packed.places
        )
        places = tuple(
            Places(place.row[index] - start, place.site[index], place.column[index])
            for place, index in zip(packed.places, rows, strict=True)
            if len(index)
        )
        pieces.append(Piece(Packed(work, take(packed.logical, rows), places), rows))
        start = stop
    return pieces


def gather(
    work: Workload, pieces: Sequence[Piece], results: Sequence[Result | None]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.bool_]]]:
    """What the jobs of a refresh have measured so far.

    Args:
        work: the whole logical workload.
        pieces: its jobs.
        results: of each job, as it came; None where it failed or is not there yet.

    Returns:
        Per batch, ⟨observables⟩ float64 (B, n_observables), NaN where nothing was measured, and
        bool (B,), true where something was.

    Raises:
        ResultCorruptError: a result does not fit its job.
    """
    z = [np.full((b.n_rows, len(b.observables)), np.nan) for b in work.batches]
    measured = [np.zeros(b.n_rows, dtype=np.bool_) for b in work.batches]
    for piece, result in zip(pieces, results, strict=True):
        if result is None:
            continue
        found = piece.packed.unpack(result).expectations(piece.packed.logical)
        z = scatter(found, piece.rows, into=z)
        for mask, index in zip(measured, piece.rows, strict=True):
            mask[index] = True
    return z, measured


def sites_in_turns(work: Workload, *, tiles: int, per_refresh: int) -> tuple[NDArray[np.intp], ...]:
    """On which sites each row runs when it is its turn; the same ones in every cycle.

    Args:
        work: the whole workload.
        tiles: as given to :func:`~qsgd_core.schedule.packing.tiles.pack`.
        per_refresh: as given to :func:`~qsgd_core.schedule.packing.turns.rotation`.

    Returns:
        intp (B, n) per batch.
    """
    n_rows = [batch.n_rows for batch in work.batches]
    sites = tuple(np.empty((b.n_rows, b.circuit.n_qubits), dtype=np.intp) for b in work.batches)
    for turn in range(cycle_length(n_rows, per_refresh)):
        rows = rotation(n_rows, per_refresh, turn)
        found = iter(pack(take(work, rows), tiles=tiles, width=work.n_qubits).sites)
        for whole, index in zip(sites, rows, strict=True):
            if len(index):
                whole[index] = next(found)
    return sites


def split(work: Workload, has: Capabilities, *, shots: int) -> list[Workload]:
    """The workload as a list of workloads that each fit one job, rows in order.

    Raises:
        CapabilityError: not even one row fits.
    """
    parts: list[list[CircuitBatch]] = [[]]
    rows = qubits = 0
    for batch in work.batches:
        width = batch.circuit.n_qubits
        start = 0
        while start < batch.n_rows:
            room = _room(has, shots, width, rows=rows, qubits=qubits)
            if room < 1 and not parts[-1]:
                raise CapabilityError(
                    "Not even one circuit fits a job.",
                    [f"{shots} shots were asked for; a job takes {has.max_executions}."],
                )
            if room < 1:
                parts.append([])
                rows = qubits = 0
                continue
            stop = min(batch.n_rows, start + room)
            parts[-1].append(
                CircuitBatch(batch.circuit, batch.angles[start:stop], batch.observables)
            )
            rows += stop - start
            qubits += width * (stop - start)
            start = stop
    return [Workload(tuple(part)) for part in parts]


def _room(has: Capabilities, shots: int, width: int, *, rows: int, qubits: int) -> int:
    """How many more rows of ``width`` qubits a job takes that has so many rows and qubits."""
    most = [sys.maxsize]
    if has.max_rows is not None:
        most.append(has.max_rows - rows)
    if has.max_executions is not None:
        most.append(has.max_executions // shots - rows)
    if has.max_total_qubits is not None:
        # A row that runs alone may be wider than the register that rows share.
        most.append(max((has.max_total_qubits - qubits) // width, 1 - rows))
    return min(most)
