"""Blocks side by side: a workload as one with fewer, wider circuits, and its result back. Pure.

A job's price counts circuits and shots, not qubits. So one wide circuit carries several blocks,
each on qubits of its own, a *tile*:

    register position   0 1 2 3 | 4 5 6 7 | 8 9 10 11        tiles=3, width=4
    wide row 0          block 0 | block 1 | block 2
    wide row 1          block 3 | block 4 | idle

Every circuit of a packed workload has the same number of qubits, tiles × width, whatever block is
in it. A backend that pins the layout of a width, as QSGD's adapters do, then puts register position
i on one physical qubit in every batch, job and refresh of a run: that position is a *site*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Slot, Workload, ZString
from qsgd_core.errors import ConfigError, ResultCorruptError
from qsgd_core.jobs import Bits, Cost, Expectations, Part, Quote, Result

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qsgd_core.capabilities import Capabilities

Kind: TypeAlias = tuple[Circuit, tuple[ZString, ...]]
"""What rows must share to be rows of one batch."""


@dataclass(frozen=True, eq=False)
class Places:
    """Where the rows of one logical batch are in a packed workload.

    Attributes:
        row: intp (B,), row of the packed workload, counted through all its batches.
        site: intp (B,), register position of the block's qubit 0.
        column: intp (B,), the block's first observable among those of that row.
    """

    row: NDArray[np.intp]
    site: NDArray[np.intp]
    column: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Packed:
    """A workload as it is submitted, and how to read its result. Made by :func:`pack`.

    Attributes:
        work: what is submitted; all its circuits have the same number of qubits.
        logical: what was asked for.
        places: one per logical batch.
    """

    work: Workload
    logical: Workload
    places: tuple[Places, ...]

    @cached_property
    def sites(self) -> tuple[NDArray[np.intp], ...]:
        """intp (B, n) per logical batch: the register position of each qubit of each row."""
        return tuple(
            place.site[:, None] + np.arange(batch.circuit.n_qubits, dtype=np.intp)
            for place, batch in zip(self.places, self.logical.batches, strict=True)
        )

    def unpack(self, result: Result) -> Result:
        """The result of :attr:`logical` from that of :attr:`work`; all but the parts is kept.

        ``physical_qubits`` stays that of the register: entry i belongs to site i.

        Raises:
            ResultCorruptError: the parts do not fit :attr:`work`.
        """
        return replace(result, parts=self._parts(result))

    def _parts(self, result: Result) -> tuple[Part, ...]:
        bits = [p.values for p in result.parts if isinstance(p, Bits)]
        values = [p.values for p in result.parts if isinstance(p, Expectations)]
        if bits and not values:
            return self._bits(bits)
        if values and not bits:
            return self._expectations(values)
        raise ResultCorruptError(
            f"A result needs bits for all batches, or expectations for all; found {len(bits)} with "
            f"bits and {len(values)} with expectations."
        )

    def _bits(self, values: list[NDArray[np.uint8]]) -> tuple[Part, ...]:
        shots = values[0].shape[1] if values[0].ndim > 1 else 0
        _require(values, [(b.n_rows, shots, b.circuit.n_qubits) for b in self.work.batches])
        rows = np.concatenate(values)
        return tuple(
            Bits(np.ascontiguousarray(rows[place.row[:, None], :, sites].transpose(0, 2, 1)))
            for place, sites in zip(self.places, self.sites, strict=True)
        )

    def _expectations(self, values: list[NDArray[np.float64]]) -> tuple[Part, ...]:
        _require(values, [(b.n_rows, len(b.observables)) for b in self.work.batches])
        flat = np.concatenate([v.ravel() for v in values])
        lengths = np.repeat([v.shape[1] for v in values], [len(v) for v in values])
        start = np.cumsum(lengths) - lengths
        return tuple(
            Expectations(
                flat[(start[place.row] + place.column)[:, None] + np.arange(len(batch.observables))]
            )
            for place, batch in zip(self.places, self.logical.batches, strict=True)
        )


def pack(work: Workload, *, tiles: int = 1, width: int | None = None) -> Packed:
    """``work`` with up to ``tiles`` blocks side by side in each circuit.

    Rows of equal circuits and observables are put together, then laid into tiles in order; where
    one kind ends and the next begins, both share a row. So there are ceil(rows / tiles) rows in
    all. No row runs that nobody asked for: tiles that are left over in a kind's last row are the
    next kind's, and in the last row of all they idle, as do the qubits of a tile that a narrower
    block leaves free.

    The same arguments give the same packed workload in any process. With one tile, and no block
    narrower than it, that is ``work`` itself.

    Args:
        work: blocks of any circuits.
        tiles: blocks in one circuit, at most; see :func:`tiles_that_fit`.
        width: qubits of a tile; None for the widest block's. Whoever packs a part of a run's blocks
            gives the width of all, so that the register, and with it the layout, stays the same.

    Raises:
        ConfigError: no tile, or a block wider than ``width``.
    """
    width = work.n_qubits if width is None else width
    if tiles < 1 or width < work.n_qubits:
        raise ConfigError(
            f"Blocks of up to {work.n_qubits} qubits need at least one tile that wide; asked for "
            f"{tiles} tile(s) of {width} qubits."
        )
    if tiles == 1 and all(b.circuit.n_qubits == width for b in work.batches):
        return Packed(work, work, _as_they_are(work))
    # Two batches of kind A (2 and 3 rows) around one of kind B (2 rows), in 3 tiles:
    #     asked for    A0 A1 | B0 B1 | A2 A3 A4
    #     by kind      A0 A1 A2 A3 A4 B0 B1          row i goes to wide row i // 3, tile i % 3
    #     patterns     (A A A) (A A B) (B)           equal neighbours make one batch
    same: dict[Kind, list[int]] = {}
    for index, batch in enumerate(work.batches):
        same.setdefault((batch.circuit, batch.observables), []).append(index)
    kinds = list(same)
    angles = [np.concatenate([work.batches[i].angles for i in same[kind]]) for kind in kinds]
    begins = _starts([len(a) for a in angles])
    kind_of = np.repeat(np.arange(len(kinds)), [len(a) for a in angles]).tolist()

    batches: list[CircuitBatch] = []
    columns: list[NDArray[np.intp]] = []
    row = 0
    patterns = [tuple(kind_of[at : at + tiles]) for at in range(0, work.n_rows, tiles)]
    for pattern, alike in groupby(patterns):
        rows = row + np.arange(len(list(alike)))
        row += len(rows)
        circuit, observables = _side_by_side(tuple(kinds[k] for k in pattern), tiles, width)
        blocks = [angles[k][rows * tiles + tile - begins[k]] for tile, k in enumerate(pattern)]
        batches.append(CircuitBatch(circuit, np.concatenate(blocks, axis=1), observables))
        columns.append(np.tile(_starts([len(kinds[k][1]) for k in pattern]), len(rows)))

    column = np.concatenate(columns)
    order = [index for kind in kinds for index in same[kind]]
    starts = _starts([work.batches[index].n_rows for index in order])
    places = {}
    for index, start in zip(order, starts, strict=True):
        at = start + np.arange(work.batches[index].n_rows, dtype=np.intp)
        places[index] = Places(at // tiles, at % tiles * width, column[at])
    in_order = tuple(places[index] for index in range(len(work.batches)))
    return Packed(Workload(tuple(batches)), work, in_order)


def tiles_that_fit(work: Workload, has: Capabilities) -> int:
    """How many of the widest block a device takes side by side: 1 … the number of blocks.

    ``has`` may be of a device that takes not even one: that is for :meth:`Capabilities.require`.
    """
    most = [work.n_rows]
    # Rows that share a register do so within max_total_qubits, and so do the tiles of one row.
    for limit in (has.max_qubits, has.max_total_qubits):
        if limit is not None:
            most.append(limit // work.n_qubits)
    return max(1, min(most))


def cheaper(tiled: Sequence[Quote], plain: Sequence[Quote]) -> bool:
    """Whether the jobs of ``tiled`` cost less at worst than those of ``plain``.

    Dollars decide; where they are unknown or equal, as on a free plan, QPU seconds; then shots.

    Args:
        tiled: quotes of all the jobs of one way to run a refresh.
        plain: those of another.
    """
    totals = [Cost.total(q.worst for q in quotes) for quotes in (tiled, plain)]
    for unit in ("usd", "qpu_s", "shots"):
        one, other = (getattr(total, unit) for total in totals)
        if one is not None and other is not None and one != other:
            return bool(one < other)
    return False


def _as_they_are(work: Workload) -> tuple[Places, ...]:
    places = []
    for start, batch in zip(_starts([b.n_rows for b in work.batches]), work.batches, strict=True):
        zero = np.zeros(batch.n_rows, dtype=np.intp)
        places.append(Places(start + np.arange(batch.n_rows, dtype=np.intp), zero, zero))
    return tuple(places)


@lru_cache(maxsize=64)
def _side_by_side(
    kinds: tuple[Kind, ...], tiles: int, width: int
) -> tuple[Circuit, tuple[ZString, ...]]:
    """The wide circuit, one kind in each tile, slots and observables in the tiles' order."""
    gates: list[Gate] = []
    observables: list[ZString] = []
    slots = 0
    for tile, (circuit, strings) in enumerate(kinds):
        site = tile * width
        for gate in circuit.gates:
            angle = gate.angle
            if isinstance(angle, Slot):
                angle = Slot(slots + angle.index)
            gates.append(Gate(gate.name, tuple(site + q for q in gate.qubits), angle))
        observables += [tuple(site + q for q in string) for string in strings]
        slots += circuit.n_slots
    return Circuit(tiles * width, tuple(gates)), tuple(observables)


def _starts(lengths: Sequence[int]) -> NDArray[np.intp]:
    """Where each of several pieces begins when they are put one after another."""
    return np.cumsum([0, *lengths[:-1]], dtype=np.intp)


def _require(found: Sequence[NDArray[np.generic]], shapes: list[tuple[int, ...]]) -> None:
    if [a.shape for a in found] != shapes:
        raise ResultCorruptError(
            f"Batches of shapes {shapes} got results of shapes {[a.shape for a in found]}."
        )
