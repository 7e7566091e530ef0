"""The line on a page rebuilds what the page is about, whatever the environment says."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import lab_report_made as made
import pytest
import torch
import typer

from qsgd_core.builtin.digits import Digits
from qsgd_core.cli.app import main
from qsgd_core.plugins.registry import default_registry
from qsgd_core.training import train
from qsgd_core.training.config import TrainConfig, resolve
from qsgd_core.training.folder.folder import RunFolder, RunRecord, read_record
from qsgd_lab.compare.plan import ComparisonPlan
from qsgd_lab.report.commands import compare_command, train_command


def planned_by(line: str, monkeypatch: pytest.MonkeyPatch) -> ComparisonPlan:
    """What ``qsgd compare`` would go on with."""
    plans: list[ComparisonPlan] = []

    def keep(plan: ComparisonPlan, *_: object, **__: object) -> None:
        plans.append(plan)
        raise typer.Exit(0)

    monkeypatch.setattr("qsgd_lab.compare.cli._run", keep)
    program, *arguments = shlex.split(line)
    assert program == "qsgd"
    assert main(arguments) == 0
    return plans[0]


@pytest.mark.parametrize(
    "arms, asked",
    [
        (made.PAPER, {}),
        (("adamw", "circuit@0.5", "permuted@0.5"), {"backend": "sampled", "shots": 64, "every": 3}),
        (("sgd", "sine@0.5:all", "uniform@0.5"), {"epochs": 3, "max_steps": 40, "target": 0.75}),
        (("adamw", "sine@0.5:shots=8:backend=sampled", "circuit@0.5"), {"seeds": 3, "threads": 2}),
        (("adamw", "sine@0.5:every=2", "circuit@0.5:n_qubits=3"), {"every": 5}),
        (("adamw", "uniform@0.5:circuit"), {"backend": "sampled", "shots": 16}),
    ],
)
def test_the_line_of_a_comparison_plans_the_same_comparison(monkeypatch, arms, asked):
    plan = made.plan_of(arms, **asked)
    line = compare_command(plan)
    monkeypatch.setenv("QSGD_BACKEND", "sampled" if "sampled" not in str(asked) else "exact")
    again = planned_by(line, monkeypatch)
    assert again.identity() == plan.identity()
    assert again.threads == plan.threads


def test_paths_with_blanks_and_quotes_survive_the_line(tmp_path, monkeypatch):
    folder = tmp_path / "it's mine"
    folder.mkdir()
    script = folder / "task.py"
    script.write_text(
        "from qsgd_core import Built, Task\n"
        "class T(Task):\n    name = 't'\n"
        "    def build(self, seed): ...\n    def loss(self, model, batch): ...\n"
        "    def with_data(self, folder): return self\n"
        "def make_task(): return T()\n"
    )
    plan = made.plan_of(("adamw", "sine@0.5"), task=f"{script}:make_task", data=folder, epochs=2)
    assert planned_by(compare_command(plan), monkeypatch).identity() == plan.identity()


def test_how_a_paid_comparison_was_scheduled_stands_before_its_line():
    plan = made.plan_of(("adamw", "circuit@0.5"), seeds=1)
    arm = replace(
        plan.arms[1], paid=True, config=plan.arms[1].config | {"policy": "hold", "wait": "always"}
    )
    line = compare_command(replace(plan, arms=(plan.arms[0], arm), budget="$5"))
    assert line.startswith("QSGD_POLICY=hold QSGD_WAIT=always qsgd compare sequences --arms")
    assert "--budget '$5'" in line


CONFIGS = [
    TrainConfig(),
    TrainConfig(seed=7, epochs=3, perturbation="circuit", depth=4, scope="all", inject="gradient"),
    TrainConfig(backend="sampled", shots=32, every=5, quantum_weight=0.1, normalize="update"),
    TrainConfig(
        perturbation="circuit", perturbation_options={"entangler": "ring"}, lr=0.02, max_steps=9
    ),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.term.perturbation)
def test_the_line_of_a_run_asks_for_the_same_run(monkeypatch, config):
    settings, task = default_registry().settings, default_registry().make_task("sequences")
    full = resolve(config, task.defaults, settings)
    line = train_command(RunRecord("sequences", "sequences", replace(full, run="its-own"), {}))
    asked: list[dict[str, object]] = []

    def keep(name: str, data: object, given: dict[str, object], *_: object) -> None:
        assert (name, data) == ("sequences", None)
        asked.append(given)
        raise typer.Exit(0)

    monkeypatch.setattr("qsgd_core.cli.commands.train._run", keep)
    monkeypatch.setenv("QSGD_BACKEND", "sampled")
    assert main(shlex.split(line)[1:]) == 0
    again = resolve(TrainConfig(**asked[0]), task.defaults, settings)
    assert json.dumps(again.to_dict()) == json.dumps(full.to_dict())


def test_the_line_of_a_run_names_the_shots_that_nobody_asked_for(tmp_path, monkeypatch):
    sampled = TrainConfig(backend="sampled", max_steps=2, seed=3)
    train(Digits(), sampled, run_dir=tmp_path / "run", source="digits", observers=[])
    line = train_command(read_record(RunFolder(tmp_path / "run"))) or ""
    assert " --shots 1024 " in line
    monkeypatch.setenv("QSGD_SHOTS", "7")
    assert main([*shlex.split(line)[1:], "--run-dir", str(tmp_path / "again")]) == 0
    first, again = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"]
        for name in ("run", "again")
    )
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_replay_is_repeated_and_a_task_without_a_name_has_no_line():
    replayed = RunRecord("t", None, TrainConfig(replay="/runs/a b/record.sqlite"), {})
    assert train_command(replayed) == "qsgd train --replay '/runs/a b/record.sqlite'"
    assert train_command(RunRecord("t", None, TrainConfig(), {})) is None
    given = train_command(RunRecord("t", "s.py:f", TrainConfig(), {}, data="/data")) or ""
    assert given.startswith("qsgd train s.py:f --data /data --optimizer adamw ")
    assert given.endswith(" --seed 0")
