"""What the ledger keeps of a run: its backend, the device it is pinned to, who serves it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from qsgd_core.errors import ConfigError, QSGDError
from qsgd_core.schedule.failures import pack_error
from qsgd_core.schedule.ledger.database import Database
from qsgd_core.schedule.ledger.rows import Run, find_run
from qsgd_core.schedule.ledger.tables import runs as runs_table


class Runs:
    """The part of :class:`~qsgd_core.schedule.ledger.ledger.Ledger` that is about runs."""

    _database: Database
    _clock: Callable[[], float]

    def open_run(self, run: str, *, backend: str, options: Mapping[str, Any]) -> Run:
        """The run's row, made if need be, with these options; a run keeps its pinned device.

        What an earlier courier stopped with is forgotten.

        Raises:
            ConfigError: the run has another backend.
        """
        values = {"options": json.dumps(dict(options), sort_keys=True), "error": None}
        with self._database.write() as db:
            found = find_run(db, run)
            if found is None:
                new = {"run": run, "backend": backend, "created_at": self._clock(), **values}
                db.execute(runs_table.insert().values(new))
            elif backend not in (found.backend, found.pinned):
                raise ConfigError(
                    f"Run {run!r} was measured on {found.backend!r}; it cannot go on with "
                    f"{backend!r}. Start another run."
                )
            else:
                db.execute(runs_table.update().where(runs_table.c.run == run).values(values))
        return self.run(run)

    def looked(self, run: str, *, pinned: str, capabilities: str) -> None:
        """The courier's first look: the device that the name means, and what it can do."""
        self._update_run(run, pinned=pinned, capabilities=capabilities, error=None)

    def guard(self, run: str) -> str | None:
        """What :meth:`guarded` noted."""
        with self._database.read() as db:
            found = find_run(db, run)
        return None if found is None else found.guard

    def guarded(self, run: str, guard: str | None) -> None:
        """The service's own spending limit that was set for the run, or lifted (None)."""
        self._update_run(run, guard=guard)

    def stopped(self, run: str, error: QSGDError) -> None:
        """What the run's courier stopped with."""
        self._update_run(run, error=pack_error(error))

    def run(self, run: str) -> Run:
        """The run's row.

        Raises:
            ConfigError: there is none.
        """
        with self._database.read() as db:
            found = find_run(db, run)
        if found is None:
            raise ConfigError(f"The ledger has no run {run!r}. See qsgd jobs list.")
        return found

    def has_run(self, run: str) -> bool:
        """Whether the run was ever opened on this ledger."""
        with self._database.read() as db:
            return find_run(db, run) is not None

    def serve(self, run: str) -> AbstractContextManager[bool]:
        """Be the run's only courier while entered; False if another process is.

        Only so can a courier know, of a submission that it finds begun, that it is not still going
        on. Given back when the process dies, however it dies.
        """
        return self._database.claim(run)

    def _update_run(self, run: str, **values: object) -> None:
        with self._database.write() as db:
            db.execute(runs_table.update().where(runs_table.c.run == run).values(**values))
