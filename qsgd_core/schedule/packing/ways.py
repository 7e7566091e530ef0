"""How a backend would run one refresh: which shots, side by side or not, which jobs, what price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from qsgd_core.backend import Backend
from qsgd_core.circuits import Workload
from qsgd_core.jobs import Quote
from qsgd_core.schedule.packing.pieces import Piece, divide
from qsgd_core.schedule.packing.tiles import cheaper, pack, tiles_that_fit

Tiles: TypeAlias = int | Literal["auto"]
"""Blocks side by side in one circuit; ``auto``: as many as fit, if that is cheaper."""

FEW, MANY = 256, 1024
"""Shots where shots are what costs, and where the job itself does."""


@dataclass(frozen=True, eq=False)
class Way:
    """One way to run a refresh.

    Attributes:
        shots: per circuit.
        tiles: blocks side by side.
        pieces: one per job.
        quotes: of each job.
    """

    shots: int
    tiles: int
    pieces: list[Piece]
    quotes: list[Quote]


def best_way(backend: Backend, work: Workload, *, shots: int | None, tiles: Tiles) -> Way:
    """The cheapest way to run ``work``. Asks for quotes only.

    Args:
        backend: resolved, so that its capabilities are the device's.
        work: the logical workload of one refresh.
        shots: per circuit; None for what suits the backend's prices.
        tiles: blocks side by side.

    Raises:
        CapabilityError: it does not fit the device.
    """
    has = backend.capabilities
    shots = shots or has.default_shots or _usual_shots(backend, work)
    most = tiles_that_fit(work, has) if tiles == "auto" else tiles
    found = _way(backend, work, shots, most)
    if tiles == "auto" and most > 1:
        plain = _way(backend, work, shots, 1)
        if not cheaper(found.quotes, plain.quotes):
            return plain
    return found


def _way(backend: Backend, work: Workload, shots: int, tiles: int) -> Way:
    pieces = divide(pack(work, tiles=tiles), backend.capabilities, shots=shots)
    for piece in pieces:
        backend.capabilities.require(backend.name, piece.packed.work, shots=shots)
    quotes = [backend.quote(piece.packed.work, shots=shots) for piece in pieces]
    return Way(shots, tiles, pieces, quotes)


def _usual_shots(backend: Backend, work: Workload) -> int:
    """1,024 unless four times the shots make a job more than twice as dear."""
    job = divide(pack(work), backend.capabilities, shots=MANY)[0].packed.work
    few, many = (backend.quote(job, shots=shots).expected.usd for shots in (FEW, MANY))
    return FEW if few and many and many > 2 * few else MANY
