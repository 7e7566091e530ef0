"""`qsgd compare gsm8k` on a tiny random model: its plan holds the model, wherever a run runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import lab_gsm8k_tiny as tiny
import pytest
import torch

from qsgd_core.cli.app import main
from qsgd_core.plugins.registry import default_registry, forget_registries
from qsgd_core.training.folder.folder import RunFolder
from qsgd_lab.compare import runs
from qsgd_lab.compare.drive import drive, held
from qsgd_lab.compare.plan import RUNS, ComparisonPlan
from qsgd_lab.compare.planning import Asked, make_plan
from qsgd_lab.compare.table import Comparison, read_comparison

ARMS = ("adamw", "sine@0.5", "uniform@0.5")
VARIABLES = {"CONTEXT": "128", "TEST_EXAMPLES": "4"}


class Here:
    """Runs in this process."""

    def run(self, home, keys):
        for key in keys:
            runs.run_one(str(home), key.arm, key.seed)
            yield key


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("gsm8k") / "model")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path) -> None:
    """The tiny model is chosen by variables, as on a command line."""
    for name in [name for name in os.environ if name.startswith("QSGD_")]:
        monkeypatch.delenv(name)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(f"QSGD_GSM8K_{name}", value)
    monkeypatch.setenv("QSGD_GSM8K_MODEL", str(model))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qsgd_core.training.run.draw", lambda *_: None)
    torch.set_num_threads(1)
    forget_registries()


def plan_of(data: Path, **asked: Any) -> ComparisonPlan:
    return make_plan(Asked("gsm8k", ARMS, 2, max_steps=4, data=data, **asked), default_registry())


def compare(home: Path, plan: ComparisonPlan) -> Comparison:
    with held(home, plan) as begun:
        assert drive(home, begun, Here(), lambda key, outcome: None)
        return read_comparison(home, begun)


def without_clock(found: Comparison) -> dict[str, Any]:
    arms = found.to_dict(Path("report"))["arms"]
    return {name: {k: v for k, v in arm.items() if k != "wall_s"} for name, arm in arms.items()}


def test_loss_comes_first_exact_match_beside_it_and_a_reader_is_told_of_what(
    tmp_path, data, monkeypatch
):
    monkeypatch.setenv("QSGD_GSM8K_EXACT_MATCH", "true")
    found = compare(tmp_path / "c", plan_of(data))
    said = found.to_dict(tmp_path / "report")
    assert (said["task"], said["baseline"], said["seeds"]) == ("gsm8k", "adamw", 2)
    for name in ARMS:
        arm = said["arms"][name]
        assert arm["loss"]["mean"] == pytest.approx(5.8, abs=0.5)  # ln 320: it has learned nothing
        assert arm["accuracy"]["mean"] == 0
        assert arm["paired_difference"]["metric"] == "loss"
        assert arm["epochs_to_target"]["target"] is None
    assert said["arms"]["sine@0.5"]["effect_size"]["mean"] > 0
    told = " ".join(found.setting)
    assert "loss and exact match on the first 4 of 6 test problems" in told
    assert "float32 on the CPU" in told
    assert "Every run has lr 2e-05: linear to 0 at step 4; gradient norm at most 1." in told
    assert found.notes == ()
    assert found.failures == ()
    rows = [runs.outcome(tmp_path / "c", key).rows[-1] for key in found.plan.every_run()]
    first = [row["train_loss"] for row in rows[:: len(ARMS)]]
    assert found.arms["adamw"].train_loss.mean == pytest.approx(sum(first) / 2)


def test_a_finished_run_leaves_its_metrics_and_no_checkpoint(tmp_path, data):
    plan = plan_of(data)
    compare(tmp_path / "c", plan)
    for key in plan.every_run():
        folder = RunFolder(tmp_path / "c" / RUNS / key.name)
        assert not folder.checkpoint.exists()
        rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
        assert set(rows[-1]) >= {"train_loss", "loss"}
        config = json.loads(folder.config.read_text())["config"]
        assert (config["lr_schedule"], config["lr_steps"], config["clip_norm"]) == ("linear", 4, 1)


def test_runs_have_the_plans_model_where_the_environment_names_none(
    tmp_path, data, model, monkeypatch
):
    """As in a worker of a Ray cluster, which does not have the variables of whoever asks."""
    whole = without_clock(compare(tmp_path / "here", plan_of(data)))
    plan = plan_of(data)
    assert plan.identity_of_task["model"] == str(model)
    for name in (*VARIABLES, "MODEL"):
        monkeypatch.delenv(f"QSGD_GSM8K_{name}")
    assert without_clock(compare(tmp_path / "there", plan)) == whole


def test_a_run_whose_environment_names_another_model_fails_and_says_so(tmp_path, data, monkeypatch):
    plan = plan_of(data)
    monkeypatch.setenv("QSGD_GSM8K_CONTEXT", "256")
    found = compare(tmp_path / "c", plan)
    assert len(found.failures) == 6
    assert "QSGD_GSM8K_CONTEXT (or the argument context) is 256" in found.failures[0].error


def test_another_model_or_other_problems_are_another_comparison(
    tmp_path, data, monkeypatch, capsys
):
    line = ["compare", "gsm8k", "--arms", ",".join(ARMS), "--max-steps", "2", "--seeds", "1"]
    where = ["--data", str(data), "--out", str(tmp_path / "c")]
    plan = make_plan(Asked("gsm8k", ARMS, 1, max_steps=2, data=data), default_registry())
    with held(tmp_path / "c", plan):
        pass
    monkeypatch.setenv("QSGD_GSM8K_TEST_EXAMPLES", "3")
    assert main([*line, *where]) == 2
    assert "task's test_examples 4 instead of 3" in capsys.readouterr().err
    monkeypatch.setenv("QSGD_GSM8K_TEST_EXAMPLES", "4")
    with (data / "test.jsonl").open("a") as file:
        file.write(json.dumps(tiny.problem(7)) + "\n")
    assert main([*line, *where]) == 2
    assert f"task's data {plan.identity_of_task['data']!r} instead of" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_the_command_gives_the_same_table_in_processes_of_its_own(tmp_path, data, executor, capsys):
    line = ["compare", "gsm8k", "--arms", ",".join(ARMS), "--max-steps", "4", "--seeds", "2"]
    where = ["--data", str(data), "--out", str(tmp_path / executor), "--threads", "1"]
    assert main([*line, *where, "--executor", executor, "--json"]) == 0
    said = capsys.readouterr()
    here = without_clock(compare(tmp_path / "here", plan_of(data)))
    for name, arm in json.loads(said.out)["arms"].items():
        assert {k: arm[k] for k in here[name]} == here[name]
    assert "first 4 of 6 test problems" in said.err
