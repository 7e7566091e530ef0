"""What the ledger does with costs that the vendor states late, or states otherwise than before.

A job that ends before its cost is stated is booked at its hold, provisionally: ``unstated`` names
the units. The vendor is asked again, with pauses that double, for a day. Every booking is of the
difference to what stands there, in one transaction: made twice, it changes nothing the second time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from qsgd_core.schedule.ledger import accounts
from qsgd_core.schedule.ledger.database import Database
from qsgd_core.schedule.ledger.rows import Job, find_job, to_job
from qsgd_core.schedule.ledger.tables import jobs as jobs_table
from qsgd_core.schedule.money import UNITS, Amount, Cap

ASK_S = (2.0, 3600.0)
"""First and longest wait before a vendor is asked again what a job cost."""
ASK_FOR_S = 86400.0
"""For so long after a job's end it is asked again."""


def provisional(hold: Amount, actual: Amount, limits: list[Cap], *, now: float) -> dict[str, Any]:
    """The columns of a job that ends: what it costs, at its hold where that is not stated."""
    missing = [u for u in UNITS if actual.of(u) is None and hold.of(u) is not None]
    missing = _worth_asking(missing, limits)
    spent = {u: hold.of(u) if actual.of(u) is None else actual.of(u) for u in UNITS}
    return {
        **{f"spent_{unit}": amount for unit, amount in spent.items()},
        "unstated": ",".join(missing) or None,
        "ask_at": now + ASK_S[0] if missing else None,
        "n_asks": 0,
    }


class Bills:
    """The part of :class:`~qsgd_core.schedule.ledger.ledger.Ledger` that is about late costs."""

    _database: Database
    _clock: Callable[[], float]

    def unstated(self, *, run: str | None = None, alike: bool = False) -> list[Job]:
        """Jobs that are booked at their hold because the vendor had not said what they cost.

        Args:
            run: only its jobs.
            alike: also those of other runs on the same backend with the same options.
        """
        query = sa.select(jobs_table).where(
            jobs_table.c.unstated.is_not(None), jobs_table.c.handle.is_not(None)
        )
        if run is not None:
            own = jobs_table.alias()
            same = sa.exists().where(
                own.c.run == run,
                own.c.backend == jobs_table.c.backend,
                own.c.options == jobs_table.c.options,
            )
            query = query.where(sa.or_(jobs_table.c.run == run, same if alike else sa.false()))
        with self._database.read() as db:
            found = db.execute(query.order_by(jobs_table.c.created_at, jobs_table.c.tag))
            return [to_job(row) for row in found.mappings()]

    def state(self, tag: str, billed: Amount) -> Amount | None:
        """Book what the vendor states now of what it had not stated; the rest is asked for later.

        Returns:
            What had been booked instead, if anything was stated; None if nothing was, or the job
            is not waiting for it.
        """
        with self._database.write() as db:
            job = find_job(db, tag)
            if job is None or not job.state.has_cost or not job.unstated:
                return None
            stated = {u: billed.of(u) for u in job.unstated if billed.of(u) is not None}
            if stated:
                self._book(db, job, stated)
            missing = [unit for unit in job.unstated if unit not in stated]
            missing = _worth_asking(missing, accounts.read_caps(db, job.budget))
            now, wait_s = self._clock(), min(ASK_S[0] * 2**job.n_asks, ASK_S[1])
            over = not missing or now - (job.settled_at or now) > ASK_FOR_S
            _update(
                db,
                tag,
                unstated=",".join(missing) or None,
                ask_at=None if over else now + wait_s,
                n_asks=job.n_asks + 1,
            )
            return job.spent if stated else None

    def correct(self, tag: str, billed: Amount) -> bool:
        """Book what the vendor states, whatever had been booked; what it leaves unknown stays.

        Returns:
            Whether that made a difference.
        """
        with self._database.write() as db:
            job = find_job(db, tag)
            if job is None or not job.state.has_cost:
                return False
            stated = {u: billed.of(u) for u in UNITS if billed.of(u) is not None}
            differs = {u: n for u, n in stated.items() if n != job.spent.of(u)}
            missing = [unit for unit in job.unstated if unit not in stated]
            if not differs and missing == list(job.unstated):
                return False
            self._book(db, job, differs)
            later = {} if missing else {"ask_at": None}
            _update(db, tag, unstated=",".join(missing) or None, **later)
            return True

    def _book(self, db: sa.Connection, job: Job, stated: dict[str, int | None]) -> None:
        held = Amount(0, 0, 0) if job.unheld else job.hold
        accounts.restate(db, job.budget, held=held, was=job.spent, now=Amount(**stated))
        columns = {f"spent_{unit}": amount for unit, amount in stated.items()}
        _update(db, job.tag, corrected_at=self._clock(), **columns)


def _worth_asking(missing: list[str], limits: list[Cap]) -> list[str]:
    """Nobody is asked again for shots alone, unless a budget caps them."""
    capped = any(limit.unit == "shots" for limit in limits)
    return missing if capped or missing != ["shots"] else []


def _update(db: sa.Connection, tag: str, **values: object) -> None:
    db.execute(jobs_table.update().where(jobs_table.c.tag == tag).values(**values))
