"""A run's record: one SQLite file with everything that it was told, to be read and repeated later.

:mod:`.reader` reads it; :mod:`.entries` says what is in it.

Written beside training: by the courier for a run on a backend, at checkpoints for one on a
simulator. Every method of the writer is one transaction, so that whatever kills it leaves a file
that holds a true beginning of the run. Arrays are kept to the bit, compressed with a checksum.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Workload
from qsgd_core.schedule.messages import Frame
from qsgd_core.schedule.record.entries import OutcomeEntry, Sampled, Stretch
from qsgd_core.schedule.record.format import FORMAT, create, damaged, read_format, upgrade
from qsgd_core.schedule.workloads import workload_values

_NOT_A_RECORD = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
BUSY_S = 10.0
"""How long to wait for another process that reads or writes the file."""

_UNITS = {"micro_usd": ("usd", 1e6), "qpu_us": ("qpu_s", 1e6), "shots": ("shots", 1)}
_OF_COURIER = ("refreshes", "results", "applied", "events", "accounts")

logger = logging.getLogger("qsgd_core")


class RecordWriter:
    """Writes the record of one run: one process at a time, one thread at a time.

    What cannot be written never stops a run: the first failure is logged, and nothing more is
    written, so that the file goes on to hold a true beginning. A step is the number of steps taken
    before it.

    Args:
        path: record.sqlite in the run's folder; made if it is not there.
        clock: seconds since the epoch.

    Raises:
        ConfigError: there is a file that is not a record, or one of a newer version.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._now = 0
        self._balances: list[dict[str, Any]] = []
        self._db: sqlite3.Connection | None = None
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
            self._db.execute("PRAGMA synchronous=NORMAL")
            with self._transaction() as db:
                if not db.execute("PRAGMA schema_version").fetchone()[0]:
                    create(db)
                older = read_format(db, path) < FORMAT
            if older:
                upgrade(self._db, path)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", None) in _NOT_A_RECORD:
                self.close()
                raise damaged(path, error) from error
            self._give_up(error)

    def header(self, values: Mapping[str, Any]) -> None:
        """Note what the run is: plain JSON values; one noted before under the key is replaced."""
        rows = [{"key": k, "value": json.dumps(v, sort_keys=True)} for k, v in values.items()]
        self._put("header", *rows)

    def begin(self, header: Mapping[str, Any], *, step: int) -> None:
        """A trainer that has taken ``step`` steps starts, comes back, or has a new courier.

        What the record says of later steps is of another future; what it says of this one may be
        of the same.
        """
        self._now = step

        def write(db: sqlite3.Connection) -> None:
            for table in _OF_COURIER:
                db.execute(f"DELETE FROM {table} WHERE step > ?", (step,))  # noqa: S608

        self._do(write)
        self.header(header)

    def asked(
        self, step: int, work: Workload, *, shots: int, used: Sequence[NDArray[np.float64]]
    ) -> None:
        """A measurement was asked for; ``used`` is what the step itself used."""
        self._now = max(self._now, step)
        batches = {"batches": workload_values(work)}
        data = _pack(Frame("work", batches, [b.angles for b in work.batches]))
        row = {"step": step, "wall": self._clock(), "shots": shots, "rows": work.n_rows}
        self._put("refreshes", row | {"workload": data, "used": _pack_arrays(used)})

    def arrived(self, outcome: OutcomeEntry) -> None:
        """A refresh was measured."""
        row = {field.name: getattr(outcome, field.name) for field in fields(outcome)}
        self._put("results", row | {"z": _pack_arrays(outcome.z)})

    def failed(self, step: int, error: str) -> None:
        """The refresh of ``step`` came to nothing."""
        row = {"step": step, "wall": self._clock(), "z": _pack_arrays(()), "error": error}
        self._put("results", row)

    def applied(self, step: int, snapshot: bytes, *, tiles: int = 1) -> None:
        """``step`` is the first to use this snapshot; of two at one step the later holds.

        Args:
            step: the step.
            snapshot: its frame, encoded.
            tiles: blocks side by side, by which a block finds its sites.
        """
        self._now = max(self._now, step)
        row = {"step": step, "wall": self._clock(), "tiles": tiles}
        self._put("applied", row | {"frame": zlib.compress(snapshot, 1)})

    def event(self, step: int | None, kind: str, message: str) -> None:
        """Something that the user is told; None: at the newest step that is known here."""
        row = {"step": self._now if step is None else step, "wall": self._clock()}
        self._put("events", row | {"kind": kind, "message": message})

    def account(self, caps: Sequence[Mapping[str, Any]], planned: float | None = None) -> None:
        """Where the budget stands, as the ledger's caps have it; kept if anything has changed.

        Args:
            caps: each with unit (micro_usd, qpu_us or shots), cap, reserved, spent and overrun.
            planned: the share of each cap that is to be spent by now.
        """
        balances = []
        for cap in caps:
            unit, scale = _UNITS[cap["unit"]]
            amounts = {n: cap[n] / scale for n in ("cap", "reserved", "spent", "overrun")}
            balances.append({"unit": unit, **amounts})
        if balances != self._balances:
            self._balances = balances
            now = {"step": self._now, "wall": self._clock()}
            plans = [None if planned is None else planned * b["cap"] for b in balances]
            rows = [now | b | {"planned": p} for b, p in zip(balances, plans, strict=True)]
            self._put("accounts", *rows)

    def samples(self, rows: Sequence[Sampled]) -> None:
        """What a simulator gave to steps of the run."""
        frames = [Frame(r.source, {"n": len(r.z)}, [*r.z, *r.angles]) for r in rows]
        pairs = zip(rows, frames, strict=True)
        self._put("samples", *({"step": r.step, "frame": _pack(f)} for r, f in pairs))

    def sources(self, *stretches: Stretch) -> None:
        """Where the s of steps came from, in order; a stretch that goes on is made longer."""

        def write(db: sqlite3.Connection) -> None:
            for new in stretches:
                query = "SELECT first, last, source FROM sources ORDER BY first DESC LIMIT 1"
                before = db.execute(query).fetchone()
                if before and before[1] + 1 == new.first and before[2] == new.source:
                    db.execute("UPDATE sources SET last = ? WHERE first = ?", (new.last, before[0]))
                else:
                    db.execute(_insertion("sources", asdict(new)), asdict(new))

        self._do(write)

    def mark(self, step: int, weights: str) -> None:
        """A checkpoint after ``step`` steps: a fingerprint of the weights."""
        self._put("marks", {"step": step, "weights": weights})

    def rewind(self, step: int) -> None:
        """A run goes on from a checkpoint after ``step`` steps: forget that step and all later."""

        def write(db: sqlite3.Connection) -> None:
            for table in (*_OF_COURIER, "samples"):
                db.execute(f"DELETE FROM {table} WHERE step >= ?", (step,))  # noqa: S608
            db.execute("DELETE FROM sources WHERE first >= ?", (step,))
            db.execute("UPDATE sources SET last = ? WHERE last >= ?", (step - 1, step))
            db.execute("DELETE FROM marks WHERE step > ?", (step,))
            db.execute("DELETE FROM header WHERE key = 'samples_end'")

        self._do(write)

    def close(self) -> None:
        """Nothing more will be written."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _put(self, table: str, *rows: Mapping[str, Any]) -> None:
        """Write rows of one form; one with the same key is replaced."""
        plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
        if plain:
            self._do(lambda db: db.executemany(_insertion(table, plain[0]), plain))

    def _do(self, write: Callable[[sqlite3.Connection], object]) -> None:
        if self._db is None:
            return
        try:
            with self._transaction() as db:
                write(db)
        except sqlite3.DatabaseError as error:
            self._give_up(error)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._db
        assert db is not None  # noqa: S101  asked before
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            if db.in_transaction:  # a full disk ends it by itself
                db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")

    def _give_up(self, error: sqlite3.Error) -> None:
        logger.warning(
            "The run's record %s could not be written (%s): it ends here. The run goes on; it can "
            "be replayed up to this step only.",
            self.path,
            error,
        )
        self.close()


def _insertion(table: str, row: Mapping[str, Any]) -> str:
    """The statement that writes a row, each value to the column of its name."""
    marks = ", ".join(f":{name}" for name in row)
    return f"INSERT OR REPLACE INTO {table} ({', '.join(row)}) VALUES ({marks})"  # noqa: S608


def _pack(frame: Frame) -> bytes:
    return zlib.compress(frame.encode(), 1)


def _pack_arrays(arrays: Sequence[np.ndarray[Any, Any]]) -> bytes:
    return _pack(Frame("arrays", {}, arrays))


def _plain(value: Any) -> Any:
    """sqlite3 takes python's numbers only."""
    return value.item() if isinstance(value, np.generic) else value
