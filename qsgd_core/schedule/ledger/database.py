"""How the ledger's database is opened, read and written: one writer at a time, wherever it runs."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import sqlite3
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from qsgd_core.errors import ConfigError, QSGDError, TransientError
from qsgd_core.schedule.ledger import schema, writes

BUSY_S = 30.0
"""How long a writer waits for another one; ``?timeout=5`` in a SQLite URL sets another."""
ANSWER_S = 10
"""How long PostgreSQL may take to answer; ``?connect_timeout=3`` in its URL sets another."""
_WRITERS = 0x71736764
"""PostgreSQL's advisory lock that writers hold: the letters qsgd."""
_KEEPALIVE = {"tcp_keepalives_idle": 60, "tcp_keepalives_interval": 15, "tcp_keepalives_count": 4}
"""After two minutes PostgreSQL takes a host for dead and gives back what it had to itself."""


logger = logging.getLogger("qsgd_core")


class Database:
    """SQLite in one file on this host's disk, or PostgreSQL for many hosts.

    Safe to share between threads and to carry over a fork: no two transactions at a time share a
    connection, and no two processes ever.

    Args:
        url: SQLAlchemy URL; the file of a relative one is the one that it names now.
        known_as: id of the ledger that is to be there; None: whichever is, or a new one.
        seen: a write that is to be in it.

    Attributes:
        id: of this ledger; a copy has the same.
        seen: the newest write that was found in it.

    Raises:
        ConfigError: it cannot be opened, or was written by a newer version.
        QSGDError: it is another one, or an older copy.
        TransientError: another process keeps it locked.
    """

    def __init__(
        self, url: str, *, known_as: str | None = None, seen: writes.Write = writes.NONE
    ) -> None:
        try:
            self._url = sa.make_url(url)
        except sa.exc.ArgumentError as error:
            raise ConfigError(
                "QSGD_LEDGER is not a database URL. Give sqlite:////path/to/ledger.sqlite or "
                "postgresql+psycopg://USER@HOST/NAME."
            ) from error
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._path = _file_of(self._url) if self._sqlite else Path()
        if self._sqlite and self._url.database and self._url.database != ":memory:":
            whole = self._path.as_uri() if "uri" in self._url.query else str(self._path)
            self._url = self._url.set(database=whole)
        self._shown = self._url.render_as_string(hide_password=True)
        self._claims: list[sa.Connection] = []
        self._make = known_as is None
        self.id = known_as or ""
        self.seen = seen
        try:
            self._engine = self._connectable()
            self._owner = os.getpid()
            weakref.finalize(self, _close, self._engine, self._owner)
            with self._reading() as db:
                found = schema.version(db)
            if found is None or found < schema.VERSION:
                found = self._upgrade()
        except ImportError as error:
            raise ConfigError(
                f"The ledger {self._shown!r} needs a driver that is not installed ({error}): "
                "pip install 'qsgd-core[postgresql]', and write postgresql+psycopg://USER@HOST/NAME."
            ) from error
        except (QSGDError, DBAPIError, sa.exc.ArgumentError, OSError) as error:
            if isinstance(error, TransientError) and _is_busy(error.__cause__):
                raise
            raise ConfigError(
                f"The ledger {self._shown!r} cannot be opened: {_cause(error)}. Check "
                + ("the path and its permissions" if self._sqlite else "the server and the URL")
                + ", or set QSGD_LEDGER to another (sqlite:////path/to/file or "
                "postgresql+psycopg://USER@HOST/NAME)."
            ) from error
        self._make = False
        if found > schema.VERSION:
            raise ConfigError(
                f"The ledger {self._shown!r} was written by a newer qsgd-core (schema {found}; "
                f"this version reads {schema.VERSION}). Upgrade qsgd-core, or set "
                "QSGD_LEDGER to another."
            )
        with self._reading() as db:  # it is the one that is to be there
            self.id = self.id or schema.ledger_id(db)
            self.seen = writes.newest(db, self.id, seen, shown=self._shown)

    @property
    def url(self) -> str:
        """The URL, absolute."""
        return self._url.render_as_string(hide_password=False)

    def _upgrade(self) -> int:
        """Make the tables, or bring older ones up to date; of two processes the second finds them.

        What a SQLite ledger was before is kept beside it.
        """
        moving = self._open().execution_options(qsgd_writing=True, qsgd_foreign_keys=False)
        with self._told(), moving.begin() as db:
            found = schema.version(db)
            if found is not None and found >= schema.VERSION:
                return found
            if found is not None and self._sqlite:
                copy = Path(f"{self._path}.schema-{found}")
                _copy_sqlite(self._path, copy)
                logger.info("The ledger as it was before this version is kept in %s.", copy)
            schema.upgrade(db)
            if self._sqlite and db.exec_driver_sql("PRAGMA foreign_key_check").fetchall():
                raise QSGDError("its payloads name jobs that are not there: it is damaged")
        return schema.VERSION

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database and hinders nobody.

        Raises:
            QSGDError: the ledger was deleted, or replaced by another or by an older copy.
        """
        seen = self.seen  # before it begins: another thread may write meanwhile
        with self._reading() as db:
            self.seen = writes.newest(db, self.id, seen, shown=self._shown)
            yield db

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        """A reading transaction, whatever is there."""
        level = {} if self._sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._told(), self._open().execution_options(**level).connect() as db:
            yield db

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that no other writer's overlaps; all of it is done, or none.

        Raises:
            TransientError: another process keeps the database locked, or PostgreSQL does not answer
                for a moment.
            ConfigError: it may only be read.
            QSGDError: what this process had to itself (:meth:`claim`) is lost, or the ledger was
                deleted, or replaced by another or by an older copy; it must end.
        """
        self._require_claims()
        writing, seen = self._open().execution_options(qsgd_writing=True), self.seen
        with self._told(), writing.begin() as db:
            last = writes.newest(db, self.id, seen, shown=self._shown)
            before = writes.changes(db)
            yield db
            this = last if writes.changes(db) == before else writes.add(db, last)
        self.seen = this  # only now it is there for good

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Have ``name`` to oneself while entered, or find that another process has it (False).

        The system gives it back when this process dies, however it dies.
        """
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 2
        if self._sqlite:
            with _byte_lock(Path(f"{self._path}.couriers"), key) as mine:
                yield mine
            return
        # The lock lasts as long as this connection, which is used for nothing else.
        holding = self._open().execution_options(isolation_level="AUTOCOMMIT")
        with self._told():
            db = holding.connect()
        try:
            with self._told():
                for setting, value in _KEEPALIVE.items():
                    db.exec_driver_sql(f"SET {setting} = {value}")
                mine = bool(db.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar())
            if mine:
                self._claims.append(db)
            yield mine
        finally:
            if db in self._claims:
                self._claims.remove(db)
            db.invalidate()  # closes it, whatever state it is in, and so unlocks
            db.close()

    def _require_claims(self) -> None:
        """Raise if PostgreSQL has given away what this process had to itself."""
        try:
            for db in self._claims:
                db.exec_driver_sql("SELECT 1")
        except DBAPIError as error:
            raise QSGDError(
                f"The connection that kept others away was cut by the ledger {self._shown!r} "
                f"({_cause(error)}): another process may have taken over. Start again to go on."
            ) from error

    def _open(self) -> sa.Engine:
        """The engine; a process that was forked off leaves its parent's connections alone."""
        if os.getpid() != self._owner:
            self._engine.dispose(close=False)
            self._owner = os.getpid()
        return self._engine

    def _connectable(self) -> sa.Engine:
        if not self._sqlite:
            if self._url.get_backend_name() != "postgresql":
                raise ConfigError("only SQLite and PostgreSQL keep a ledger")
            patience = {} if "connect_timeout" in self._url.query else {"connect_timeout": ANSWER_S}
            # Kept open: connecting takes longer than a transaction. Tried before use: a server that
            # was started again has cut them.
            engine = sa.create_engine(self._url, connect_args=patience, pool_pre_ping=True)
            sa.event.listen(engine, "begin", _begin_postgresql)
            return engine
        if not self._url.database or self._url.database == ":memory:":
            raise ConfigError("a ledger in memory would forget what was paid for")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        arguments = {} if "timeout" in self._url.query else {"timeout": BUSY_S}
        engine = sa.create_engine(self._url, connect_args=arguments, poolclass=sa.pool.NullPool)
        sa.event.listen(engine, "do_connect", self._name_file)
        sa.event.listen(engine, "connect", _configure_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _name_file(
        self, _dialect: object, _record: object, names: list[str], options: dict[str, Any]
    ) -> None:
        """Every transaction opens the file again; only the first one may make it."""
        if not self._make and not self._path.exists():
            raise QSGDError(
                f"The ledger {self._shown!r} is not there any more: the file was deleted or moved "
                "while in use. Nothing more is bought. Put it back where it was, then go on."
            )
        asked = urlsplit(names[0]).query if options.get("uri") else ""
        mode = "" if "mode=" in asked else f"mode={'rwc' if self._make else 'rw'}"
        names[0] = f"{self._path.as_uri()}?{'&'.join(filter(None, (asked, mode)))}"
        options["uri"] = True

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
            if not self._sqlite and _is_cut(error):
                raise TransientError(
                    f"The ledger {self._shown!r} does not answer: {_cause(error)}. What was "
                    "written before is safe.",
                    retryable=True,
                ) from error
            if _is_read_only(error):
                raise ConfigError(
                    f"The ledger {self._shown!r} cannot be written: {_cause(error)}. See to its "
                    "permissions, or set QSGD_LEDGER to another."
                ) from error
            if self._sqlite and _is_damaged(error):
                raise QSGDError(
                    f"The ledger {self._shown!r} is damaged: {_cause(error)}. What it says cannot "
                    "be relied on: end what is running, restore the file from a copy, and compare "
                    "it with the vendors' own lists of jobs before anything more is bought."
                ) from error
            raise QSGDError(
                f"The ledger {self._shown!r} cannot be read or written: {_cause(error)}. What was "
                "written before is safe; see to the disk, then go on."
            ) from error


def ledger_exists(url: str) -> bool:
    """Whether there is a ledger, or anything else that :class:`Database` has a word on.

    False only where opening it would make one.
    """
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            path = _file_of(parsed)
            return path.exists() and (path.is_dir() or path.stat().st_size > 0)
        patience = {"connect_timeout": ANSWER_S} if "connect_timeout" not in parsed.query else {}
        engine = sa.create_engine(parsed, connect_args=patience, poolclass=sa.pool.NullPool)
        with engine.connect() as db:
            return schema.version(db) is not None
    except (DBAPIError, sa.exc.ArgumentError, ImportError, OSError):
        return True


def _file_of(url: sa.URL) -> Path:
    """The SQLite file that a URL names, absolute; SQLite's own ``file:`` form included."""
    name = url.database or ""
    if "uri" in url.query and name.startswith("file:"):
        name = unquote(urlsplit(name).path)
    return Path(name).expanduser().absolute()


def _close(engine: sa.Engine, owner: int) -> None:
    if os.getpid() == owner:
        engine.dispose()


def _configure_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # the driver's own BEGIN would be a deferred one
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=FULL")
    # Switching to WAL does not wait for a lock as everything else does, so it is tried again.
    deadline = time.monotonic() + BUSY_S
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise ConfigError(
                "SQLite cannot keep a write-ahead log there (it stays with "
                f"{mode!r}), as on network file systems, where two processes would not see each "
                "other's holds. Keep the ledger on a disk of this host, or in PostgreSQL"
            )


def _copy_sqlite(path: Path, to: Path) -> None:
    """A copy of the whole database, on the disk before it has its name."""
    part = to.with_name(to.name + ".tmp")
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(part)) as copy:
        db.backup(copy)
    part.chmod(path.stat().st_mode)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(to)


def _begin_sqlite(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("qsgd_foreign_keys", True):  # no statement for within a transaction
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("qsgd_writing") else "BEGIN")


def _begin_postgresql(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("qsgd_writing"):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_S * 1000:.0f}ms'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")


@contextmanager
def _byte_lock(path: Path, offset: int) -> Iterator[bool]:
    """One byte of a file, locked: a name to oneself without a file for each name."""
    import fcntl

    with path.open("ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                yield False
                return
            raise ConfigError(
                f"{path} cannot be locked ({error.strerror}): its file system knows no locks, so "
                "nothing keeps two processes from submitting the same job. Keep the ledger on a "
                "disk of this host, or in PostgreSQL: set QSGD_LEDGER to another."
            ) from error
        yield True


def _is_busy(error: BaseException | None) -> bool:
    return isinstance(error, DBAPIError) and (
        "database is locked" in str(error.orig) or getattr(error.orig, "sqlstate", None) == "55P03"
    )


def _is_damaged(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # without what SQLite adds to it
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _is_read_only(error: DBAPIError) -> bool:
    return "readonly database" in str(error.orig) or (
        getattr(error.orig, "sqlstate", None) == "25006"
    )


def _is_cut(error: DBAPIError) -> bool:
    """Whether the server is away: no connection, one that broke, or it is starting or stopping."""
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        return isinstance(error, OperationalError)
    return state[:2] in ("08", "53") or state in ("57P01", "57P02", "57P03")


def _cause(error: BaseException) -> str:
    """What the driver says, in one line."""
    if isinstance(error, TransientError) and error.__cause__ is not None:
        error = error.__cause__
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split()).rstrip(".?") or type(cause).__name__
