"""Comparisons from the plan to the result, on a task of a few milliseconds."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import lab_compare_toy as toy
import lab_report_made as made
import pytest
import torch

from qsgd_core.cli.app import main
from qsgd_core.errors import ConfigError
from qsgd_core.plugins.registry import default_registry
from qsgd_core.training.folder.folder import RunFolder
from qsgd_lab.compare import drive as driving
from qsgd_lab.compare import runs, witness
from qsgd_lab.compare.drive import drive, held
from qsgd_lab.compare.plan import (
    RUNS,
    ComparisonPlan,
    RunKey,
    default_folder,
    read_plan,
    take_folder,
)
from qsgd_lab.compare.planning import Asked, make_plan
from qsgd_lab.compare.table import Comparison, read_comparison
from qsgd_lab.compare.text import COLUMNS, rows

pytestmark = pytest.mark.usefixtures("no_plots")

ARMS = ("adamw", "sine@0.5", "circuit@0.5:all", "uniform@0.5")


class Here:
    """Runs in this process, and notes which it was given."""

    def __init__(self, most: int | None = None) -> None:
        self.given: list[RunKey] = []
        self.most = most

    def run(self, home: Path, keys: Sequence[RunKey]) -> Iterator[RunKey]:
        for key in keys:
            if self.most is not None and len(self.given) == self.most:
                raise KeyboardInterrupt
            self.given.append(key)
            runs.run_one(str(home), key.arm, key.seed)
            yield key


def plan_of(
    source: str, *, seeds: int = 2, arms: Sequence[str] = ARMS, **asked: object
) -> ComparisonPlan:
    return make_plan(Asked(source, arms, seeds, **asked), default_registry())


def compare(home: Path, plan: ComparisonPlan, executor: Here | None = None) -> Comparison:
    with held(home, plan) as begun:
        assert drive(home, begun, executor or Here(), lambda key, outcome: None)
        return read_comparison(home, begun)


def without_clock(found: Comparison) -> dict[str, object]:
    data = found.to_dict(found.folder / "report.md")
    del data["report"]
    for arm in data["arms"].values():
        del arm["wall_s"]
    return data


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes longer than the run it is of."""
    monkeypatch.setattr("qsgd_core.training.run.draw", lambda path, rows, summary: None)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return toy.write(tmp_path)


def test_the_json_has_the_keys_of_the_contract(tmp_path, source):
    found = compare(tmp_path / "c", plan_of(source))
    data = json.loads(json.dumps(found.to_dict(tmp_path / "report.md")))
    assert list(data) == [
        "task",
        "baseline",
        "seeds",
        "arms",
        "minimum_detectable_effect",
        "report",
    ]
    assert (data["task"], data["baseline"], data["seeds"]) == ("toy", "adamw", 2)
    assert list(data["arms"]) == list(ARMS)
    for arm in data["arms"].values():
        assert {name: list(part) for name, part in arm.items()} == {
            "accuracy": ["mean", "se"],
            "loss": ["mean", "se"],
            "paired_difference": ["metric", "mean", "se", "ci95", "p", "p_holm"],
            "epochs_to_target": ["target", "median", "reached", "of"],
            "effect_size": ["mean"],
            "wall_s": ["mean"],
        }
        assert arm["epochs_to_target"]["of"] == 2
    assert data["arms"]["adamw"]["effect_size"]["mean"] == 0
    assert data["arms"]["circuit@0.5:all"]["effect_size"]["mean"] > 0


def test_differences_are_the_means_of_the_runs_own_differences(tmp_path, source):
    found = compare(tmp_path / "c", plan_of(source, seeds=3))
    finals = {name: [arm.curves[seed][-1] for seed in range(3)] for name, arm in found.arms.items()}
    for name in ARMS[1:]:
        by_hand = sum(a - b for a, b in zip(finals[name], finals["adamw"], strict=True)) / 3
        assert found.arms[name].paired.mean == pytest.approx(by_hand, abs=1e-12)


def test_every_arm_of_a_seed_starts_from_the_same_weights_batches_and_dropout(tmp_path, source):
    plan = plan_of(source, arms=("adamw", "sine@0.5:gradient", "circuit@0.5", "permuted@0.5"))
    plan_sampled = plan_of(source, arms=("adamw", "sine@0.5", "rademacher@0.5"), backend="sampled")
    for name, each in (("a", plan), ("b", plan_sampled)):
        found = compare(tmp_path / name, each)
        assert found.notes == ()
        seen = [witness.read(tmp_path / name / RUNS / key.name) for key in each.every_run()]
        assert all(len(w.batches) == len(w.draws) == 8 for w in seen)
        assert len({w.weights for w in seen}) == len(each.seeds)  # and another seed has others
        assert len({w.batches for w in seen}) == len(each.seeds)


def test_a_task_that_its_seed_does_not_determine_is_called_unpaired(tmp_path):
    source = toy.write(tmp_path, unseeded=True)
    found = compare(tmp_path / "c", plan_of(source, seeds=1, arms=("adamw", "sine@0.5")))
    assert [note for note in found.notes if "Seed 0 is not paired: sine@0.5" in note]


@pytest.mark.parametrize("name", ["sine", "circuit", "uniform", "permuted", "frozen", "gaussian"])
@pytest.mark.parametrize("backend", ["exact", "sampled"])
def test_no_term_draws_from_the_generators_of_the_task(name, backend):
    from qsgd_core import QSGD

    weight = torch.nn.Parameter(torch.linspace(-1, 1, 8))
    term = QSGD([weight], perturbation=name, backend=backend, seed=3)
    weight.grad = torch.ones(8)
    before = torch.get_rng_state()
    term.step()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_killed_comparison_goes_on_and_repeats_no_finished_run(tmp_path, source):
    plan = plan_of(source)
    whole = compare(tmp_path / "whole", plan)
    home = tmp_path / "cut"
    first = Here(most=3)
    with held(home, plan) as begun, pytest.raises(KeyboardInterrupt):
        drive(home, begun, first, lambda key, outcome: None)
    second = Here()
    assert without_clock(compare(home, plan, second)) == without_clock(whole)
    assert len(first.given) == 3
    assert first.given + second.given == list(plan.every_run())
    third = Here()
    assert without_clock(compare(home, plan, third)) == without_clock(whole)
    assert third.given == []


def test_a_run_that_was_cut_off_is_taken_up_at_its_checkpoint(tmp_path, source, monkeypatch):
    plan = plan_of(source, seeds=1, arms=("adamw", "sine@0.5"))
    whole = compare(tmp_path / "whole", plan)
    home = tmp_path / "cut"
    key = plan.key("sine@0.5", 0)
    steps = []

    class Cut(runs.Progress):
        def __call__(self, event):
            super().__call__(event)
            if type(event).__name__ == "BatchTrained":
                steps.append(event.step)
                if len(steps) == 6:  # in the second of three epochs of four steps
                    raise SystemExit

    monkeypatch.setattr("qsgd_core.observing.logger", logging.getLogger("quiet"))
    with monkeypatch.context() as patched, held(home, plan):
        patched.setattr(runs, "Progress", Cut)
        with pytest.raises(SystemExit):
            runs.run_one(str(home), key.arm, key.seed)
    assert RunFolder(home / RUNS / key.name).checkpoint.exists()
    again: list[int] = []

    class Note(runs.Progress):
        def __call__(self, event):
            super().__call__(event)
            if type(event).__name__ == "BatchTrained":
                again.append(event.step)

    monkeypatch.setattr(runs, "Progress", Note)
    found = compare(home, plan)
    assert again == [*range(1, 13), *range(5, 13)]  # adamw whole, sine from after its first epoch
    assert without_clock(found) == without_clock(whole)


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path, source):
    plan = plan_of(source, seeds=1, arms=("adamw", "sine@0.5"))
    home = tmp_path / "c"
    take_folder(home, plan)
    half = home / RUNS / plan.key("sine@0.5", 0).name
    half.mkdir(parents=True)
    (half / "config.json").write_text("{}")
    assert compare(home, plan).arms["sine@0.5"].accuracy.n == 1


def test_an_arm_that_raises_is_reported_and_the_others_go_on(tmp_path):
    source = toy.write(tmp_path, breaks="sine")
    found = compare(tmp_path / "c", plan_of(source, arms=("adamw", "sine@0.5", "uniform@0.5")))
    assert [(f.arm, f.seed) for f in found.failures] == [("sine@0.5", 0), ("sine@0.5", 1)]
    assert "ValueError: cannot go on" in found.failures[0].error
    assert found.arms["uniform@0.5"].paired.n == 2
    paired = found.arms["sine@0.5"].paired
    assert (paired.n, paired.missing, paired.p) == (0, 2, None)
    assert "Nothing can be concluded" in found.arms["sine@0.5"].conclusion.sentence


def test_a_seed_whose_task_cannot_be_built_fails_in_every_arm_and_is_left_out(tmp_path):
    source = toy.write(tmp_path, breaks="build")
    found = compare(tmp_path / "c", plan_of(source, seeds=3, arms=("adamw", "sine@0.5")))
    assert [(f.arm, f.seed) for f in found.failures] == [("adamw", 1), ("sine@0.5", 1)]
    assert found.arms["sine@0.5"].paired.n == 2


def test_out_of_memory_is_a_failure_that_says_what_to_do(tmp_path):
    source = toy.write(tmp_path, breaks="memory")
    found = compare(tmp_path / "c", plan_of(source, seeds=1, arms=("adamw", "sine@0.5")))
    assert "ran out of memory: have fewer runs at once (--jobs)" in found.failures[0].error


def test_what_failed_is_tried_again_and_what_finished_is_not(tmp_path):
    source = toy.write(tmp_path, breaks="build")
    plan = plan_of(source, arms=("adamw", "sine@0.5"))
    compare(tmp_path / "c", plan)
    again = Here()
    compare(tmp_path / "c", plan, again)
    assert [(key.arm, key.seed) for key in again.given] == [("adamw", 1), ("sine@0.5", 1)]


def test_one_seed_says_that_nothing_can_be_concluded(tmp_path, source):
    found = compare(tmp_path / "c", plan_of(source, seeds=1))
    assert found.minimum_detectable_effect is None
    for name in ARMS[1:]:
        assert "one seed shows no spread" in found.arms[name].conclusion.sentence
        assert found.arms[name].paired.p is None
        assert found.arms[name].paired.mean is not None


def test_a_diverged_run_is_counted_and_has_no_accuracy(tmp_path):
    source = toy.write(tmp_path, breaks="nan")
    arm = compare(tmp_path / "c", plan_of(source, arms=("adamw", "sine@0.5"))).arms["sine@0.5"]
    assert (arm.paired.n, arm.paired.diverged_arm, arm.paired.missing) == (0, 2, 0)
    assert arm.accuracy.n == arm.loss.n == arm.epochs.n_reached == 0
    assert "2 of its runs diverged" in arm.conclusion.sentence


def test_the_plan_of_a_comparison_cannot_be_changed(tmp_path, source):
    home = tmp_path / "c"
    take_folder(home, plan_of(source))
    for changed, says in (
        (plan_of(source, seeds=3), "seeds 2 .0 to 1. instead of 3"),
        (plan_of(source, arms=ARMS[:2]), "arms adamw,sine@0.5,circuit@0.5:all,uniform@0.5 instead"),
        (plan_of(source, epochs=5), "epochs 3 instead of 5"),
        (plan_of(source, target=0.8), "target 0.9 instead of 0.8"),
        (plan_of(toy.write(tmp_path, slow_s=0.1)), "script"),
    ):
        with pytest.raises(ConfigError, match=says):
            take_folder(home, changed)


def test_the_same_comparison_is_found_again_and_keeps_its_threads(tmp_path, source):
    plan = plan_of(source)
    other = replace(plan, threads=7, versions=plan.versions | {"torch": "1.0"})
    assert default_folder(plan, tmp_path) == default_folder(other, tmp_path)
    take_folder(tmp_path / "c", plan)
    begun, changed = take_folder(tmp_path / "c", other)
    assert (begun.threads, begun.id) == (plan.threads, plan.id)
    assert changed == [f"torch was {torch.__version__} and is 1.0"]
    assert read_plan(tmp_path / "c") == plan


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, source):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="not empty and holds no comparison"):
        take_folder(tmp_path / "mine", plan_of(source))


def test_a_second_process_is_kept_out(tmp_path, source):
    plan = plan_of(source)
    with (
        held(tmp_path / "c", plan),
        pytest.raises(ConfigError, match="Another process is running"),
        driving.held(tmp_path / "c", plan),
    ):
        pass


def test_a_control_can_read_what_was_measured_for_its_match(tmp_path, source, monkeypatch, caplog):
    plan = plan_of(
        source, seeds=1, arms=("adamw", "permuted@0.5", "circuit@0.5"), backend="sampled", shots=64
    )
    plan = replace(plan, arms=tuple(replace(arm, replays=arm.control) for arm in plan.arms))
    home, order = tmp_path / "c", Here()
    with caplog.at_level(logging.WARNING):
        compare(home, plan, order)
    assert [key.arm for key in order.given] == ["adamw", "circuit@0.5", "permuted@0.5"]
    control = runs.outcome(home, plan.key("permuted@0.5", 0))
    record = home / RUNS / plan.key("circuit@0.5", 0).name / "record.sqlite"
    assert control.summary["replayed"]["record"] == str(record.resolve())
    assert not caplog.records
    # permuted has its match's own values, so of one block of 4 at the first step the same RMS:
    measured = runs.outcome(home, plan.key("circuit@0.5", 0)).summary["effect_size"]["mean"]
    assert control.summary["effect_size"]["mean"] == pytest.approx(measured, rel=0.1)


def test_the_command_prints_the_contract_and_the_report_is_there(
    tmp_path, source, monkeypatch, capfd
):
    monkeypatch.setenv("QSGD_RUNS", str(tmp_path / "runs"))
    line = ["compare", source, "--arms", "adamw,sine@0.5", "--seeds", "2", "--json"]
    assert main(line) == 0
    said, progress = capfd.readouterr()
    data = json.loads(said)
    assert "[4/4] sine@0.5 seed 1: finished" in progress
    report = Path(data["report"])
    assert "<title>toy: 2 arms, 2 seeds</title>" in report.read_text()
    assert report.with_name("report.md").read_text().startswith("# toy: 2 arms, 2 seeds")
    assert report.parent.parent == tmp_path / "runs"
    assert main(line) == 0
    assert json.loads(capfd.readouterr().out) == data


@pytest.mark.slow
def test_the_command_survives_a_run_whose_process_dies(tmp_path, monkeypatch, capfd):
    source = toy.write(tmp_path, breaks="die")
    out = tmp_path / "c"
    line = ["compare", source, "--arms", "adamw,sine@0.5,uniform@0.5", "--seeds", "1", "--json"]
    assert main([*line, "--jobs", "2", "--out", str(out)]) == 1
    said, errors = capfd.readouterr()
    assert json.loads(said)["arms"]["uniform@0.5"]["accuracy"]["mean"] is not None
    assert json.loads(said)["arms"]["sine@0.5"]["accuracy"]["mean"] is None
    assert "1 of 3 runs failed" in errors
    assert "| sine@0.5, seed 0 | The process of this run died" in (out / "report.md").read_text()


@pytest.mark.parametrize(
    "line, says",
    [
        ([], "--preset paper, or --arms"),
        (["--preset", "paper", "--arms", "adamw,sine@1"], "in one way"),
        (["--preset", "papre"], "There is paper"),
        (["--arms", "adamw,sine@1", "--no-controls"], "for --preset"),
        (["--arms", "adamw,sine@1", "--seeds", "0"], "at least 1"),
        (["--arms", "adamw,sine@1", "--executor", "slurm"], "local and ray"),
        (["--arms", "adamw,sine@1", "--executor", "ray", "--jobs", "2"], "--threads"),
        (["--arms", "adamw,sine@1", "--jobs", "0"], "--jobs must be at least 1"),
        (["--arms", "adamw,sine@1", "--threads", "0"], "--threads must be at least 1"),
        (["--arms", "adamw,sine@1", "--epochs", "0"], "epochs must be"),
        (["--arms", "adamw,sine@1", "--data", "."], "takes no --data"),
    ],
)
def test_bad_input_exits_with_2_and_leaves_nothing_behind(
    tmp_path, source, monkeypatch, capfd, line, says
):
    monkeypatch.setenv("QSGD_RUNS", str(tmp_path / "runs"))
    assert main(["compare", source, *line]) == 2
    said, errors = capfd.readouterr()
    assert said == ""
    assert says in errors
    assert not (tmp_path / "runs").exists()


def test_a_comparison_knows_the_files_that_its_script_imports(tmp_path, monkeypatch, capsys):
    """Imported by name: in the plan. By importlib in build(): seen by its runs, and said."""
    monkeypatch.setattr("qsgd_lab.compare.executors.make_executor", made.here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    script = Path(toy.write(tmp_path).rpartition(":")[0])
    (tmp_path / "toy_width.py").write_text("")
    (tmp_path / "toy_late.py").write_text("")
    late = (
        'import importlib\n        importlib.import_module("toy_" + "late")\n        own = torch.'
    )
    text = script.read_text().replace("own = torch.", late, 1)
    script.write_text(f"import toy_width\n{text}")
    line = ["compare", f"{script}:make_task", "--arms", "adamw,sine@0.5", "--seeds", "1"]
    line += ["--epochs", "1", "--out", str(tmp_path / "c")]
    assert main(line) == 0
    assert main(line) == 0
    assert "was changed while or since" not in capsys.readouterr().out
    (tmp_path / "toy_late.py").write_text("N = 1")
    assert main(line) == 0
    assert "toy_late.py was changed while or since runs were trained" in capsys.readouterr().out
    (tmp_path / "toy_width.py").write_text("N = 1")
    monkeypatch.delitem(sys.modules, "toy_width")
    assert main(line) == 2
    assert "another toy_width.py" in " ".join(capsys.readouterr().err.split())


def test_a_program_from_standard_input_compares_and_is_not_run_again(tmp_path):
    source = toy.write(tmp_path)
    line = ["compare", source, "--arms", "adamw,sine@0.5", "--seeds", "1", "--epochs", "1"]
    line += ["--out", str(tmp_path / "c")]
    program = f"import sys\nfrom qsgd_core.cli import main\nsys.exit(main({line!r}))\n"
    done = subprocess.run(
        [sys.executable, "-"], input=program, text=True, capture_output=True, timeout=300,
        check=False, env=os.environ | {"QSGD_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_effect_sizes_unknown_and_not_finite_are_told_apart_in_table_and_json(tmp_path, source):
    arms = ("adafactor", "sine@0.5:inject=gradient")
    found = compare(tmp_path / "c", plan_of(source, seeds=1, arms=arms))
    shown = {row[0]: row[COLUMNS.index("effect size")] for row in rows(found)}
    assert shown["sine@0.5:inject=gradient"] == "unknown"
    assert not any("not_finite" in name for name in found.to_dict(Path("r")))
    whole = replace(found.arms["sine@0.5:inject=gradient"], effect_size=float("nan"))
    lost = replace(found, arms={"a": whole})
    assert [row[COLUMNS.index("effect size")] for row in rows(lost)] == ["not finite"]
    assert lost.to_dict(Path("r"))["not_finite"] == ["arms.a.effect_size.mean"]
