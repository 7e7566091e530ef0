"""A ledger that is deleted, or replaced by another or by an older copy of itself, while in use."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch

import qsgd_core as qsgd
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import QSGDError
from qsgd_core.events import Event, ScheduleChanged
from qsgd_core.schedule.ledger import writes
from qsgd_core.schedule.ledger.ledger import Ledger

WORK = Workload((CircuitBatch(ansatz(2, 1), np.zeros((1, 2))),))


def intent(ledger: Ledger, tag: str) -> None:
    ledger.add_intent(
        WORK, tag=tag, run="r", budget="b", backend="fez", options={}, step=3, part=0,
        attempt=0, shots=8, seed=1,
    )  # fmt: skip


def copied(path: Path, to: Path) -> Path:
    """A copy that holds all that was committed."""
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(to)) as copy:
        db.backup(copy)
    return to


def put_back(copy: Path, path: Path) -> None:
    """The copy takes the place of the file and of what SQLite keeps beside it.

    At no moment is there a file that is neither of the two, whoever reads meanwhile.
    """
    with closing(sqlite3.connect(path, timeout=60)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    Path(shutil.copy(copy, path.with_name("put-back"))).replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    made = Ledger(f"sqlite:///{path}")
    made.create_budget("b", {"shots": 100})
    return made


# --- what is noticed -----------------------------------------------------------------------------


def test_an_older_copy_is_neither_read_nor_written_and_stays_as_it_is(ledger, path, tmp_path):
    intent(ledger, "before")
    copy = copied(path, tmp_path / "copy")
    intent(ledger, "after")
    put_back(copy, path)
    for act in (ledger.jobs, ledger.caps, lambda: intent(ledger, "more")):
        with pytest.raises(QSGDError, match=r"older copy of the ledger that it was.*jobs audit"):
            act()
    assert [job.tag for job in Ledger(ledger.url).jobs()] == ["before"]


def test_an_older_copy_is_noticed_although_others_have_gone_on_with_it(ledger, path, tmp_path):
    copy = copied(path, tmp_path / "copy")
    intent(ledger, "mine")
    put_back(copy, path)
    other = Ledger(ledger.url)
    for k in range(5):
        intent(other, f"theirs{k}")
    for act in (ledger.jobs, lambda: intent(ledger, "more")):
        with pytest.raises(QSGDError, match="older copy"):
            act()
    assert len(other.jobs()) == 5


def test_who_only_reads_notices_an_older_copy_of_what_others_wrote(ledger, path, tmp_path):
    copy = copied(path, tmp_path / "copy")
    reader = Ledger(ledger.url)
    intent(ledger, "new")
    assert len(reader.jobs()) == 1
    put_back(copy, path)
    with pytest.raises(QSGDError, match="older copy"):
        reader.jobs()


def test_a_copy_from_before_writes_were_numbered_is_noticed(path, tmp_path):
    old = Path(__file__).parents[2] / "data" / "972479e" / "ledgers" / "ended" / "ledger.sqlite"
    shutil.copy(old, path)
    ledger = Ledger(f"sqlite:///{path}")
    put_back(old, path)
    for act in (ledger.jobs, lambda: ledger.create_budget("c", {"shots": 1})):
        with pytest.raises(QSGDError, match="deleted or replaced while in use"):
            act()


def test_a_write_that_was_seen_is_looked_for_by_whoever_is_told_of_it(ledger, path, tmp_path):
    copy = copied(path, tmp_path / "copy")
    intent(ledger, "new")
    told = {"known_as": ledger.id, "seen": ledger.seen}
    assert len(Ledger(ledger.url, **told).jobs()) == 1
    put_back(copy, path)
    with pytest.raises(QSGDError, match="older copy"):
        Ledger(ledger.url, **told)


@pytest.mark.slow
def test_an_older_copy_of_a_postgresql_database_is_noticed(postgres):
    url = postgres.new_database()
    name = sa.make_url(url).database
    ledger = Ledger(url)
    intent(ledger, "before")
    server = sa.make_url(postgres.new_database())
    engine = sa.create_engine(server, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")

    def do(*statements: str) -> None:
        with engine.connect() as db:
            db.execute(
                sa.text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :n"
                ),
                {"n": name},
            )
            for statement in statements:
                db.execute(sa.text(statement))

    do(f'CREATE DATABASE "{name}_copy" TEMPLATE "{name}"')
    intent(ledger, "after")
    do(f'DROP DATABASE "{name}"', f'ALTER DATABASE "{name}_copy" RENAME TO "{name}"')
    for act in (ledger.jobs, lambda: intent(ledger, "more")):
        with pytest.raises(QSGDError, match="older copy"):
            act()
    assert [job.tag for job in Ledger(url).jobs()] == ["before"]


# --- what is no cause for alarm ------------------------------------------------------------------


def vacuum(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM")


def checkpoint(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def move_away_and_back(path: Path) -> None:
    away = Path(shutil.copy(path, path.with_name("away")))
    path.unlink()
    shutil.copy(away, path)


def replace_by_the_same(path: Path) -> None:
    put_back(copied(path, path.with_name("same")), path)


def write_from_elsewhere(path: Path) -> None:
    other = Ledger(f"sqlite:///{path}")
    for k in range(3):
        intent(other, f"other{k}")


def give_up_a_write(path: Path) -> None:
    """Another process is killed before its commit."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO writes (number, name) SELECT max(number) + 1, 'x' FROM writes")


@pytest.mark.parametrize(
    "act",
    [
        vacuum,
        checkpoint,
        move_away_and_back,
        replace_by_the_same,
        write_from_elsewhere,
        give_up_a_write,
    ],
)
def test_the_ledger_itself_is_never_taken_for_an_older_copy(ledger, path, act):
    intent(ledger, "before")
    act(path)
    assert "before" in {job.tag for job in ledger.jobs()}
    intent(ledger, "after")
    act(path)
    intent(ledger, "last")
    assert {"before", "after", "last"} <= {job.tag for job in ledger.jobs()}


def test_a_write_that_fails_is_not_looked_for(ledger):
    with pytest.raises(QSGDError):
        ledger.create_budget("b", {"shots": 1})
    intent(ledger, "a")
    assert len(ledger.jobs()) == 1


def test_only_the_newest_writes_are_kept_and_who_was_away_for_long_goes_on(ledger_url, monkeypatch):
    monkeypatch.setattr(writes, "KEPT", 10)
    away = Ledger(ledger_url)
    away.create_budget("b", {"shots": 1000})
    other = Ledger(ledger_url)
    for k in range(25):
        intent(other, f"t{k}")
    engine = sa.create_engine(ledger_url, poolclass=sa.pool.NullPool)
    with engine.connect() as db:
        numbers = db.execute(sa.text("SELECT number FROM writes ORDER BY number")).scalars().all()
    assert numbers == list(range(11, 27))
    assert len(away.jobs()) == 25
    intent(away, "mine")


def test_threads_that_read_and_write_at_once_see_the_same_ledger(ledger_url):
    shared, other = Ledger(ledger_url), Ledger(ledger_url)
    wrong: list[BaseException] = []

    def work(ledger: Ledger, name: str) -> None:
        try:
            for k in range(12):
                intent(ledger, f"{name}-{k}")
                for _ in range(4):
                    ledger.jobs(run="none")
        except BaseException as error:  # noqa: BLE001  the test shows it
            wrong.append(error)

    names = {"a": shared, "b": shared, "c": shared, "d": other}
    threads = [threading.Thread(target=work, args=(names[name], name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(shared.jobs()) == 48


# --- a paid run in the middle of it --------------------------------------------------------------


class Stop(BaseException):
    """Somebody has read what is said and ends the program, as with Ctrl-C."""


class Training:
    """Three steps of a paid run, a copy of its ledger, three more; then something happens to it."""

    def __init__(self, term: dict[str, Any], path: Path, vendor: Path) -> None:
        torch.manual_seed(0)
        self.path, self.vendor = path, vendor
        self.params = [torch.nn.Parameter(torch.randn(3, 4))]
        self.optimizer = qsgd.QSGD(self.params, lr=0.01, observers=[self.hear], every=1, **term)
        self.steps(3)
        self.copy = copied(path, path.with_name("copy"))
        self.steps(3)

    def steps(self, n: int) -> None:
        for _ in range(n):
            for p in self.params:
                p.grad = torch.ones_like(p)
            self.optimizer.step()

    def sold(self) -> int:
        return len(list((self.vendor / "jobs").glob("*.json")))

    def hear(self, event: Event) -> None:
        if isinstance(event, ScheduleChanged) and event.what == "stopped":
            raise Stop(event.message)


def delete(training: Training) -> None:
    training.path.unlink()


def replace_by_another(training: Training) -> None:
    other = training.path.with_name("other")
    Ledger(f"sqlite:///{other}").create_budget("b", {"micro_usd": 10**9})
    put_back(copied(other, training.path.with_name("whole")), training.path)


def replace_by_an_older_copy(training: Training) -> None:
    put_back(training.copy, training.path)


def replace_and_kill_the_courier(training: Training) -> None:
    """Nobody is left who has seen what the older copy lacks, but the trainer who was told of it."""
    put_back(training.copy, training.path)
    for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        if b"qsgd_core.children.courier" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize(
    "act, words",
    [
        (delete, "is not there any more"),
        (replace_by_another, "is another ledger than it was"),
        (replace_by_an_older_copy, "is an older copy of the ledger"),
        (replace_and_kill_the_courier, "is an older copy of the ledger"),
    ],
)
def test_a_ledger_that_goes_in_the_middle_of_a_paid_run_is_noticed_before_anything_more_is_bought(
    paid, tmp_path, act: Callable[[Training], None], words
):
    term, _ = paid
    training = Training(term, tmp_path / "ledger.sqlite", tmp_path / "vendor")
    before = training.sold()
    assert before == 6
    act(training)
    with pytest.raises(Stop, match=words):
        training.steps(1)
    training.optimizer.close(finished=False)
    assert training.sold() == before
    if act is not delete:
        with closing(sqlite3.connect(training.path)) as db:
            jobs = db.execute("SELECT count(*) FROM jobs").fetchone()
        assert jobs == ((0,) if act is replace_by_another else (3,))
