"""Reads a run's record, see :mod:`.writer`, also while it is being written."""

from __future__ import annotations

import json
import sqlite3
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from qsgd_core.circuits import Workload
from qsgd_core.errors import ConfigError, ResultCorruptError
from qsgd_core.schedule.messages import Frame
from qsgd_core.schedule.record.entries import (
    AppliedEntry,
    Balance,
    Happening,
    Header,
    OutcomeEntry,
    RefreshEntry,
    Sampled,
    Stretch,
)
from qsgd_core.schedule.record.format import damaged, up_to_date
from qsgd_core.schedule.record.writer import BUSY_S
from qsgd_core.schedule.workloads import read_workload
from qsgd_core.sources import SourceName


class RecordReader:
    """Reads the record of a run.

    Attributes:
        header: what the run is, by name.

    Raises:
        ConfigError: there is no record, it is damaged, or a newer version wrote it; here, and
            from every method that comes upon damage.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise ConfigError(
                f"There is no record {path}. Every run writes one into its folder; give the folder "
                "of a run that has a record.sqlite, or run it again."
            )
        # Not mode=ro: what a killed writer left half done is undone by whoever reads next.
        uri = f"{path.resolve().as_uri()}?mode=rw"
        self._db = sqlite3.connect(uri, timeout=BUSY_S, uri=True, isolation_level=None)
        try:
            self._db = up_to_date(self._db, path)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise damaged(path, error) from error
        rows = self._rows("SELECT key, value FROM header")
        self.header: Header = {key: json.loads(value) for key, value in rows}

    @property
    def n_steps(self) -> int:
        """Steps that the run is known to have come to, and that a replay has all it needs for."""
        newest = (
            "SELECT max(last) + 1 FROM sources",
            "SELECT max(step) FROM marks",
            *(f"SELECT max(step) + 1 FROM {t}" for t in ("samples", "applied", "refreshes")),  # noqa: S608
        )
        n_steps: int = max(self._rows(query)[0][0] or 0 for query in newest)
        return min(n_steps, int(self.header.get("samples_end", n_steps)))

    def refreshes(self) -> list[RefreshEntry]:
        """In the order of their steps."""
        query = "SELECT step, wall, shots, workload, used FROM refreshes ORDER BY step"
        return [
            RefreshEntry(step, wall, shots, self._work(work), tuple(self._frame(used).arrays))
            for step, wall, shots, work, used in self._rows(query)
        ]

    def results(self) -> list[OutcomeEntry]:
        """In the order of their refreshes' steps."""
        names = [f.name for f in fields(OutcomeEntry)]
        found = []
        for row in self._rows(f"SELECT {', '.join(names)} FROM results ORDER BY step"):  # noqa: S608
            values = dict(zip(names, row, strict=True))
            z, alarm = tuple(self._frame(values["z"]).arrays), bool(values["alarm"])
            found.append(OutcomeEntry(**values | {"z": z, "alarm": alarm}))
        return found

    def applied(self) -> list[AppliedEntry]:
        """In the order of their steps."""
        query = "SELECT step, wall, tiles, frame FROM applied ORDER BY step"
        rows = self._rows(query)
        return [AppliedEntry(step, wall, tiles, self._frame(d)) for step, wall, tiles, d in rows]

    def events(self) -> list[Happening]:
        """In the order they were told."""
        query = "SELECT step, wall, kind, message FROM events ORDER BY rowid"
        return [Happening(*row) for row in self._rows(query)]

    def accounts(self) -> list[Balance]:
        """In the order they were noted."""
        names = ", ".join(f.name for f in fields(Balance))
        query = f"SELECT {names} FROM accounts ORDER BY rowid"  # noqa: S608
        return [Balance(*row) for row in self._rows(query)]

    def sample(self, step: int) -> Sampled | None:
        """The newest that a simulator had given by ``step``; None if there was none."""
        query = "SELECT step, frame FROM samples WHERE step <= ? ORDER BY step DESC LIMIT 1"
        found = self._rows(query, step)
        if not found:
            return None
        frame = self._frame(found[0][1])
        n = frame.values["n"]
        source = cast(SourceName, frame.kind)
        return Sampled(found[0][0], tuple(frame.arrays[:n]), source, tuple(frame.arrays[n:]))

    def marks(self) -> dict[int, str]:
        """Steps taken at a checkpoint -> fingerprint of the weights."""
        return dict(self._rows("SELECT step, weights FROM marks ORDER BY step"))

    def sources(self) -> list[Stretch]:
        """In the order of their steps."""
        query = "SELECT first, last, source FROM sources ORDER BY first"
        return [Stretch(*row) for row in self._rows(query)]

    def close(self) -> None:
        """Nothing more will be read."""
        self._db.close()

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise damaged(self.path, error) from error

    def _frame(self, data: bytes) -> Frame:
        try:
            return Frame.decode(zlib.decompress(data))
        except (zlib.error, ValueError, TypeError, ResultCorruptError) as error:
            raise damaged(self.path, error) from error

    def _work(self, data: bytes) -> Workload:
        frame = self._frame(data)
        return read_workload(frame.values["batches"], frame.arrays)
