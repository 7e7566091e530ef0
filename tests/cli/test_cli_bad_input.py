"""Mistakes: one paragraph that says the fix, exit code 2, no traceback, nothing overwritten."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from patience import PATIENCE_S

from qsgd_core.cli import main

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parents[1] / "scripts" / "noisy_task.py"
TASK = f"{SCRIPT}:make_task"


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder, capsys):
    """A finished run of two epochs."""
    assert main(["train", TASK, "--run-dir", "run", "--json"]) == 0
    capsys.readouterr()
    return folder / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


def refuse(capsys, arguments: list[str], *needles: str, code: int = 2) -> None:
    """The command fails as it should, and leaves every file under the folder as it was."""
    before = contents(Path.cwd())
    assert main(arguments) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    (paragraph,) = [line for line in said.err.splitlines() if line.strip()]
    for needle in needles:
        assert needle in paragraph
    assert contents(Path.cwd()) == before


@pytest.mark.parametrize(
    "options, needles",
    [
        (["--backend", "exakt"], ["Unknown backend 'exakt'", "Did you mean 'exact'"]),
        (["--perturbation", "sin"], ["Unknown perturbation 'sin'", "Did you mean 'sine'"]),
        (["--n-qubits", "0"], ["n_qubits must be an integer of at least 1, not 0"]),
        (["--depth", "0"], ["depth must be an integer of at least 1, not 0"]),
        (["--quantum-weight", "nan"], ["quantum_weight must be finite", "nan"]),
        (["--quantum-weight", "inf"], ["quantum_weight must be finite", "inf"]),
        (["--shots", "-1"], ["shots must be an integer of at least 1, not -1"]),
        (["--scope", "row"], ["scope must be", "'tensor'", "'row'"]),
        (["--inject", "x"], ["inject must be", "'x'"]),
        (["--every", "0"], ["every must be", "0"]),
        (["--optimizer", "lbfgs"], ["LBFGS cannot step without a closure"]),
        (["--optimizer", "sdg"], ["no optimizer 'sdg'", "Did you mean sgd"]),
        (["--lr", "nan"], ["lr must be finite"]),
        (["--epochs", "0"], ["epochs must be", "0"]),
        (["--checkpoint-every", "0"], ["checkpoint_every must be", "0"]),
        (["--observe", "tensorbord"], ["Unknown observer 'tensorbord'"]),
        (["--backend", "exact", "--option", "shots=1"], ["takes no options; found shots"]),
        (["--option", "shots"], ["'shots' is not of the form NAME=VALUE"]),
        (["--resume", "nowhere"], ["There is no run 'nowhere'"]),
        (["--resume", "nowhere", "--run-dir", "x"], ["leave --run-dir x out"]),
        (["--resume", "nowhere", "--dry-run"], ["leave --resume out"]),
    ],
    ids=lambda value: "-".join(value) if value[0].startswith("--") else "",
)
def test_a_mistake_in_an_option_is_one_paragraph_and_exit_code_2(capsys, options, needles):
    refuse(capsys, ["train", TASK, *options], *needles)


@pytest.mark.parametrize(
    "task, needles",
    [
        ("digitz", ["Unknown task 'digitz'", "Did you mean 'digits'"]),
        ("no_such.py:make_task", ["no task script no_such.py"]),
        (str(SCRIPT), ["Add it:", ":make_task"]),
        (f"{SCRIPT}:make_tusk", ["has no function 'make_tusk'"]),
        (f"{SCRIPT}:make_nothing", ["returned None, not a qsgd_core.Task"]),
        (f"{SCRIPT}:make_trouble", ["ZeroDivisionError: on purpose", "line"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_task_that_cannot_be_had_is_one_paragraph_and_exit_code_2(capsys, task, needles):
    refuse(capsys, ["train", task], *needles)


def test_no_task_at_all_says_what_to_type(capsys):
    refuse(capsys, ["train"], "qsgd train digits")


def test_a_folder_that_cannot_be_written_is_refused_before_training(capsys, folder):
    (folder / "file").write_text("in the way")
    refuse(capsys, ["train", TASK, "--run-dir", "file/run"], "cannot be written", "--run-dir")


def test_a_folder_that_is_not_empty_is_never_trained_into(capsys, run):
    (run.parent / "notes").mkdir()
    (run.parent / "notes" / "diary.txt").write_text("mine")
    refuse(capsys, ["train", TASK, "--run-dir", "run"], "not empty", "--resume run")
    refuse(capsys, ["train", TASK, "--run-dir", "notes"], "not empty", "another --run-dir")


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_checkpoint_is_refused(capsys, run, keep):
    whole = (run / "checkpoint.pt").read_bytes()
    (run / "checkpoint.pt").write_bytes(whole[:keep])
    refuse(
        capsys, ["train", "--resume", "run", "--epochs", "5"], "checkpoint.pt is damaged", "Restore"
    )


def test_a_checkpoint_of_another_n_qubits_is_refused(capsys, run):
    assert main(["train", TASK, "--run-dir", "wide", "--n-qubits", "5", "--json"]) == 0
    capsys.readouterr()
    (run / "checkpoint.pt").write_bytes((run.parent / "wide" / "checkpoint.pt").read_bytes())
    refuse(
        capsys,
        ["train", "--resume", "run", "--epochs", "5"],
        "is a checkpoint of another run: it has n_qubits 5 instead of 4",
        "Nothing was changed",
    )


@pytest.mark.parametrize(
    "option, value, have",
    [("n-qubits", "5", "4"), ("depth", "3", "2"), ("perturbation", "circuit", "'sine'")],
)
def test_a_run_cannot_be_resumed_as_another(capsys, run, option, value, have):
    refuse(
        capsys,
        ["train", "--resume", "run", f"--{option}", value],
        option.replace("-", "_"),
        f"the run has {have}",
    )


def test_a_run_of_another_task_is_refused(capsys, run):
    refuse(capsys, ["train", "digits", "--resume", "run"], "trains task 'noisy', not 'digits'")


@pytest.mark.parametrize("text", ["", "{", '{"format": 1}', '{"format": 9}', "[]"])
def test_a_damaged_record_is_refused(capsys, run, text):
    (run / "config.json").write_text(text)
    refuse(capsys, ["train", "--resume", "run"], "config.json")


def test_a_run_whose_script_is_gone_says_which(capsys, run):
    record = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(record | {"source": "/gone/task.py:make_task"}))
    refuse(capsys, ["train", "--resume", "run"], "no task script /gone/task.py")


def test_a_setting_that_cannot_be_read_names_its_variable(capsys, monkeypatch):
    monkeypatch.setenv("QSGD_SHOTS", "many")
    refuse(capsys, ["train", TASK], "QSGD_SHOTS='many'")


def test_an_option_that_does_not_exist_is_a_usage_error(capsys):
    assert main(["train", TASK, "--n-qbits", "3"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "--n-qubits" in said.err


def test_debug_shows_the_traceback_and_so_does_the_environment(capsys, monkeypatch):
    assert main(["train", f"{SCRIPT}:make_trouble", "--debug"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "ZeroDivisionError: on purpose" in said
    monkeypatch.setenv("QSGD_DEBUG", "1")
    assert main(["train", f"{SCRIPT}:make_trouble"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_an_error_in_a_tasks_own_code_is_exit_code_1_and_points_to_debug(capsys, folder):
    script = folder / "failing_task.py"
    script.write_text(
        SCRIPT.read_text()
        + "\n\nclass Failing(Noisy):\n    def loss(self, model, batch):\n        return 1 / 0\n"
    )
    assert main(["train", f"{script}:Failing"]) == 1
    said = capsys.readouterr().err
    assert "Error: ZeroDivisionError: division by zero. Run it again with --debug" in said
    assert "Traceback" not in said


def test_the_real_program_keeps_the_exit_code_and_stays_quiet(folder):
    done = subprocess.run(
        [sys.executable, "-m", "qsgd_core", "train", TASK, "--n-qubits", "0", "--json"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: n_qubits must be")
    assert "Traceback" not in done.stderr
    assert not list(folder.iterdir())


def test_weights_are_the_same_after_all_these_refusals(capsys, run):
    before = torch.load(run / "checkpoint.pt", weights_only=True)["model"]
    refuse(capsys, ["train", "--resume", "run", "--epochs", "1"], "come to 2")
    after = torch.load(run / "checkpoint.pt", weights_only=True)["model"]
    assert all(torch.equal(before[k], after[k]) for k in before)
