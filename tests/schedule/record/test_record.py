"""The record of a run: what is written comes back to the bit, whatever befalls the writer."""

from __future__ import annotations

import logging
import math
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import ConfigError
from qsgd_core.schedule.messages import Frame
from qsgd_core.schedule.record.entries import Balance, Happening, OutcomeEntry, Sampled, Stretch
from qsgd_core.schedule.record.format import FORMAT
from qsgd_core.schedule.record.reader import RecordReader
from qsgd_core.schedule.record.writer import RecordWriter

CAP = {"budget": "b", "unit": "qpu_us", "cap": 600_000_000, "reserved": 3_000_000, "spent": 0}
CAP |= {"overrun": 1}
MEASURES: dict[str, Any] = {
    "n_rows": 2,
    "of_rows": 3,
    "e_sq": -1e-5,
    "twin_sq": 2e-4,
    "noise": 1e-3,
    "predicted_var": 3e-4,
    "innovation_sq": 2.5e-4,
    "nis": 1.1,
    "alarm": True,
    "queue_s": 12.5,
    "cost_usd": None,
    "qpu_s": 2.25,
    "shots": 3072,
}


def work(seed: int = 0) -> Workload:
    rng = np.random.default_rng(seed)
    circuit = ansatz(3, 2)
    return Workload((CircuitBatch(circuit, rng.normal(size=(3, circuit.n_slots))),))


def snapshot(value: float) -> Frame:
    return Frame("snapshot", {"rung": "measured", "spread": math.pi.hex()}, [np.array([[value]])])


def fill(path: Path, steps: int) -> None:
    """A run that asked, was answered, swapped and told something at every step."""
    writer = RecordWriter(path, clock=lambda: 1000.0)
    writer.begin({"run_id": "r"}, step=0)
    for step in range(steps):
        writer.asked(step, work(step), shots=7, used=[np.zeros((3, 3))])
        z = (np.full((3, 3), step / 7),)
        writer.arrived(OutcomeEntry(step, 1000.0, executed_at=5.0, z=z, **MEASURES))
        writer.applied(step, snapshot(step).encode())
        writer.event(step, "alarm", f"at {step}")
        writer.account([CAP | {"spent": step}])
        writer.samples([Sampled(step, (np.array([[step / 3]]),), "measured")])
        writer.sources(Stretch(step, step, "measured" if step < 2 else "tracked"))
        writer.mark(step + 1, f"weights {step + 1}")
    writer.close()


def steps_in(reader: RecordReader) -> dict[str, list[int]]:
    """Which steps each table has."""
    tables = {
        "refreshes": reader.refreshes(),
        "results": reader.results(),
        "applied": reader.applied(),
        "events": reader.events(),
        "accounts": reader.accounts(),
    }
    return {name: [row.step for row in rows] for name, rows in tables.items()}


def test_arrays_come_back_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "record.sqlite"
    used = (np.array([[math.pi, np.nextafter(0.5, 1), -0.0]] * 3),)
    z = (np.array([[1 / 3, np.nan, -1.0]]),)
    writer = RecordWriter(path, clock=lambda: 1000.0)
    writer.begin({"run_id": "r", "seed": 2**62, "options": {"a": None}}, step=0)
    writer.asked(4, work(), shots=1024, used=used)
    writer.arrived(OutcomeEntry(4, 1000.0, executed_at=999.5, z=z, **MEASURES))
    writer.applied(6, snapshot(1 / 3).encode(), tiles=3)
    writer.event(None, "alarm", "jump")
    writer.account([CAP], planned=0.25)
    writer.samples([Sampled(7, (z[0], used[0]), "exact", angles=(work().batches[0].angles,))])
    writer.close()

    reader = RecordReader(path)
    assert reader.header == {"format": FORMAT, "run_id": "r", "seed": 2**62, "options": {"a": None}}
    (refresh,) = reader.refreshes()
    assert (refresh.step, refresh.wall, refresh.shots) == (4, 1000.0, 1024)
    assert refresh.work.digest() == work().digest()
    assert refresh.work.batches[0].angles.tobytes() == work().batches[0].angles.tobytes()
    assert refresh.used[0].tobytes() == used[0].tobytes()
    (outcome,) = reader.results()
    assert outcome.z[0].tobytes() == z[0].tobytes()
    assert {name: getattr(outcome, name) for name in MEASURES} == MEASURES
    assert (outcome.wall, outcome.executed_at, outcome.error) == (1000.0, 999.5, None)
    assert reader.events() == [Happening(6, 1000.0, "alarm", "jump")]
    assert reader.accounts() == [Balance(6, 1000.0, "qpu_s", 600.0, 3.0, 0.0, 1e-6, 150.0)]
    (applied,) = reader.applied()
    assert (applied.step, applied.tiles) == (6, 3)
    assert applied.frame.encode() == snapshot(1 / 3).encode()
    sampled = reader.sample(7)
    assert sampled is not None
    assert sampled.source == "exact"
    assert [a.tobytes() for a in sampled.z] == [z[0].tobytes(), used[0].tobytes()]
    assert sampled.angles[0].tobytes() == work().batches[0].angles.tobytes()
    assert reader.sample(6) is None
    later = reader.sample(9)
    assert later is not None
    assert later.step == 7


def test_a_refresh_that_came_to_nothing_says_why(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "record.sqlite")
    writer.failed(3, "denied: 2 shots left")
    (outcome,) = RecordReader(writer.path).results()
    assert (outcome.step, outcome.error, outcome.z, outcome.e_sq) == (
        3,
        "denied: 2 shots left",
        (),
        None,
    )


def test_numpy_numbers_are_written_like_pythons(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "record.sqlite")
    numbers = MEASURES | {"e_sq": np.float64(0.25), "n_rows": np.int64(3), "alarm": np.bool_(False)}
    writer.arrived(OutcomeEntry(0, 1000.0, **numbers))
    (outcome,) = RecordReader(writer.path).results()
    assert (outcome.e_sq, outcome.n_rows, outcome.alarm) == (0.25, 3, False)


def test_stretches_of_one_source_are_one_row(tmp_path: Path) -> None:
    fill(tmp_path / "record.sqlite", 5)
    reader = RecordReader(tmp_path / "record.sqlite")
    assert reader.sources() == [Stretch(0, 1, "measured"), Stretch(2, 4, "tracked")]


def test_an_account_is_noted_when_it_changes(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "record.sqlite")
    dollars = CAP | {"unit": "micro_usd", "spent": 0}
    for step, spent in enumerate((20_000_000, 20_000_000, 30_000_000)):
        writer.applied(step, snapshot(0.0).encode())
        writer.account([CAP | {"spent": spent}, dollars], planned=step / 10)
    rows = RecordReader(writer.path).accounts()
    assert [(r.step, r.unit, r.spent, r.planned) for r in rows] == [
        (0, "qpu_s", 20.0, 0.0),
        (0, "usd", 0.0, 0.0),
        (2, "qpu_s", 30.0, 120.0),
        (2, "usd", 0.0, 120.0),
    ]


def test_rewinding_forgets_the_step_and_what_came_later(tmp_path: Path) -> None:
    path = tmp_path / "record.sqlite"
    fill(path, 6)
    assert RecordReader(path).n_steps == 6
    writer = RecordWriter(path)
    writer.rewind(3)
    reader = RecordReader(path)
    assert set(map(tuple, steps_in(reader).values())) == {(0, 1, 2)}
    newest = reader.sample(5)
    assert newest is not None
    assert newest.step == 2
    assert reader.marks() == {1: "weights 1", 2: "weights 2", 3: "weights 3"}
    assert reader.sources() == [Stretch(0, 1, "measured"), Stretch(2, 2, "tracked")]
    assert reader.n_steps == 3
    writer.rewind(0)
    assert RecordReader(path).n_steps == 0


def test_a_courier_that_comes_back_keeps_what_was_recorded_at_the_present_step(
    tmp_path: Path,
) -> None:
    path = tmp_path / "record.sqlite"
    fill(path, 6)
    writer = RecordWriter(path)
    writer.begin({"policy": "tracked"}, step=4)
    reader = RecordReader(path)
    assert steps_in(reader)["applied"] == [0, 1, 2, 3, 4]
    assert max(reader.marks()) == 6  # the trainer's own, and it may be ahead
    assert (reader.header["run_id"], reader.header["policy"]) == ("r", "tracked")
    writer.event(None, "outage", "no answer")
    assert RecordReader(path).events()[-1].step == 4


def test_of_two_snapshots_at_one_step_the_later_holds(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path / "record.sqlite")
    writer.applied(0, snapshot(1.0).encode())
    writer.applied(0, snapshot(2.0).encode())
    (applied,) = RecordReader(writer.path).applied()
    assert applied.frame.arrays[0] == 2.0


def test_a_killed_writer_leaves_a_file_that_reads_as_a_beginning_of_the_run(
    tmp_path: Path,
) -> None:
    path = tmp_path / "record.sqlite"
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_record
from pathlib import Path
from qsgd_core.schedule.record.writer import RecordWriter
writer = RecordWriter(Path({str(path)!r}))
for step in range(10**9):
    writer.applied(step, test_record.snapshot(step).encode())
    writer.asked(step, test_record.work(step), shots=7, used=[])
    if step % 10 == 9:
        print(step, flush=True)
"""
    for lines in (1, 3, 5):
        path.unlink(missing_ok=True)
        child = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        )
        assert child.stdout is not None
        told = [int(child.stdout.readline()) for _ in range(lines)][-1]
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        reader = RecordReader(path)
        steps = [row.step for row in reader.applied()]
        assert steps == list(range(len(steps)))
        assert len(steps) > told
        asked = [row.step for row in reader.refreshes()]
        assert asked in (steps, steps[:-1])
        writer = RecordWriter(path)
        writer.rewind(2)
        writer.close()
        assert RecordReader(path).n_steps == 2


def test_a_run_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no record"):
        RecordReader(tmp_path / "record.sqlite")


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be read as one" * 9])
def test_a_file_that_is_no_record_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "record.sqlite"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read as the record"):
        RecordReader(path)
    if content:
        with pytest.raises(ConfigError, match="cannot be read as the record"):
            RecordWriter(path)
        assert path.read_bytes() == content


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "record.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE other (a)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="cannot be read as the record"):
        RecordWriter(path)
    assert path.read_bytes() == before


def test_a_record_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.sqlite"
    RecordWriter(path).header({"format": FORMAT + 1})
    for use in (RecordReader, RecordWriter):
        with pytest.raises(ConfigError, match=r"this version reads \d+\).*pip install -U"):
            use(path)


def test_a_flipped_bit_in_an_array_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "record.sqlite"
    fill(path, 2)
    with sqlite3.connect(path) as db:
        (blob,) = db.execute("SELECT frame FROM applied WHERE step = 1").fetchone()
        damaged = bytearray(blob)
        damaged[len(damaged) // 2] ^= 4
        db.execute("UPDATE applied SET frame = ? WHERE step = 1", (bytes(damaged),))
    with pytest.raises(ConfigError, match="damaged"):
        RecordReader(path).applied()


def test_a_full_disk_ends_the_record_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "record.sqlite"
    fill(path, 3)
    writer = RecordWriter(path)
    assert writer._db is not None
    (pages,) = writer._db.execute("PRAGMA page_count").fetchone()
    writer._db.execute(f"PRAGMA max_page_count={pages}")  # sqlite then says the disk is full
    with caplog.at_level(logging.WARNING, logger="qsgd_core"):
        writer.samples([Sampled(3, (np.random.default_rng(0).normal(size=(500, 50)),), "exact")])
        writer.applied(4, snapshot(4.0).encode())
    assert [r.message for r in caplog.records if "could not be written" in r.message] == [
        caplog.messages[0]
    ]
    assert steps_in(RecordReader(path))["applied"] == [0, 1, 2]


def test_a_folder_that_cannot_be_written_ends_the_record_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = RecordWriter(tmp_path / "gone" / "record.sqlite")
    writer.event(0, "alarm", "unheard")
    assert "could not be written" in caplog.text
