"""A ledger of an older version is brought up to date as it is opened, with money in flight."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from qsgd_core.errors import ConfigError
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.ledger import schema, tables
from qsgd_core.schedule.ledger.audit import audit
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.states import MOVES, OPEN, LedgerState

OLD = Path(__file__).parents[2] / "data" / "972479e"
EXPECTED = json.loads((OLD / "expected.json").read_text())["ledgers"]
LATER = 1_800_000_000.0


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, tuple[str, Path]]]:
    """A copy of the ledgers of 972479e: URL and vendor of each, and what was in them."""
    where = tmp_path / "old"
    if request.param == "sqlite":
        shutil.copytree(OLD / "ledgers", where)
        yield {
            name: (f"sqlite:///{where / name / 'ledger.sqlite'}", where / name / "vendor")
            for name in ("ended", "in_flight")
        }
        return
    shutil.copytree(OLD / "ledgers" / "postgresql", where)
    url = request.getfixturevalue("postgres").new_database()
    restore(url)
    yield {name: (url, where / name / "vendor") for name in ("ended", "in_flight")}


def restore(url: str) -> None:
    """What pg_dump wrote, into an empty database."""
    import psycopg

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as db:
        db.execute((OLD / "ledgers" / "postgresql" / "ledger.sql").read_text())


def expected(url: str, name: str) -> dict[str, Any]:
    """What the old code saw in it."""
    if name == "in_flight" and url.startswith("postgresql"):
        return EXPECTED["postgresql"]
    return EXPECTED[name]


def stem(tag: str) -> str:
    """A stray's tag ends with something of the vendor's id."""
    return tag.partition("+")[0] + "+" * ("+" in tag)


def seen(ledger: Ledger, run: str) -> dict[str, Any]:
    return {
        stem(job.tag): {
            "state": str(job.state),
            "hold": asdict(job.hold),
            "spent": asdict(job.spent),
            "digest": job.digest,
        }
        for job in ledger.jobs(run=run)
    }


def sold(vendor: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (vendor / "jobs").glob("*.json")]


@pytest.mark.parametrize("name", ["ended", "in_flight"])
def test_every_job_and_budget_of_an_older_ledger_is_as_it_was(old, name):
    url, _ = old[name]
    ledger = Ledger(url)
    run = name.replace("_", "-")
    then = {stem(tag): job for tag, job in expected(url, name)["jobs"].items()}
    assert seen(ledger, run) == {
        tag: {key: job[key] for key in ("state", "hold", "spent", "digest")}
        for tag, job in then.items()
    }
    errors = {stem(job.tag): job.error and str(job.error) for job in ledger.jobs(run=run)}
    assert all((errors[tag] is None) == (job["error"] is None) for tag, job in then.items())
    if not url.startswith("postgresql"):  # its jobs had other ids
        assert errors == {tag: job["error"] for tag, job in then.items()}
    budgets = {f"{cap.budget} {cap.unit}": asdict(cap) for cap in ledger.caps()}
    assert expected(url, name)["caps"].items() <= budgets.items()
    assert audit(ledger, run).balanced
    first = ledger.jobs(run=run)[0]
    assert ledger.workload(first.tag).digest() == first.digest
    assert ledger.asked(first.tag) == b"the question"
    assert ledger.result(first.tag).expectations(ledger.workload(first.tag))
    assert ledger.run(run).pinned == "filebox:x"


def test_money_in_flight_on_an_older_ledger_is_settled_and_nothing_is_paid_twice(filebox, old):
    from qsgd_filebox.backend import Filebox
    from qsgd_filebox.options import FileboxOptions

    url, vendor = old["in_flight"]
    before = {job["id"] for job in sold(vendor)}
    now = [LATER]
    ledger = Ledger(url, clock=lambda: now[0])
    options = json.loads(ledger.run("in-flight").options) | {"folder": vendor}
    backend = Filebox(
        "filebox:x", FileboxOptions(**options), clock=lambda: now[0], sleep=lambda _: None
    )
    courier = Courier(ledger, backend, run="in-flight", clock=lambda: now[0], timer=lambda: now[0])
    for _ in range(20):
        courier.round()
        now[0] += 3_700.0
    assert ledger.jobs(run="in-flight", states=OPEN) == []
    states = {job.step: job.state for job in ledger.jobs(run="in-flight")}
    assert states.pop(3) is LedgerState.REFUNDED  # it was lost on the way there
    assert set(states.values()) == {LedgerState.SETTLED}
    there = sold(vendor)
    assert before < {job["id"] for job in there}
    assert len({job["tag"] for job in there}) == len(there) == 5
    (cap,) = ledger.caps("purse")
    paid = sum(job["micro_usd"] for job in there)
    assert (cap.reserved, cap.spent, cap.overrun) == (0, paid, 0)
    assert audit(ledger, "in-flight").balanced


def test_a_ledger_that_was_brought_up_to_date_is_like_a_new_one(old, tmp_path, request):
    url, _ = old["ended"]
    Ledger(url)
    fresh = f"sqlite:///{tmp_path / 'new.sqlite'}"
    if url.startswith("postgresql"):
        fresh = request.getfixturevalue("postgres").new_database()
    Ledger(fresh)
    assert described(url) == described(fresh)


def described(url: str) -> dict[str, Any]:
    """Columns, keys, indices and checks of every table."""
    look = sa.inspect(sa.create_engine(url, poolclass=sa.pool.NullPool))
    return {
        name: {
            "columns": sorted(
                (c["name"], str(c["type"]), c["nullable"]) for c in look.get_columns(name)
            ),
            "key": look.get_pk_constraint(name)["constrained_columns"],
            "foreign": [f["referred_table"] for f in look.get_foreign_keys(name)],
            "indices": sorted((i["name"], *i["column_names"]) for i in look.get_indexes(name)),
            "checks": sorted((c["name"], c["sqltext"]) for c in look.get_check_constraints(name)),
        }
        for name in look.get_table_names()
    }


def test_the_tables_are_what_the_newest_revision_makes_and_its_number_is_theirs(ledger_url):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    Ledger(ledger_url)
    engine = sa.create_engine(ledger_url, poolclass=sa.pool.NullPool)
    with engine.connect() as db:
        context = MigrationContext.configure(db)
        assert compare_metadata(context, tables.metadata) == []
        assert schema.version(db) == schema.VERSION
        assert context.get_current_revision() == str(schema.VERSION)
    scripts = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
    assert scripts.get_heads() == [str(schema.VERSION)]
    checks = {
        (table.name, check.name)
        for table in tables.metadata.tables.values()
        for check in table.constraints
        if isinstance(check, sa.CheckConstraint)
    }
    made = described(ledger_url)
    assert checks == {(name, check[0]) for name in made for check in made[name]["checks"]}
    if engine.dialect.name == "sqlite":  # PostgreSQL writes them in words of its own
        texts = {c.name: str(c.sqltext) for c in tables.jobs.constraints if c.name}
        assert dict(made["jobs"]["checks"]) == {n: t for n, t in texts.items() if n}


@pytest.mark.parametrize("after", list(LedgerState))
@pytest.mark.parametrize("before", list(LedgerState))
def test_the_database_takes_the_moves_of_the_table_and_no_other(tmp_path_factory, before, after):
    db = checked(tmp_path_factory)
    db.execute("SAVEPOINT try")
    try:
        db.execute("UPDATE jobs SET state = ?, came_from = ?", (after, before))
        taken = True
    except sqlite3.IntegrityError:
        taken = False
    db.execute("ROLLBACK TO try")
    assert taken == (after in MOVES[before])


_CHECKED: list[sqlite3.Connection] = []


def checked(factory: pytest.TempPathFactory) -> sqlite3.Connection:
    """A ledger with one job, opened by hand."""
    if not _CHECKED:
        path = factory.mktemp("checked") / "ledger.sqlite"
        shutil.copy(OLD / "ledgers" / "ended" / "ledger.sqlite", path)
        Ledger(f"sqlite:///{path}")
        _CHECKED.append(sqlite3.connect(path, isolation_level=None))
    return _CHECKED[0]


def test_a_state_that_does_not_exist_is_refused_by_the_database(old):
    url, _ = old["ended"]
    Ledger(url)
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with pytest.raises(sa.exc.IntegrityError, match="known_state"), engine.begin() as db:
        db.execute(sa.text("UPDATE jobs SET state = 'maybe', came_from = NULL"))


# --- how it is done ------------------------------------------------------------------------------


@pytest.fixture
def in_flight(tmp_path: Path) -> Path:
    return Path(shutil.copy(OLD / "ledgers" / "in_flight" / "ledger.sqlite", tmp_path))


def test_what_a_sqlite_ledger_was_before_is_kept_beside_it(in_flight):
    before = sqlite3.connect(in_flight).execute("SELECT * FROM jobs ORDER BY tag").fetchall()
    Ledger(f"sqlite:///{in_flight}")
    kept = in_flight.with_name("ledger.sqlite.schema-1")
    with closing(sqlite3.connect(kept)) as db:
        assert db.execute("SELECT * FROM jobs ORDER BY tag").fetchall() == before
        assert db.execute("SELECT value FROM qsgd_meta").fetchall() == [("1",)]
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    kept.unlink()
    Ledger(f"sqlite:///{in_flight}")
    assert not kept.exists()


def test_a_version_without_revisions_sees_that_the_ledger_is_newer(in_flight):
    Ledger(f"sqlite:///{in_flight}")
    with closing(sqlite3.connect(in_flight)) as db:
        found = db.execute("SELECT value FROM qsgd_meta WHERE key = 'schema'").fetchall()
    assert found == [(str(schema.VERSION),)]


def test_an_upgrade_that_fails_leaves_the_ledger_as_it_was(in_flight, monkeypatch):
    content = sqlite3.connect(in_flight).execute("SELECT * FROM jobs").fetchall()
    real = schema.upgrade

    def broken(db: sa.Connection) -> None:
        real(db)
        raise OSError("No space left on device")

    monkeypatch.setattr(schema, "upgrade", broken)
    with pytest.raises(ConfigError, match=r"cannot be opened: .*No space left"):
        Ledger(f"sqlite:///{in_flight}")
    with closing(sqlite3.connect(in_flight)) as db:
        assert db.execute("SELECT * FROM jobs").fetchall() == content
        assert db.execute("SELECT value FROM qsgd_meta").fetchall() == [("1",)]
    monkeypatch.undo()
    assert len(Ledger(f"sqlite:///{in_flight}").jobs()) == len(content)


def open_at_once(url: str, start: Any, said: Any) -> None:
    start.wait()
    try:
        said.put(len(Ledger(url).jobs()))
    except BaseException as error:  # noqa: BLE001  the test that started it shows it
        said.put(repr(error))


def test_processes_that_open_an_older_ledger_at_once_all_succeed(old):
    url, _ = old["in_flight"]
    context = multiprocessing.get_context("spawn")
    start, said = context.Barrier(3), context.Queue()
    there = [context.Process(target=open_at_once, args=(url, start, said)) for _ in range(3)]
    for process in there:
        process.start()
    found = [said.get(timeout=300) for _ in there]
    for process in there:
        process.join()
    assert found == [len(Ledger(url).jobs())] * 3
