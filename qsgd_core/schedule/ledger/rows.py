"""Rows of the ledger as records: a job and a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from qsgd_core.errors import QSGDError
from qsgd_core.jobs import JobHandle
from qsgd_core.schedule.failures import unpack_error
from qsgd_core.schedule.ledger.states import LedgerState
from qsgd_core.schedule.ledger.tables import jobs, runs
from qsgd_core.schedule.money import UNITS, Amount


@dataclass(frozen=True)
class Job:
    """A row of the ledger.

    Attributes:
        error: why it was denied, failed or refunded, ready to be raised.
        doubt_since: since when it has not been known whether the job exists.
        cancel_asked: when the user asked for it to be cancelled.
        hold: what was reserved, the worst case.
        spent: what it cost, once that is settled.
        unheld: nothing was held for it: it turned up although nobody waited for it.
        unstated: units in which ``spent`` is no more than the hold, because the vendor has not said
            what it cost.
        ask_at: when the vendor is asked again for those.
        n_asks: how often it has been.
        corrected_at: when ``spent`` was last changed to what the vendor says.
        queue_position: of a submitted job, where the vendor has it in its queue; 1 is next. None:
            it runs, or the vendor does not say.
    """

    tag: str
    run: str
    budget: str
    backend: str
    options: str
    step: int
    part: int
    attempt: int
    digest: str
    shots: int
    seed: int
    state: LedgerState
    handle: JobHandle | None
    error: QSGDError | None
    created_at: float
    submitted_at: float | None
    doubt_since: float | None
    cancel_asked: float | None
    settled_at: float | None
    consumed_step: int | None
    hold: Amount
    spent: Amount
    unheld: bool
    unstated: tuple[str, ...]
    ask_at: float | None
    n_asks: int
    corrected_at: float | None
    queue_position: int | None

    @property
    def provisional(self) -> Amount:
        """What of ``spent`` is only the hold, until the vendor says what it was; 0 elsewhere."""
        return Amount(**{u: (self.spent.of(u) or 0) if u in self.unstated else 0 for u in UNITS})


@dataclass(frozen=True)
class Run:
    """What is known of a run's backend: the name asked for, the device it is pinned to.

    ``options`` and ``capabilities`` are JSON; the latter and ``error``, what the run's courier
    stopped with, are written by the courier. ``guard`` names the service's own spending limit: None
    before it was asked for, empty if the service has none.
    """

    run: str
    backend: str
    options: str
    created_at: float
    pinned: str | None
    capabilities: str | None
    error: QSGDError | None
    guard: str | None


def find_job(db: sa.Connection, tag: str) -> Job | None:
    """The job under a tag."""
    row = db.execute(sa.select(jobs).where(jobs.c.tag == tag)).mappings().first()
    return None if row is None else to_job(row)


def find_run(db: sa.Connection, run: str) -> Run | None:
    """A run by its id."""
    row = db.execute(sa.select(runs).where(runs.c.run == run)).mappings().first()
    if row is None:
        return None
    data = dict(row)
    return Run(**{**data, "error": unpack_error(data["error"]) if data["error"] else None})


def to_job(row: sa.RowMapping) -> Job:
    """A row of the table ``jobs``."""
    data: dict[str, Any] = {str(k): v for k, v in row.items()}
    for name in ("hold", "spent"):
        data[name] = Amount(**{unit: data.pop(f"{name}_{unit}") for unit in UNITS})
    del data["came_from"]  # the database's own
    data["state"] = LedgerState(data["state"])
    data["unheld"] = bool(data["unheld"])
    data["unstated"] = tuple(data["unstated"].split(",")) if data["unstated"] else ()
    data["n_asks"] = data["n_asks"] or 0
    data["handle"] = JobHandle.from_json(data["handle"]) if data["handle"] else None
    data["error"] = unpack_error(data["error"]) if data["error"] else None
    return Job(**data)
