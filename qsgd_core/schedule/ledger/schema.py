"""The version of a ledger's tables, and the way there from an older one.

The revisions are Alembic's, in ``migrations/versions``; a new ledger is made by the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa

from qsgd_core.schedule import revisions
from qsgd_core.schedule.ledger import tables

VERSION = 5
"""The newest revision, and what :mod:`.tables` says."""


def version(db: sa.Connection) -> int | None:
    """The version that the tables have; None where there are none."""
    if not sa.inspect(db).has_table(tables.meta.name):
        return None
    query = sa.select(tables.meta.c.value).where(tables.meta.c.key == "schema")
    return int(db.execute(query).scalar_one())


def ledger_id(db: sa.Connection) -> str:
    """The name that a ledger was given when it was made, or brought up to date; "" without one."""
    query = sa.select(tables.meta.c.value).where(tables.meta.c.key == "ledger")
    return str(db.execute(query).scalar() or "")


def upgrade(db: sa.Connection) -> None:
    """Bring the tables to :data:`VERSION`, from any older one or from none.

    Args:
        db: in a transaction that no other writer's overlaps and that is ended by whoever began it:
            all of it is done, or none. On SQLite without ``foreign_keys``, for a table that changes
            is made anew.
    """

    def note(connection: sa.Connection, reached: str) -> None:
        told = sa.text("UPDATE qsgd_meta SET value = :reached WHERE key = 'schema'")
        connection.execute(told, {"reached": reached})

    folder = Path(__file__).parent / "migrations"
    revisions.upgrade(db, folder, found=version(db), to=VERSION, note=note)


def replace_checks(table: str, checks: Mapping[str, str], *, old: Sequence[str]) -> None:
    """In a revision: the table has these CHECKs instead of those called ``old``.

    SQLite cannot change a table's CHECKs: it is made anew, with these and no others.
    """
    from alembic import op

    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table(table, recreate="always") as batch:
            for name, text in checks.items():
                batch.create_check_constraint(name, text)
        return
    for name in old:
        op.drop_constraint(name, table, type_="check")
    for name, text in checks.items():
        op.create_check_constraint(name, table, text)
