"""A replayed run is the recorded run to the bit; where it is not, it says so."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from patience import PATIENCE_S
from stopping import stop_at
from torch import nn

from qsgd_core import Built, Task
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import ConfigError
from qsgd_core.measure import recording
from qsgd_core.plugins.registry import default_registry
from qsgd_core.schedule.messages import Frame
from qsgd_core.schedule.paid_run import PaidRun
from qsgd_core.schedule.record.reader import RecordReader
from qsgd_core.schedule.record.writer import RecordWriter
from qsgd_core.schedule.snapshot import Snapshot
from qsgd_core.schedule.trainer.scheduler import Scheduler
from qsgd_core.settings import load_settings
from qsgd_core.training import TrainConfig, load_task, replay, resume, train

SCRIPT = Path(__file__).parents[1] / "scripts" / "noisy_task.py"
BARE = Path(__file__).parents[1] / "scripts" / "bare.py"
SIMULATED = TrainConfig(backend="sampled", shots=32, perturbation="circuit", seed=4)


def noisy(kind: str = "global") -> Task:
    task, _ = load_task(f"{SCRIPT}:make_task", load_settings())
    task.kind = kind  # type: ignore[attr-defined]
    return task


class Bent(Task):
    """A task whose model begins a little elsewhere, or is larger."""

    def __init__(self, of: Task, *, shift: float = 0.0, more: bool = False) -> None:
        self.of, self.shift, self.more = of, shift, more
        self.name, self.defaults, self.metrics = of.name, of.defaults, of.metrics

    def build(self, seed: int) -> Built:
        built = self.of.build(seed)
        with torch.no_grad():
            next(built.model.parameters()).add_(self.shift)
        model = nn.Sequential(*built.model, nn.Linear(2, 2)) if self.more else built.model
        return replace(built, model=model)

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        return self.of.loss(model, batch)


@pytest.fixture(autouse=True)
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qsgd_core.training.run.draw", lambda *_: None)


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = torch.load(run_dir / "checkpoint.pt")["model"]
    return model


def assert_same_run(one: Path, other: Path) -> None:
    """The same loss curve and the same final weights, to the bit."""
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)


def shares(run_dir: Path) -> dict[str, float]:
    sources: dict[str, float] = json.loads((run_dir / "summary.json").read_text())["sources"]
    return sources


@pytest.mark.parametrize(
    "config",
    [
        SIMULATED,
        replace(SIMULATED, every=3, inject="gradient"),
        TrainConfig(perturbation="circuit", seed=4),
        TrainConfig(
            perturbation="circuit", perturbation_options={"phases": "gradient"}, scope="all"
        ),
        TrainConfig(quantum_weight=0.0),
    ],
    ids=["sampled", "held", "closed form", "phases", "no term"],
)
@pytest.mark.parametrize("kind", ["global", "stream"])
def test_a_run_on_a_simulator_is_repeated_to_the_bit(
    tmp_path: Path, config: TrainConfig, kind: str
) -> None:
    train(noisy(kind), config, run_dir=tmp_path / "run")
    summary = replay(str(tmp_path / "run"), noisy(kind), run_dir=tmp_path / "again")

    assert_same_run(tmp_path / "run", tmp_path / "again")
    assert shares(tmp_path / "run") == shares(tmp_path / "again")
    assert summary.replayed is not None
    assert summary.replayed["bit_identical"] is True
    assert summary.replayed["compared"]["weights"] == 3  # the start and two epochs
    assert summary.to_dict()["replayed"] == summary.replayed
    written = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert written["replayed"] == summary.replayed


def test_a_replay_is_a_run_that_can_be_replayed(tmp_path: Path) -> None:
    train(noisy(), SIMULATED, run_dir=tmp_path / "run")
    replay(str(tmp_path / "run"), noisy(), run_dir=tmp_path / "again")
    (tmp_path / "run" / "record.sqlite").unlink()
    summary = replay(str(tmp_path / "again"), noisy(), run_dir=tmp_path / "third")
    assert_same_run(tmp_path / "run", tmp_path / "third")
    assert summary.replayed is not None
    assert summary.replayed["bit_identical"] is True


def test_a_run_that_was_interrupted_and_resumed_is_repeated_as_a_whole(tmp_path: Path) -> None:
    train(noisy(), SIMULATED, run_dir=tmp_path / "run", observers=[stop_at(3)])
    resume(str(tmp_path / "run"), noisy(), observers=[stop_at(8)])
    resume(str(tmp_path / "run"), noisy(), asked={"epochs": 3})
    summary = replay(str(tmp_path / "run"), noisy(), run_dir=tmp_path / "again")
    assert summary.steps == 15
    assert_same_run(tmp_path / "run", tmp_path / "again")


def test_a_replay_that_was_interrupted_goes_on_as_a_replay(tmp_path: Path) -> None:
    train(noisy(), SIMULATED, run_dir=tmp_path / "run")
    replay(str(tmp_path / "run"), noisy(), run_dir=tmp_path / "again", observers=[stop_at(7)])
    summary = resume(str(tmp_path / "again"), noisy())
    assert_same_run(tmp_path / "run", tmp_path / "again")
    assert summary.replayed is not None
    assert summary.replayed["bit_identical"] is True


def test_what_a_lost_future_recorded_is_forgotten_on_resume(tmp_path: Path) -> None:
    """A kill after step 8 with the last checkpoint after step 5: steps 5 to 7 happen again."""
    train(noisy(), SIMULATED, run_dir=tmp_path / "run", observers=[stop_at(5)])
    late = tmp_path / "run" / "record.sqlite"
    saved = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    resume(str(tmp_path / "run"), noisy(), observers=[stop_at(8)])
    assert RecordReader(late).n_steps == 8
    (tmp_path / "run" / "checkpoint.pt").write_bytes(saved)
    with sqlite3.connect(late) as db:  # as if that future had been another one
        db.execute("UPDATE samples SET frame = x'00' WHERE step >= 5")
    resume(str(tmp_path / "run"), noisy())
    replay(str(tmp_path / "run"), noisy(), run_dir=tmp_path / "again")
    assert_same_run(tmp_path / "run", tmp_path / "again")


def test_a_killed_run_is_repeated_as_far_as_its_record_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(noisy(), SIMULATED, run_dir=tmp_path / "run")
    RecordWriter(tmp_path / "run" / "record.sqlite").rewind(7)
    with caplog.at_level(logging.WARNING, logger="qsgd_core"):
        summary = replay(str(tmp_path / "run"), noisy(), run_dir=tmp_path / "again")
    assert "ends after step 7 of 10" in caplog.text
    assert (summary.steps, summary.status) == (7, "finished")
    assert summary.replayed is not None
    assert summary.replayed["bit_identical"] is True
    first, *_ = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert (tmp_path / "again" / "metrics.jsonl").read_text().splitlines()[0] == first


def test_a_record_that_has_grown_to_its_limit_is_repeated_as_far_as_it_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MOST_ON_DISK", 100)
    with caplog.at_level(logging.WARNING, logger="qsgd_core"):
        train(noisy(), SIMULATED, run_dir=tmp_path / "run")
        summary = replay(str(tmp_path / "run"), noisy(), run_dir=tmp_path / "again")
    assert "can be replayed up to step 5." in caplog.text
    assert summary.steps == 5
    assert summary.replayed is not None
    assert summary.replayed["bit_identical"] is True


def test_a_replay_can_be_ended_earlier(tmp_path: Path) -> None:
    train(noisy(), SIMULATED, run_dir=tmp_path / "run")
    short = {"max_steps": 4}
    summary = replay(str(tmp_path / "run"), noisy(), asked=short, run_dir=tmp_path / "4")
    assert summary.steps == 4
    long = {"epochs": 50}
    summary = replay(str(tmp_path / "run"), noisy(), asked=long, run_dir=tmp_path / "50")
    assert summary.steps == 10


def test_another_starting_point_is_told_once_with_step_and_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(noisy(), SIMULATED, run_dir=tmp_path / "run")
    with caplog.at_level(logging.WARNING, logger="qsgd_core"):
        bent = Bent(noisy(), shift=1e-3)
        summary = replay(str(tmp_path / "run"), bent, run_dir=tmp_path / "again")
    told = [r.getMessage() for r in caplog.records if "not as recorded" in r.getMessage()]
    assert len(told) == 1
    assert "Step 0" in told[0]
    assert summary.status == "finished"
    assert summary.replayed is not None
    assert summary.replayed["bit_identical"] is False
    angles, other = summary.replayed["differs"]
    assert angles.startswith("angles at step 0 by up to 0.00")
    assert angles.endswith("rad")
    assert other == "weights after step 0"


def test_angles_may_differ_by_a_rounding_error(tmp_path: Path) -> None:
    train(noisy(), SIMULATED, run_dir=tmp_path / "run")
    record = tmp_path / "run" / "record.sqlite"
    before = RecordReader(record).sample(0)
    assert before is not None
    writer = RecordWriter(record)
    writer.samples([replace(before, angles=tuple(a + 1e-12 for a in before.angles))])
    writer.close()
    summary = replay(str(tmp_path / "run"), noisy(), run_dir=tmp_path / "again")
    assert summary.replayed is not None
    assert summary.replayed["bit_identical"] is True


def test_a_model_of_another_shape_cannot_be_replayed(tmp_path: Path) -> None:
    train(noisy(), SIMULATED, run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"Step 0 has 6 blocks.*had 4 blocks.*have changed"):
        replay(str(tmp_path / "run"), Bent(noisy(), more=True), run_dir=tmp_path / "again")


def test_another_machine_is_named_and_the_replay_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(noisy(), SIMULATED, run_dir=tmp_path / "run")
    record = tmp_path / "run" / "record.sqlite"
    machine = RecordReader(record).header["machine"]
    assert machine["torch"] == torch.__version__
    assert machine["threads"] == 1
    RecordWriter(record).header({"machine": machine | {"threads": 64, "torch": "1.0"}})
    with caplog.at_level(logging.WARNING, logger="qsgd_core"):
        summary = replay(str(tmp_path / "run"), noisy(), run_dir=tmp_path / "again")
    assert f"torch 1.0 then, {torch.__version__} now; threads 64 then, 1 now." in caplog.text
    assert "processor" not in caplog.text
    assert summary.replayed is not None
    assert summary.replayed["bit_identical"] is True


def test_other_settings_are_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(noisy(), SIMULATED, run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"cannot be replayed with lr=0.5 \(the run has 0.01\)"):
        replay(str(tmp_path / "run"), noisy(), asked={"lr": 0.5}, run_dir=tmp_path / "again")
    monkeypatch.setenv("QSGD_BACKEND", "exact")
    with pytest.raises(ConfigError, match="QSGD_BACKEND is 'exact', but the run in"):
        replay(str(tmp_path / "run"), noisy(), run_dir=tmp_path / "again")
    monkeypatch.setenv("QSGD_BACKEND", "sampled")
    replay(str(tmp_path / "run"), noisy(), run_dir=tmp_path / "again")
    assert_same_run(tmp_path / "run", tmp_path / "again")


def test_a_run_without_a_record_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    train(noisy(), SIMULATED, run_dir=tmp_path / "run")
    record = tmp_path / "run" / "record.sqlite"
    RecordWriter(record).rewind(0)
    with sqlite3.connect(record) as db:
        db.execute("DELETE FROM marks")
    with pytest.raises(ConfigError, match="holds no step"):
        replay(str(tmp_path / "run"), noisy(), run_dir=tmp_path / "again")
    record.unlink()
    with pytest.raises(ConfigError, match="There is no record"):
        replay(str(tmp_path / "run"), noisy(), run_dir=tmp_path / "again")
    assert not (tmp_path / "again").exists()


class Silent:
    """A line whose courier says only what a test lets it say."""

    def __init__(self) -> None:
        self.starts = 1
        self.sent: list[Frame] = []
        self.says: list[Frame] = []

    def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    def receive(self, timeout_s: float = 0.0) -> list[Frame]:
        said, self.says = self.says, []
        return said

    def rest(self, seconds: float) -> None:
        raise AssertionError("not stopped")

    def stop(self) -> None:
        raise AssertionError("not closed")


def test_a_courier_that_was_killed_is_told_again_what_its_record_may_lack() -> None:
    line = Silent()
    config = PaidRun(run_id="r", budget_name="b", wait="never")
    policy = default_registry().make_policy("hold")
    scheduler = Scheduler(line, policy, config, tell=lambda _: None, clock=lambda: 0.0)
    work = Workload((CircuitBatch(ansatz(2, 1), np.zeros((1, ansatz(2, 1).n_slots))),))

    def applied(step: int) -> list[tuple[int, str]]:
        """What is told at a step, in which order."""
        line.sent.clear()
        scheduler.expectations(work, step=step)
        return [(f.values["step"], f.values["rung"]) for f in line.sent if f.kind == "applied"]

    assert applied(0) == [(0, "nominal")]
    line.says = [Snapshot("measured", 0, 0, z=(np.ones((1, 2)),)).to_frame()]
    assert applied(1) == [(1, "measured")]
    line.starts = 2
    assert applied(2) == [(0, "nominal"), (1, "measured")]
    line.starts, line.says = 3, [Frame("noted", {"step": 0})]
    assert applied(3) == [(0, "nominal"), (1, "measured")]
    line.starts, line.says = 4, [Frame("noted", {"step": 1})]
    assert applied(4) == [(1, "measured")]
    line.starts = 5
    assert applied(5) == []


def qsgd(*arguments: str, env: dict[str, str], bare: bool = False) -> dict[str, Any]:
    """What the command printed as JSON; ``bare``: where a replay must do without everything."""
    head = [str(BARE)] if bare else ["-m", "qsgd_core"]
    done = subprocess.run(
        [sys.executable, *head, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize(
    "how",
    [
        ["--policy", "tracked", "--every", "4", "--epochs", "20", "--schedule", "twin_every=4"],
        pytest.param(
            ["--policy", "hold", "--every", "3", "--wait", "always", "--schedule", "tiles=2"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["tracked", "hold"],
)
def test_a_paid_run_is_repeated_without_its_adapter_ledger_or_network(
    tmp_path: Path, filebox: dict[str, str], how: list[str]
) -> None:
    vendor = ["--backend", "filebox:x", "--option", f"folder={tmp_path / 'vendor'}"]
    bounds = ["--shots", "64", "--budget", "$5", "--yes"]
    env = filebox | {"QSGD_RUNS": str(tmp_path / "runs")}
    told = ["--run-dir", str(tmp_path / "runs" / "paid"), "--json"]
    recorded = qsgd("train", f"{SCRIPT}:make_task", *vendor, *bounds, *how, *told, env=env)
    assert recorded["jobs"] >= 1  # more than the first if the machine is quick enough
    jobs = sorted(p.name for p in (tmp_path / "vendor" / "jobs").iterdir())
    reader = RecordReader(tmp_path / "runs" / "paid" / "record.sqlite")
    assert len(reader.applied()) >= 1
    assert (reader.header["kind"], reader.header["backend"]) == ("backend", "filebox:x")

    there = env | {"QSGD_HOME": str(tmp_path / "nowhere"), "QSGD_DISABLED_PLUGINS": "qsgd-filebox"}
    del there["QSGD_LOAD_PLUGINS"]
    repeated = qsgd("train", "--replay", "paid", "--json", env=there, bare=True)

    assert_same_run(tmp_path / "runs" / "paid", Path(repeated["run_dir"]))
    assert repeated["sources"] == recorded["sources"]
    assert RecordReader(Path(repeated["run_dir"]) / "record.sqlite").sources() == reader.sources()
    assert repeated["replayed"]["bit_identical"] is True
    assert repeated["replayed"]["compared"]["angles"] == len(reader.refreshes())
    assert "jobs" not in repeated
    assert sorted(p.name for p in (tmp_path / "vendor" / "jobs").iterdir()) == jobs
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--replay", "nothing"], "There is no run 'nothing'"),
        (["--replay", "a", "--resume", "b"], "--resume goes on with a run and --replay repeats"),
        (["--replay", "a", "--dry-run"], "leave --replay out"),
    ],
)
def test_a_replay_that_makes_no_sense_is_refused_on_the_command_line(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "QSGD_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(
        [sys.executable, "-m", "qsgd_core", "train", *arguments],
        env=env | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
