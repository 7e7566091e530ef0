"""``qsgd report``: every figure is the record's or the ledger's, and every cent is somebody's."""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from stage import BUDGET, RUN, Stage

from qsgd_core.builtin.policies import Hold
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.cli import main
from qsgd_core.cli.show import words
from qsgd_core.cli.show.report import print_report
from qsgd_core.errors import ConfigError
from qsgd_core.policy import Policy
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.states import OPEN
from qsgd_core.schedule.record.entries import Stretch
from qsgd_core.schedule.record.history import Spread
from qsgd_core.schedule.record.writer import RecordWriter
from qsgd_core.training.config import TrainConfig
from qsgd_core.training.folder.folder import RunFolder, RunRecord, write_record
from qsgd_core.training.folder.report import Report
from qsgd_core.training.folder.report import report as gather

ROWS, QUBITS, SHOTS, STEPS = 20, 3, 512, 28
CIRCUIT = ansatz(QUBITS, 2)


def work_at(step: int) -> Workload:
    """Blocks whose angles turn by 0.02 a step."""
    start = np.random.default_rng(0).uniform(-1.0, 1.0, (ROWS, CIRCUIT.n_slots))
    return Workload((CircuitBatch(CIRCUIT, start + 0.02 * step),))


@dataclass(frozen=True)
class Trained:
    """A run that has been on stage, and its folder; ``ages`` of what its steps used."""

    stage: Stage
    folder: RunFolder
    ages: list[int]

    def report(self) -> Report:
        return gather(self.folder, lambda: self.stage.ledger)


def train(
    path: Path,
    *,
    steps: int = STEPS,
    micro_usd: int = 1_000_000,
    policy: Policy | None = None,
    wait: str = "first",
    run_s: float = 0.0,
    every: int | None = 4,
    close: bool = True,
    **vendor: Any,
) -> Trained:
    """A run of 28 steps of a second each, measured every fourth."""
    folder = RunFolder(path / "run")
    folder.path.mkdir()
    config = TrainConfig(run=RUN, backend="filebox:x", perturbation="circuit", every=every)
    write_record(folder, RunRecord("digits", "digits", config, {}))
    stage = Stage(path, micro_usd=micro_usd)
    stage.have(coins=False, run_s=run_s, **vendor)
    scheduler = stage.scheduler(
        policy,
        total_steps=STEPS,
        wait=wait,
        max_in_flight=20,
        record=str(folder.record),
        policy="tracked",
    )
    writer = RecordWriter(folder.record)
    ages = []
    for step in range(steps):
        stage.clock.now += 1.0
        _, source = scheduler.expectations(work_at(step), step=step, shots=SHOTS, every=every)
        measured_at = scheduler.status()["measured_at"]
        ages.append(-1 if measured_at is None else step - measured_at)
        writer.sources(Stretch(step, step, source))
    writer.close()
    if close:
        scheduler.close(finished=True)
    return Trained(stage, folder, ages)


@pytest.fixture
def trained(filebox, tmp_path) -> Callable[..., Trained]:
    """Makes a run of the test's own."""
    return functools.partial(train, tmp_path)


@pytest.fixture
def off(filebox, tmp_path_factory) -> Trained:
    """The run on a device that turns every gate 0.08 rad too far; not to be changed."""
    if not SHARED:
        SHARED.append(train(tmp_path_factory.mktemp("off"), turned=0.08))
    return SHARED[0]


SHARED: list[Trained] = []


# --- worth ---------------------------------------------------------------------------------------


def test_a_device_that_is_off_is_tracked_and_was_worth_its_money(off):
    """Which no nominal twin knows."""
    found = off.report()
    hardware = found.hardware
    assert hardware is not None
    assert hardware.verdict == "worth it"
    assert hardware.skill.value == pytest.approx(1.0, abs=0.05)
    assert hardware.skill.low is not None
    assert hardware.skill.low > 0.9
    assert hardware.twin_rms is not None
    assert hardware.e_rms is not None
    assert hardware.twin_rms > 4 * hardware.e_rms
    assert said(found).startswith("Yes: at least 9")


def test_the_last_result_itself_is_worse_than_the_free_twin_where_angles_move_on(trained):
    """Three steps late at 0.02 rad a step and angle, on a device that is off by 0.05."""
    found = trained(policy=Hold(), turned=0.05, run_s=3.0).report()
    assert found.hardware is not None
    assert found.hardware.verdict == "not worth it"
    assert said(found).startswith("No: the free twin would have been nearer to the device")
    assert "--policy twin" in said(found)


def test_results_that_training_waited_for_are_not_judged(trained):
    found = trained(wait="always", turned=0.08).report()
    assert found.hardware is not None
    assert found.hardware.refreshes.arrived == 7
    assert found.hardware.skill.n == 0
    assert "training waited for every result" in said(found)


def test_with_two_results_it_cannot_be_told(trained):
    found = trained(steps=12, turned=0.08).report()
    assert found.hardware is not None
    assert found.hardware.skill.n == 2  # of three, the first of which was waited for
    assert found.hardware.verdict == "cannot tell"
    assert said(found) == "It cannot be told: only 2 of at least 3 results have arrived."


# --- measurements --------------------------------------------------------------------------------


def test_ages_are_counted_step_by_step(trained):
    run = trained(run_s=2.5)
    hardware = run.report().hardware
    assert hardware is not None
    steps = hardware.ages.steps
    assert min(run.ages) == 0  # the first was waited for
    assert (steps.n, steps.most) == (STEPS, max(run.ages))
    expected = [sum(a <= age < b for age in run.ages) for a, b in itertools.pairwise(steps.edges)]
    assert list(steps.counts) == expected
    # A step is a second, and a turn of 0.02 rad; the first result was waited for as well.
    waited = run.report().hardware.queue_s.most
    assert 0 <= hardware.ages.seconds.most - max(run.ages) <= waited + 1.0
    asking = run.ages[4::4]
    assert hardware.ages.radians.most == pytest.approx(0.02 * max(asking), abs=1e-9)


def test_refreshes_and_queue_times_are_those_of_the_vendor(trained):
    run = trained(run_s=2.5, faults={"fails": [2, 5]})
    hardware = run.report().hardware
    assert hardware is not None
    jobs, counted = run.stage.jobs(), hardware.refreshes
    states = [sum(job.state == state for job in jobs) for state in ("settled", "failed")]
    assert states[1] == 2
    assert (counted.asked, [counted.arrived, counted.failed]) == (len(jobs), states)
    assert counted.applied == len({j.step for j in jobs if j.consumed_step is not None})
    assert (counted.rows, counted.shots) == (ROWS, SHOTS)
    assert hardware.queue_s.n == states[0]
    assert 2.5 <= (hardware.queue_s.median or 0.0) <= 3.5


def test_the_noise_models_expectation_is_beside_what_came_true(off):
    hardware = off.report().hardware
    assert hardware is not None
    guess = hardware.prediction
    assert guess.n == 7
    assert guess.predicted_rms is not None
    assert guess.realised_rms is not None
    # The prior expects about 0.05 rad, the device has 0.08: off by no more than a factor of three.
    assert guess.realised_rms / 3 < guess.predicted_rms < 3 * guess.realised_rms


def test_sources_and_events_are_those_of_the_record(trained):
    run = trained(faults={"fails": [2]}, steps=12)
    found = run.report()
    assert found.sources["tracked"] == 1.0
    assert found.event_counts["failed"] == 1
    assert [e["kind"] for e in found.events] == ["planned", "failed"]


# --- money ---------------------------------------------------------------------------------------


FAULTS = {"fails": [1], "lost": [2], "overbilled": [3], "cancelled": [4], "twice": [5]}


def test_every_cent_of_the_budget_is_a_jobs(trained):
    run = trained(faults=FAULTS, steps=16, every=2)
    money = run.report().money
    assert money is not None
    (cap,) = run.stage.ledger.caps(BUDGET)
    jobs = run.stage.jobs()
    assert cap.overrun > 0
    assert money.balanced
    (share,) = money.budgets
    figures = ("reserved", "spent", "overrun")
    assert [share[name] for name in figures] == [getattr(cap, name) for name in figures]
    assert share["run"]["paid"] == sum(j.spent.micro_usd or 0 for j in jobs)
    assert round(money.cost_usd * 1e6) == cap.spent + cap.overrun == run.stage.truth
    assert sum(round(1e6 * job["overrun"]["usd"]) for job in money.jobs) == cap.overrun


def test_a_run_that_is_going_on_shows_what_is_held(trained):
    run = trained(run_s=1000.0, steps=9, wait="never", close=False)
    found = run.report()
    money = found.money
    assert money is not None
    assert found.status == "unfinished"
    (cap,) = run.stage.ledger.caps(BUDGET)
    assert money.open == len(run.stage.jobs(states=OPEN)) > 0
    assert round((money.held_usd or 0.0) * 1e6) == cap.reserved > 0
    assert money.balanced
    assert f"{money.open} of {money.open} jobs are not over" in text(found)
    assert all(job["tag"] in text(found) for job in money.jobs)


def test_what_others_spend_of_the_same_budget_is_told_apart(trained):
    run = trained(steps=5)
    ledger = run.stage.ledger
    job = ledger.add_intent(
        work_at(0), tag="t", run="other", budget=BUDGET, backend="filebox:x", options={},
        step=0, part=0, attempt=0, shots=SHOTS, seed=0,
    )  # fmt: skip
    from qsgd_core.schedule.money import Amount

    ledger.reserve(job.tag, Amount(1, 777, 1))
    money = run.report().money
    assert money is not None
    (share,) = money.budgets
    assert share["others"] == {"held": 777, "paid": 0, "unknown": 0, "provisional": 0}
    assert money.balanced
    assert "of it by this run" in text(run.report())


def test_a_ledger_that_does_not_add_up_is_not_passed_over(trained):
    import sqlite3

    run = trained(steps=1)
    with sqlite3.connect(run.stage.folder / "ledger.sqlite") as db:
        db.execute("UPDATE caps SET spent = spent - 1")
    found = run.report()
    assert found.money is not None
    assert not found.money.balanced
    assert "not the sum of its jobs" in text(found)


def test_the_burn_down_runs_from_nothing_to_what_was_spent(trained):
    run = trained(every=None, micro_usd=6 * 11_240)
    hardware = run.report().hardware
    assert hardware is not None
    points = hardware.burn_down["usd"]
    (cap,) = run.stage.ledger.caps(BUDGET)
    assert points[-1].spent == pytest.approx(cap.spent / 1e6)
    assert [p.step for p in points] == sorted({p.step for p in points})
    assert all(a.spent <= b.spent for a, b in itertools.pairwise(points))
    planned = [p.planned for p in points if p.planned is not None]
    assert planned == sorted(planned)
    assert "│ where the plan was" in text(run.report())


def test_another_ledger_than_the_runs_is_named(trained, tmp_path):
    run = trained(steps=1)
    other = Ledger(f"sqlite:///{tmp_path / 'other.sqlite'}")
    other.url = "postgresql://me:secret@host/qsgd"
    (note,) = [n for n in gather(run.folder, lambda: other).notes if "no job of this run" in n]
    assert "postgresql://me:***@host/qsgd" in note
    assert "secret" not in note


# --- the command ---------------------------------------------------------------------------------


def test_the_command_prints_one_json_object_or_the_answer_first(off, capsys, monkeypatch):
    monkeypatch.setenv("QSGD_LEDGER", off.stage.ledger.url)
    assert main(["report", str(off.folder.path), "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    data = json.loads(out)
    assert data["hardware"]["verdict"] == "worth it"
    assert data["money"]["balanced"] is True
    assert main(["report", str(off.folder.path)]) == 0
    assert "Was the hardware worth its money?" in capsys.readouterr().out


def test_a_simulators_run_says_what_applies(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    script = Path(__file__).parents[1] / "scripts" / "noisy_task.py"
    assert main(["train", f"{script}:make_task", "--backend", "sampled", "--shots", "8"]) == 0
    (folder,) = Path("runs").iterdir()
    capsys.readouterr()
    assert main(["report", folder.name, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["hardware"], data["money"], data["status"]) == (None, None, "finished")
    assert data["sources"]["measured"] == 1.0
    assert data["steps"] == 10
    assert data["effect_size"]["mean"] > 0
    assert main(["report", folder.name]) == 0
    assert "none: a simulator in this process" in capsys.readouterr().out
    assert not (tmp_path / "ledger.sqlite").exists()


def test_a_run_that_diverged_is_reported_in_every_form(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    script = Path(__file__).parents[1] / "scripts" / "noisy_task.py"
    line = ["train", f"{script}:make_task", "--optimizer", "sgd", "--lr", "1e38"]
    assert main([*line, "--run-dir", "run"]) == 0
    capsys.readouterr()
    assert main(["report", "run"]) == 0
    assert "train loss not finite" in " ".join(capsys.readouterr().out.split())
    assert main(["report", "run", "--json"]) == 0
    data = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert data["metrics"]["train_loss"] is None
    assert main(["report", "run", "--html", "--markdown"]) == 0
    assert "train loss not finite" in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.parametrize(
    ("options", "said", "lost"),
    [
        (["--optimizer", "adafactor", "--inject", "gradient"], "unknown", []),
        (["--optimizer", "sgd", "--lr", "1e38"], "not finite", ["effect_size.mean"]),
    ],
)
def test_an_effect_size_that_nobody_knows_and_one_that_is_not_finite_are_told_apart(
    capsys, monkeypatch, tmp_path, options, said, lost
):
    monkeypatch.chdir(tmp_path)
    script = Path(__file__).parents[1] / "scripts" / "noisy_task.py"
    assert main(["train", f"{script}:make_task", *options, "--run-dir", "run"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"quantum term {said}" in shown
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["effect_size"] == {"mean": None, "max": None}
    assert ("effect_size.mean" in summary.get("not_finite", [])) == bool(lost)
    assert main(["report", "run"]) == 0
    assert f"effect size {said}" in " ".join(capsys.readouterr().out.split())
    assert main(["report", "run", "--json"]) == 0
    data = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert data["effect_size"] == {"mean": None, "max": None}
    assert [name for name in data.get("not_finite", []) if name.endswith("mean")] == lost
    assert main(["report", "run", "--html", "--markdown"]) == 0
    for page in ("report.md", "report.html"):
        text = (tmp_path / "run" / page).read_text()
        assert f"The effect size is {said}." in text


def test_an_effect_size_is_said_in_full_where_only_a_part_of_it_is_known():
    assert words.effect({"mean": 0.0046, "max": math.inf}) == (
        "0.46 % on average, not finite at most"
    )
    assert words.effect({"mean": None, "max": None}) == "unknown"
    assert words.effect({"mean": math.nan, "max": math.inf}) == "not finite"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.record.unlink(), "There is no record"),
        (lambda f: f.record.write_bytes(b"no database" * 100), "cannot be read"),
        (lambda f: f.summary.write_text("{"), "cannot be read"),
        (lambda f: f.metrics.write_text("{"), "cannot be read"),
    ],
)
def test_a_damaged_run_is_told_from_an_empty_one(trained, damage, message):
    run = trained(steps=1)
    damage(run.folder)
    with pytest.raises(ConfigError, match=message):
        run.report()


# --- distributions -------------------------------------------------------------------------------


def test_a_distribution_counts_every_value_once_and_drops_empty_ends():
    spread = Spread.of([0, 1, 1, 5], (0.0, 1.0, 2.0, 4.0, 8.0, 16.0))
    assert (spread.n, spread.edges, spread.counts) == (4, (0.0, 1.0, 2.0, 4.0, 8.0), (1, 2, 0, 1))
    assert (spread.median, spread.most) == (1.0, 5.0)
    assert Spread.of([]) == Spread(0)


def text(found: Report) -> str:
    """The report as it is printed, on one line."""
    console = Console(record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    print_report(found, console)
    return " ".join(console.export_text().split())


def said(found: Report) -> str:
    from qsgd_core.cli.show.report import worth_in_words

    assert found.hardware is not None
    assert found.money is not None
    return worth_in_words(found.hardware, found.money)
