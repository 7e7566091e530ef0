"""A record of an older format: read without touching it, brought up to date where it goes on."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from qsgd_core.schedule.record import format as record_format
from qsgd_core.schedule.record.format import FORMAT
from qsgd_core.schedule.record.reader import RecordReader
from qsgd_core.schedule.record.writer import RecordWriter

OLD = Path(__file__).parents[2] / "data/972479e/trained"
RECORDS = sorted(path.parents[1].name for path in OLD.glob("*/run/record.sqlite"))


@pytest.fixture(params=RECORDS)
def old(request, tmp_path) -> Path:
    """A record that 972479e wrote."""
    path = tmp_path / "record.sqlite"
    shutil.copy(OLD / request.param / "run/record.sqlite", path)
    return path


def tables(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Columns and their types, by table."""
    with closing(sqlite3.connect(path)) as db:
        names = [n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: [
                (column, kind) for _, column, kind, *_ in db.execute(f"PRAGMA table_info({name})")
            ]
            for name in names
            if name != "alembic_version"
        }


def content(path: Path) -> dict[str, list[tuple]]:
    with closing(sqlite3.connect(path)) as db:
        return {
            t: db.execute(f"SELECT * FROM {t}").fetchall() for t in tables(path) if t != "header"
        }


def header(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT key, value FROM header"))


def test_there_are_records_of_both_kinds():
    kinds = {header(OLD / name / "run/record.sqlite")["kind"] for name in RECORDS}
    assert kinds >= {'"backend"', '"simulator"'}


def test_reading_an_older_record_leaves_its_file_as_it_is(old):
    before = old.read_bytes()
    assert header(old)["format"] == "1"
    reader = RecordReader(old)
    assert reader.header["format"] == FORMAT
    assert "run" not in reader.header
    assert reader.n_steps > 0
    reader.close()
    assert old.read_bytes() == before


def test_a_run_that_goes_on_has_its_record_brought_up_to_date_with_all_that_is_in_it(old, tmp_path):
    rows, said = content(old), header(old)
    RecordWriter(old).close()
    assert content(old) == rows
    now = header(old)
    assert now.pop("format") == str(FORMAT)
    renamed = {"run": "run_id", "budget": "budget_name"}
    del said["format"]
    assert now == {renamed.get(key, key): value for key, value in said.items()}
    RecordWriter(old).event(3, "alarm", "and can be written")
    new = tmp_path / "new.sqlite"
    RecordWriter(new).close()
    assert tables(old) == tables(new)


def test_an_upgrade_that_fails_leaves_the_record_as_it_was(old, monkeypatch):
    before = content(old) | {"header": sorted(header(old).items())}

    def full(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(record_format.revisions, "upgrade", full)
    RecordWriter(old).event(3, "alarm", "not written")
    assert content(old) | {"header": sorted(header(old).items())} == before


def test_the_newest_revision_is_the_format():
    folder = Path(record_format.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_heads() == [str(FORMAT)]
