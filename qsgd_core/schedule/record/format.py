"""The tables of a record, the version of their format, and the way there from an older one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from qsgd_core.errors import ConfigError
from qsgd_core.schedule import revisions

if TYPE_CHECKING:
    from sqlalchemy import Connection

FORMAT = 2
"""The newest revision in ``migrations/versions``, and what :data:`TABLES` says."""

TABLES = """
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


def create(db: sqlite3.Connection) -> None:
    """Make the tables in an empty file, within the caller's transaction."""
    for statement in TABLES.split(";"):
        db.execute(statement)
    db.execute("INSERT INTO header (key, value) VALUES ('format', ?)", (str(FORMAT),))


def read_format(db: sqlite3.Connection, path: Path) -> int:
    """The version of the file's format.

    Raises:
        ConfigError: a newer version of qsgd-core wrote it, or it names none.
        sqlite3.DatabaseError: it is no record.
    """
    row = db.execute("SELECT value FROM header WHERE key = 'format'").fetchone()
    if row is None:
        raise damaged(path, ValueError("it names no format"))
    if int(row[0]) > FORMAT:
        raise ConfigError(
            f"{path} was written by a newer version of qsgd-core (record format {row[0]}; this "
            f"version reads {FORMAT}). Upgrade qsgd-core: pip install -U qsgd-core"
        )
    return int(row[0])


def upgrade(db: sqlite3.Connection, path: Path) -> None:
    """Bring the tables to :data:`FORMAT`, all at once or not at all.

    Args:
        db: in no transaction, and with ``isolation_level=None``.
        path: of the file, for messages.
    """
    import sqlalchemy as sa  # only here: most records are up to date

    def note(connection: Connection, reached: str) -> None:
        told = sa.text("UPDATE header SET value = :reached WHERE key = 'format'")
        connection.execute(told, {"reached": reached})

    engine = sa.create_engine("sqlite://", creator=lambda: db, poolclass=sa.StaticPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        found = read_format(db, path)  # another process may have been here first
        if found < FORMAT:
            folder = Path(__file__).parent / "migrations"
            revisions.upgrade(connection, folder, found=found, to=FORMAT, note=note)


def up_to_date(db: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """``db``, or a copy of it in memory where the file, which is left alone, is of an older format.

    ``db`` is closed if it is not returned.
    """
    if read_format(db, path) == FORMAT:
        return db
    copy = sqlite3.connect(":memory:", isolation_level=None)
    with closing(db):
        db.backup(copy)
    upgrade(copy, path)
    return copy


def damaged(path: Path, error: Exception) -> ConfigError:
    """What to say of a file that is not, or no longer, a record."""
    return ConfigError(
        f"{path} cannot be read as the record of a run ({type(error).__name__}: {error}). It is "
        "damaged, or something else; restore it from a copy."
    )
