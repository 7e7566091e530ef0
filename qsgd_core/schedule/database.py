"""How the ledger's database is opened, read and written: one writer at a time, wherever it runs."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from qsgd_core.errors import ConfigError, QSGDError, TransientError
from qsgd_core.schedule import tables

BUSY_S = 30.0
"""How long a writer waits for another one; ``?timeout=5`` in a SQLite URL sets another."""
_WRITERS = 0x71736764
"""PostgreSQL's advisory lock that writers hold: the letters qsgd."""


class Database:
    """SQLite in one file on this host's disk, or PostgreSQL for many hosts.

    Safe to share between threads and to carry over a fork: every transaction has a connection of
    its own.

    Args:
        url: SQLAlchemy URL.

    Raises:
        ConfigError: it cannot be opened, or was written by a newer version.
        TransientError: another process keeps it locked.
    """

    def __init__(self, url: str) -> None:
        try:
            self._url = sa.make_url(url)
        except sa.exc.ArgumentError as error:
            raise ConfigError(
                "QSGD_LEDGER is not a database URL. Give sqlite:////path/to/ledger.sqlite or "
                "postgresql+psycopg://USER@HOST/NAME."
            ) from error
        self._shown = self._url.render_as_string(hide_password=True)
        try:
            self._engine = self._connectable()
            with self.read() as db:
                found = _schema(db)
            if found is None:
                with self.write() as db:
                    found = _schema(db) or _create(db)
        except TransientError:
            raise
        except (QSGDError, DBAPIError, sa.exc.ArgumentError, OSError, ImportError) as error:
            raise ConfigError(
                f"The ledger {self._shown!r} cannot be opened: {_cause(error)}. Check the path and "
                "its permissions, or set QSGD_LEDGER to another (sqlite:////path/to/file or "
                "postgresql+psycopg://USER@HOST/NAME)."
            ) from error
        if found > tables.SCHEMA_VERSION:
            raise ConfigError(
                f"The ledger {self._shown!r} was written by a newer qsgd-core (schema {found}; "
                f"this version reads {tables.SCHEMA_VERSION}). Upgrade qsgd-core, or set "
                "QSGD_LEDGER to another."
            )

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database and hinders nobody."""
        with self._told(), self._engine.connect() as db:
            yield db

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that no other writer's overlaps; all of it is done, or none.

        Raises:
            TransientError: another process keeps the database locked.
        """
        writing = self._engine.execution_options(qsgd_writing=True)
        with self._told(), writing.begin() as db:
            yield db

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Have ``name`` to oneself while entered, or find that another process has it (False).

        The system gives it back when this process dies, however it dies.
        """
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 2
        if self._url.get_backend_name() == "sqlite":
            with _byte_lock(Path(f"{self._url.database}.couriers"), key) as mine:
                yield mine
            return
        with self._told(), self._engine.connect() as db:
            asked = db.execute(sa.select(sa.func.pg_try_advisory_lock(key)))
            yield bool(asked.scalar())
            db.execute(sa.select(sa.func.pg_advisory_unlock(key)))

    def _connectable(self) -> sa.Engine:
        if self._url.get_backend_name() != "sqlite":
            engine = sa.create_engine(self._url, poolclass=sa.pool.NullPool)
            sa.event.listen(engine, "begin", _begin_postgresql)
            return engine
        if not self._url.database or self._url.database == ":memory:":
            raise ConfigError("a ledger in memory would forget what was paid for")
        Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
        arguments = {} if "timeout" in self._url.query else {"timeout": BUSY_S}
        engine = sa.create_engine(self._url, connect_args=arguments, poolclass=sa.pool.NullPool)
        sa.event.listen(engine, "connect", _configure_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what is wrong with the database in words; a broken constraint is left as it is."""
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            if _is_busy(error):
                raise TransientError(
                    f"The ledger {self._shown!r} is locked by another process. If none is at work, "
                    "one hangs: find it with fuser, end it, and try again.",
                    retryable=True,
                ) from error
            raise QSGDError(
                f"The ledger {self._shown!r} cannot be read or written: {_cause(error)}. What was "
                "written before is safe; see to the disk, then go on."
            ) from error


def _schema(db: sa.Connection) -> int | None:
    """The version that the tables were made by; None where there are none."""
    if not sa.inspect(db).has_table(tables.meta.name):
        return None
    query = sa.select(tables.meta.c.value).where(tables.meta.c.key == "schema")
    return int(db.execute(query).scalar_one())


def _create(db: sa.Connection) -> int:
    tables.metadata.create_all(db)
    db.execute(tables.meta.insert().values(key="schema", value=str(tables.SCHEMA_VERSION)))
    return tables.SCHEMA_VERSION


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN would be a deferred one
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=FULL")
    # Switching to WAL does not wait for a lock as everything else does, so it is tried again.
    deadline = time.monotonic() + BUSY_S
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: sa.Connection) -> None:
    writing = connection.get_execution_options().get("qsgd_writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _begin_postgresql(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("qsgd_writing"):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_S:.0f}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")


@contextmanager
def _byte_lock(path: Path, offset: int) -> Iterator[bool]:
    """One byte of a file, locked: a name to oneself without a file for each name."""
    import fcntl

    with path.open("ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except OSError:
            yield False
            return
        yield True


def _is_busy(error: DBAPIError) -> bool:
    return "database is locked" in str(error.orig) or (
        getattr(error.orig, "sqlstate", None) == "55P03"
    )


def _cause(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().removesuffix(".") or type(cause).__name__
