"""A refresh on its way: the question, the jobs it is cut into, and the answer put together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import Workload
from qsgd_core.jobs import Result
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.messages import Ask, Frame
from qsgd_core.schedule.packing.pieces import Piece, divide, gather, sites_in_turns
from qsgd_core.schedule.packing.tiles import pack
from qsgd_core.schedule.packing.turns import rotation, scatter, take


@dataclass(eq=False)
class Refresh:
    """One question.

    Attributes:
        ask: as the trainer put it.
        step: of the trainer, when it asked; the refresh's name in its run.
        shots: per circuit.
        seed: of whatever the service lets us seed.
        tiles: blocks side by side.
        per_refresh: blocks that it measures.
        work: every block at the angles of that step.
        used: ⟨observables⟩ that the trainer used at that step.
        rows: those measured, per batch.
        pieces: one per job.
        tags: the jobs, in the pieces' order.
    """

    ask: Ask
    step: int
    shots: int
    seed: int
    tiles: int
    per_refresh: int
    work: Workload
    used: list[NDArray[np.float64]]
    rows: list[NDArray[np.intp]]
    pieces: list[Piece]
    tags: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, ask: Ask, has: Capabilities, *, backend: str) -> Refresh:
        """From the trainer's question, cut to what the device takes.

        Raises:
            CapabilityError: it does not fit the device ``backend``.
        """
        work = ask.work
        per_refresh = ask.per_refresh or work.n_rows
        rows = rotation([b.n_rows for b in work.batches], per_refresh, ask.turn)
        packed = pack(take(work, rows), tiles=ask.tiles, width=work.n_qubits)
        pieces = divide(packed, has, shots=ask.shots)
        for piece in pieces:
            has.require(backend, piece.packed.work, shots=ask.shots)
        return cls(
            ask=ask,
            step=ask.step,
            shots=ask.shots,
            seed=ask.seed,
            tiles=ask.tiles,
            per_refresh=per_refresh,
            work=work,
            used=ask.used,
            rows=rows,
            pieces=pieces,
        )

    @cached_property
    def sites(self) -> tuple[NDArray[np.intp], ...]:
        """intp (B, n) per batch: where each row's qubits run."""
        return sites_in_turns(self.work, tiles=self.tiles, per_refresh=self.per_refresh)

    def gather(self, results: Sequence[Result | None]) -> list[NDArray[np.float64]]:
        """⟨observables⟩ of every block from its jobs' results, NaN where nothing was measured.

        Raises:
            ResultCorruptError: a result does not fit its job.
        """
        part, _ = gather(take(self.work, self.rows), self.pieces, results)
        blank = [np.full((b.n_rows, len(b.observables)), np.nan) for b in self.work.batches]
        return scatter(part, self.rows, into=blank)


def tag(run: str, step: int, part: int, attempt: int) -> str:
    """The name of one job: the same whoever asks, after whatever crash."""
    key = json.dumps([run, step, part, attempt])
    return "qsgd-" + hashlib.sha256(key.encode()).hexdigest()[:32]


def asked_before(ledger: Ledger, run: str, step: int) -> Ask | None:
    """The question of a step as the ledger has it, from whichever life of the run; None: none."""
    data = ledger.asked(tag(run, step, 0, 0))
    return None if data is None else Ask.from_frame(Frame.decode(data))
