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
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Workload
from qsgd_core.errors import ConfigError
from qsgd_core.schedule.messages import Frame, workload_values
from qsgd_core.schedule.record.entries import Sampled, Stretch

FORMAT = 1
_NOT_A_RECORD = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
BUSY_S = 10.0
"""How long to wait for another process that reads or writes the file."""

_SCHEMA = """
CREATE TABLE header (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE refreshes (step INTEGER PRIMARY KEY, wall REAL, shots INTEGER, rows INTEGER,
    workload BLOB, used BLOB);
CREATE TABLE results (step INTEGER PRIMARY KEY, wall REAL, executed_at REAL, z BLOB,
    n_rows INTEGER, of_rows INTEGER, e_sq REAL, twin_sq REAL, noise REAL, predicted_var REAL,
    innovation_sq REAL, nis REAL, alarm INTEGER, cost_usd REAL, qpu_s REAL, shots INTEGER,
    queue_s REAL, error TEXT);
CREATE TABLE applied (step INTEGER PRIMARY KEY, wall REAL, tiles INTEGER, frame BLOB);
CREATE TABLE events (step INTEGER, wall REAL, kind TEXT, message TEXT);
CREATE TABLE accounts (step INTEGER, wall REAL, unit TEXT, cap REAL, reserved REAL, spent REAL,
    overrun REAL, planned REAL);
CREATE TABLE samples (step INTEGER PRIMARY KEY, frame BLOB);
CREATE TABLE sources (first INTEGER PRIMARY KEY, last INTEGER, source TEXT);
CREATE TABLE marks (step INTEGER PRIMARY KEY, weights TEXT);
"""
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
        self._balances: list[tuple[Any, ...]] = []
        self._db: sqlite3.Connection | None = None
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
            self._db.execute("PRAGMA synchronous=NORMAL")
            with self._transaction() as db:
                if not db.execute("PRAGMA schema_version").fetchone()[0]:
                    for statement in _SCHEMA.split(";"):
                        db.execute(statement)
                    db.execute("INSERT INTO header VALUES ('format', ?)", (str(FORMAT),))
                check_format(db, path)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", None) in _NOT_A_RECORD:
                self.close()
                raise damaged(path, error) from error
            self._give_up(error)

    def header(self, values: Mapping[str, Any]) -> None:
        """Note what the run is: plain JSON values; one noted before under the key is replaced."""
        rows = [(key, json.dumps(value, sort_keys=True)) for key, value in values.items()]
        self._write("INSERT OR REPLACE INTO header VALUES (?, ?)", rows)

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
        values = (step, self._clock(), shots, work.n_rows, data, _pack_arrays(used))
        self._write("INSERT OR REPLACE INTO refreshes VALUES (?, ?, ?, ?, ?, ?)", [values])

    def arrived(
        self,
        step: int,
        z: Sequence[NDArray[np.float64]],
        *,
        executed_at: float | None,
        n_rows: int,
        of_rows: int,
        e_sq: float | None,
        twin_sq: float | None,
        noise: float | None,
        predicted_var: float | None,
        innovation_sq: float | None,
        nis: float | None,
        alarm: bool,
        queue_s: float | None,
        cost_usd: float | None,
        qpu_s: float | None,
        shots: float | None,
        error: str | None = None,
    ) -> None:
        """The refresh of ``step`` was measured; see :class:`.entries.Outcome` for the arguments."""
        measures = (n_rows, of_rows, e_sq, twin_sq, noise, predicted_var, innovation_sq, nis, alarm)
        costs = (cost_usd, qpu_s, shots, queue_s, error)
        values = (step, self._clock(), executed_at, _pack_arrays(z), *measures, *costs)
        marks = ", ".join("?" * len(values))
        self._write(f"INSERT OR REPLACE INTO results VALUES ({marks})", [values])  # noqa: S608

    def failed(self, step: int, error: str) -> None:
        """The refresh of ``step`` came to nothing."""
        values = (step, self._clock(), _pack_arrays(()), error)
        statement = "INSERT OR REPLACE INTO results (step, wall, z, error) VALUES (?, ?, ?, ?)"
        self._write(statement, [values])

    def applied(self, step: int, snapshot: bytes, *, tiles: int = 1) -> None:
        """``step`` is the first to use this snapshot; of two at one step the later holds.

        Args:
            step: the step.
            snapshot: its frame, encoded.
            tiles: blocks side by side, by which a block finds its sites.
        """
        self._now = max(self._now, step)
        values = (step, self._clock(), tiles, zlib.compress(snapshot, 1))
        self._write("INSERT OR REPLACE INTO applied VALUES (?, ?, ?, ?)", [values])

    def event(self, step: int | None, kind: str, message: str) -> None:
        """Something that the user is told; None: at the newest step that is known here."""
        values = (self._now if step is None else step, self._clock(), kind, message)
        self._write("INSERT INTO events VALUES (?, ?, ?, ?)", [values])

    def account(self, caps: Sequence[Mapping[str, Any]], planned: float | None = None) -> None:
        """Where the budget stands, as the ledger's caps have it; kept if anything has changed.

        Args:
            caps: each with unit (micro_usd, qpu_us or shots), cap, reserved, spent and overrun.
            planned: the share of each cap that is to be spent by now.
        """
        balances = []
        for cap in caps:
            unit, scale = _UNITS[cap["unit"]]
            parts = [cap[name] / scale for name in ("cap", "reserved", "spent", "overrun")]
            balances.append((unit, *parts))
        if balances != self._balances:
            self._balances = balances
            rows = [
                (self._now, self._clock(), *b, None if planned is None else planned * b[1])
                for b in balances
            ]
            self._write("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def samples(self, rows: Sequence[Sampled]) -> None:
        """What a simulator gave to steps of the run."""
        frames = [Frame(r.source, {"n": len(r.z)}, [*r.z, *r.angles]) for r in rows]
        values = [(r.step, _pack(f)) for r, f in zip(rows, frames, strict=True)]
        self._write("INSERT OR REPLACE INTO samples VALUES (?, ?)", values)

    def sources(self, *stretches: Stretch) -> None:
        """Where the s of steps came from, in order; a stretch that goes on is made longer."""

        def write(db: sqlite3.Connection) -> None:
            for new in stretches:
                query = "SELECT first, last, source FROM sources ORDER BY first DESC LIMIT 1"
                before = db.execute(query).fetchone()
                if before and before[1] + 1 == new.first and before[2] == new.source:
                    db.execute("UPDATE sources SET last = ? WHERE first = ?", (new.last, before[0]))
                else:
                    db.execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?)", astuple(new))

        self._do(write)

    def mark(self, step: int, weights: str) -> None:
        """A checkpoint after ``step`` steps: a fingerprint of the weights."""
        self._write("INSERT OR REPLACE INTO marks VALUES (?, ?)", [(step, weights)])

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

    def _write(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        plain = [[_plain(value) for value in row] for row in rows]
        self._do(lambda db: db.executemany(statement, plain))

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


def check_format(db: sqlite3.Connection, path: Path) -> None:
    """Raise ConfigError if a newer version wrote the file; sqlite3's own error if none of ours."""
    row = db.execute("SELECT value FROM header WHERE key = 'format'").fetchone()
    if row is None:
        raise damaged(path, ValueError("it names no format"))
    if int(row[0]) > FORMAT:
        raise ConfigError(
            f"{path} was written by a newer version of qsgd-core (record format {row[0]}; this "
            f"version reads {FORMAT}). Upgrade qsgd-core: pip install -U qsgd-core"
        )


def damaged(path: Path, error: Exception) -> ConfigError:
    """What to say of a file that is not, or no longer, a record."""
    return ConfigError(
        f"{path} cannot be read as the record of a run ({type(error).__name__}: {error}). It is "
        "damaged, or something else; restore it from a copy."
    )


def _pack(frame: Frame) -> bytes:
    return zlib.compress(frame.encode(), 1)


def _pack_arrays(arrays: Sequence[np.ndarray[Any, Any]]) -> bytes:
    return _pack(Frame("arrays", {}, arrays))


def _plain(value: Any) -> Any:
    """sqlite3 takes python's numbers only."""
    return value.item() if isinstance(value, np.generic) else value
