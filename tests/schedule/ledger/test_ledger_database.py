"""A ledger that cannot be used, or not any more: what is said, how soon, and what is kept."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from patience import PATIENCE_S

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.cli import main
from qsgd_core.errors import ConfigError, QSGDError, TransientError
from qsgd_core.schedule.ledger import database
from qsgd_core.schedule.ledger.ledger import Ledger

ROOT = Path(__file__).parents[3]
WORK = Workload((CircuitBatch(ansatz(2, 1), np.zeros((1, 2))),))
NOBODY = 65534


def intent(ledger: Ledger, tag: str = "t") -> str:
    ledger.add_intent(
        WORK, tag=tag, run="r", budget="b", backend="fez", options={}, step=3, part=0,
        attempt=0, shots=8, seed=1,
    )  # fmt: skip
    return tag


def child(script: str, *arguments: str | Path) -> str:
    """What a script prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- it cannot be opened -------------------------------------------------------------------------


def test_a_newer_schema_is_refused_and_left_as_it_is(ledger_url):
    Ledger(ledger_url)
    engine = sa.create_engine(ledger_url, poolclass=sa.pool.NullPool)
    with engine.begin() as db:
        db.execute(sa.text("UPDATE qsgd_meta SET value = '99' WHERE key = 'schema'"))
        db.execute(sa.text("DROP TABLE payloads"))
    with pytest.raises(ConfigError, match=r"newer qsgd-core \(schema 99; this version reads \d+\)"):
        Ledger(ledger_url)
    assert not sa.inspect(engine).has_table("payloads")


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: f"sqlite:////proc/nowhere/{folder.name}/ledger.sqlite",
        lambda folder: f"sqlite:///{folder}",
        lambda folder: "sqlite://",
        lambda folder: "nodatabase+driver://host/name",
        lambda folder: "ledger.sqlite",
    ],
    ids=["unwritable", "a folder", "memory", "unknown", "no URL"],
)
def test_a_ledger_that_cannot_be_opened_says_so_with_the_fix(make, tmp_path):
    with pytest.raises(ConfigError, match=r"QSGD_LEDGER"):
        Ledger(make(tmp_path))


def test_a_file_that_is_no_database_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n" * 500)
    with pytest.raises(ConfigError, match=r"not a database"):
        Ledger(f"sqlite:///{path}")
    assert path.read_text() == "my notes\n" * 500


def test_a_driver_that_is_not_installed_is_named_with_the_way_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'qsgd-core\[postgresql\]'"):
        Ledger("postgresql+psycopg://me@127.0.0.1:1/none")


READ_ONLY = """
import os, sys
from qsgd_core.cli import main
import qsgd_core.cli.commands.budget, qsgd_core.schedule.ledger.ledger
import sqlalchemy.dialects.sqlite.pysqlite
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.exit(main(["budget", "create", "lab", "$5"]) != 2)
"""


@pytest.mark.parametrize("folder_too", [False, True])
def test_a_ledger_that_may_only_be_read_says_so_with_exit_code_2(folder_too):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "ledger.sqlite"
        Ledger(f"sqlite:///{path}").create_budget("mine", {"shots": 5})
        path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        folder.chmod(0o555 if folder_too else 0o777)
        before = path.read_bytes()
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY],
            env={
                "PYTHONPATH": str(ROOT),
                "PATH": os.environ["PATH"],
                "HOME": name,
                "QSGD_LEDGER": f"sqlite:///{path}",
            },
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        folder.chmod(0o777)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith("Error: The ledger 'sqlite:///")
        assert "readonly" in done.stderr or "unable to open" in done.stderr
        assert "permissions" in done.stderr
        assert done.stderr.count("\n") == 1
        assert path.read_bytes() == before


# --- the disk is full ----------------------------------------------------------------------------

FILL = """
import resource, sys
from qsgd_core.errors import QSGDError
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
import numpy as np
work = Workload((CircuitBatch(ansatz(2, 1), np.random.default_rng(0).normal(size=(500, 2))),))
ledger = Ledger(sys.argv[1])
if len(sys.argv) > 2:
    most = int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
made = 0
try:
    while made < 2000:
        ledger.add_intent(work, tag=f"t{made}", run="r", budget="b", backend="x", options={},
                          step=made, part=0, attempt=0, shots=9, seed=0)
        made += 1
except QSGDError as error:
    print(made, type(error).__name__, error)
"""


@pytest.fixture(params=["no room", "no larger file"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder that takes half a megabyte, or the argument that makes the child's limit so."""
    if request.param == "no larger file":
        yield tmp_path, [str(500_000)]
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "none", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system of our own needs root")
    yield tmp_path, []
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_is_told_and_nothing_that_was_written_is_lost(small):
    folder, arguments = small
    path = folder / "ledger.sqlite"
    made, kind, message = child(FILL, f"sqlite:///{path}", *arguments).split(maxsplit=2)
    assert int(made) > 5
    assert kind == "QSGDError"
    assert "cannot be read or written" in message
    assert "full" in message or "disk I/O error" in message
    assert "What was written before is safe" in message
    if arguments:
        ledger = Ledger(f"sqlite:///{path}")
        assert [job.tag for job in ledger.jobs()] == [f"t{k}" for k in range(int(made))]
        assert ledger.job(intent(ledger, "more")).state == "intent"
        assert ledger.workload("t0").n_rows == 500
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# --- others are at it ----------------------------------------------------------------------------


def test_a_locked_database_is_waited_for_and_then_told(tmp_path):
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    Ledger(url)
    impatient = Ledger(f"{url}?timeout=0.05")
    other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TransientError, match=r"is locked by another process") as caught:
        intent(impatient)
    assert caught.value.retryable
    assert impatient.jobs() == []  # reading waits for nobody
    other.execute("COMMIT")
    other.close()
    assert impatient.job(intent(impatient)).state == "intent"


def test_a_locked_database_is_one_paragraph_and_exit_code_1(tmp_path, monkeypatch, capsys):
    path = tmp_path / "ledger.sqlite"
    monkeypatch.setenv("QSGD_LEDGER", f"sqlite:///{path}?timeout=0.05")
    assert main(["budget", "create", "mine", "$5"]) == 0
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert main(["budget", "create", "lab", "$5"]) == 1
        other.execute("ROLLBACK")
    said = capsys.readouterr().err
    assert "is locked by another process" in said
    assert "fuser" in said
    assert said.count("\n") == 1


# --- PostgreSQL ----------------------------------------------------------------------------------


def test_no_password_of_the_url_is_shown():
    with pytest.raises(ConfigError) as caught:
        Ledger("postgresql+psycopg://me:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(caught.value)


def test_a_server_that_refuses_is_one_paragraph_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setenv("QSGD_LEDGER", "postgresql+psycopg://me@127.0.0.1:1/none")
    assert main(["budget", "show"]) == 2
    said = capsys.readouterr().err
    assert "refused" in said
    assert "Check the server and the URL, or set QSGD_LEDGER" in said
    assert said.count("\n") == 1


def test_a_server_that_does_not_answer_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(ConfigError, match=r"cannot be opened: .*timeout"):
            Ledger(f"postgresql+psycopg://me@127.0.0.1:{port}/none?connect_timeout=2")
        assert time.monotonic() - begun < 3 * 2
    assert database.ANSWER_S <= 10


@pytest.mark.slow
def test_a_writer_that_hangs_on_postgresql_is_waited_for_and_then_told(postgres, monkeypatch):
    url = postgres.new_database()
    ledger = Ledger(url)
    with ledger._database.write():
        monkeypatch.setattr(database, "BUSY_S", 0.05)
        with pytest.raises(TransientError, match=r"is locked by another process") as caught:
            intent(Ledger(url))
        assert caught.value.retryable
        assert ledger.jobs() == []
    assert ledger.job(intent(ledger)).state == "intent"


def cut(url: str, which: str) -> None:
    """The server cuts other clients' connections."""
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.begin() as db:
        db.execute(sa.text(f"SELECT pg_terminate_backend(pid) FROM {which}"))


@pytest.mark.slow
def test_a_connection_that_breaks_is_told_as_something_that_may_work_again(postgres):
    url = postgres.new_database()
    ledger = Ledger(url)

    def write_while_it_is_cut() -> None:
        with ledger._database.write() as db:
            mine = db.execute(sa.text("SELECT pg_backend_pid()")).scalar()
            cut(url, f"pg_stat_activity WHERE pid = {mine}")
            db.execute(sa.text("SELECT 1"))

    with pytest.raises(TransientError, match=r"does not answer") as caught:
        write_while_it_is_cut()
    assert caught.value.retryable
    assert ledger.job(intent(ledger)).state == "intent"


@pytest.mark.slow
def test_a_server_that_may_only_be_read_is_a_mistake_in_what_was_asked(postgres):
    url = postgres.new_database()
    Ledger(url)
    standby = Ledger(f"{url}?options=-c%20default_transaction_read_only%3Don")
    assert standby.jobs() == []
    with pytest.raises(ConfigError, match=r"cannot be written: .*read-only.*permissions"):
        intent(standby)


@pytest.mark.slow
def test_a_courier_whose_claim_the_server_has_cut_writes_nothing_more(postgres):
    url = postgres.new_database()
    ledger = Ledger(url)
    with ledger.serve("r") as alone:
        assert alone
        assert ledger.job(intent(ledger)).state == "intent"
        cut(url, "pg_locks WHERE locktype = 'advisory'")
        with ledger.serve("r") as other:
            assert other
        with pytest.raises(QSGDError, match=r"another process may have taken over") as caught:
            ledger.cancel("t")
        assert not isinstance(caught.value, TransientError)  # it does not become right by waiting
    assert ledger.cancel("t").state == "failed"
