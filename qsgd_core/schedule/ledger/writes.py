"""What tells a ledger from another one, and from an older copy of itself put back while in use.

Every transaction that changes something leaves a row with a number, one more than the last, and a
name by chance. Who has seen one finds it again as long as the ledger is the one that it was. In a
copy that is older it is missing; where others have written on in such a copy, it has another name.
Processes that share a ledger only ever add to it, so nothing that they do looks like that; neither
does moving the file, VACUUM, or a checkpoint of its write-ahead log.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError, ProgrammingError

from qsgd_core.errors import QSGDError
from qsgd_core.schedule.ledger.tables import meta, writes

KEPT = 1000
"""So many writes are kept at least; whether an earlier one was there cannot be told any more."""


@dataclass(frozen=True)
class Write:
    """One transaction that wrote; number 0 stands before the first."""

    number: int
    name: str = ""


NONE = Write(0)


def newest(db: sa.Connection, ledger: str, seen: Write, *, shown: str) -> Write:
    """The newest write of a ledger that is still what it was.

    Args:
        db: in a transaction that began after ``seen`` was committed.
        ledger: the ledger's id.
        seen: a write that was in it.
        shown: the ledger's URL, for the messages.

    Raises:
        QSGDError: it is another ledger, or an older copy.
    """
    last = sa.select(sa.func.max(writes.c.number)).scalar_subquery()
    wanted = sa.or_(writes.c.number == seen.number, writes.c.number == last)
    query = sa.select(meta.c.value, writes.c.number, writes.c.name).select_from(
        meta.outerjoin(writes, wanted)
    )
    try:
        found = db.execute(query.where(meta.c.key == "ledger")).all()
    except (OperationalError, ProgrammingError) as error:
        if not _is_missing_table(error):
            raise
        found = []  # an empty file or database, or a ledger of an older schema
    if not found or found[0].value != ledger:
        raise QSGDError(
            f"{shown!r} is another ledger than it was: it was deleted or replaced while in use. "
            "Nothing more is bought, for what was paid for before is not in it. Put the ledger "
            "back where it was, or end what is running and start again."
        )
    there = {row.number: row.name for row in found if row.number is not None}
    last_number = max(there, default=0)
    if seen.number > last_number - KEPT and there.get(seen.number, NONE.name) != seen.name:
        raise QSGDError(
            f"{shown!r} is an older copy of the ledger that it was: it was put back while in use, "
            "and what has been booked since the copy was made is not in it. Nothing more is "
            "bought. Put the newer file back; if there is none, end what is running and book what "
            "the vendor knows of with qsgd jobs audit before anything is started again."
        )
    return Write(last_number, there.get(last_number, NONE.name))


def add(db: sa.Connection, last: Write) -> Write:
    """Number and name this transaction.

    Args:
        db: in a transaction that no other writer's overlaps.
        last: the newest write before.
    """
    new = Write(last.number + 1, uuid.uuid4().hex)
    db.execute(writes.insert().values(number=new.number, name=new.name))
    if new.number % KEPT == 0:
        db.execute(writes.delete().where(writes.c.number <= new.number - KEPT))
    return new


def changes(db: sa.Connection) -> int:
    """How much this transaction has changed: a number that is another once it has changed more.

    One that changed nothing is not written down, so that its end waits for no disk.
    """
    if db.dialect.name == "sqlite":
        driver = db.connection.driver_connection
        assert driver is not None  # noqa: S101  it is in use
        return int(driver.total_changes)
    return int(db.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()::text").scalar() or 0)


def _is_missing_table(error: OperationalError | ProgrammingError) -> bool:
    return "no such table" in str(error.orig) or getattr(error.orig, "sqlstate", "") == "42P01"
