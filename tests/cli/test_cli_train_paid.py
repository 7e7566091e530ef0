"""``qsgd train`` on a paid backend: how a run ends that was to use hardware and could not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qsgd_core.cli import main

TASK = f"{Path(__file__).parents[1] / 'scripts' / 'noisy_task.py'}:make_task"


@pytest.fixture
def train(filebox, tmp_path, monkeypatch, capsys):
    """Runs the task on the double with these arguments: exit code, stdout, stderr, run folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        where = ("--backend", "filebox:x", "--option", f"folder={tmp_path / 'vendor'}")
        what = ("--shots", "8", "--option", "coins=true", "--budget", "$1", "--yes")
        code = main(["train", TASK, "--epochs", "1", "--every", "2", *where, *what, *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_run_that_used_no_hardware_result_exits_with_1_and_says_how_to_get_one(train):
    code, out, err = train("--wait", "never", "--option", "run_s=1000", "--json")
    assert code == 1
    assert json.loads(out)["sources"]["nominal"] == 1.0
    assert "Error: No step of this run used a hardware result." in err
    assert "--wait first" in err


@pytest.mark.parametrize("free", [("--policy", "twin"), ("--quantum-weight", "0")])
def test_a_run_that_was_to_use_none_does_not(train, free):
    code, out, _ = train(*free, "--json")
    assert code == 0
    assert json.loads(out)["jobs"] == 0


def test_a_vendor_that_bills_above_the_hold_is_told_at_the_end(train):
    code, out, err = train("--option", 'faults={"overbilled": [0]}', "--json")
    assert code == 1
    said = json.loads(out)
    assert said["sources"]["tracked"] == 1.0
    assert "Error: " in err
    assert "The vendor has billed $0.002064" in err
    assert "No step of this run" not in err


def test_a_run_that_used_hardware_exits_with_0_and_reports_every_cent(train, capsys):
    code, out, _ = train("--json")
    assert code == 0
    said = json.loads(out)
    assert main(["report", said["run_dir"], "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["money"]["balanced"] is True
    assert report["money"]["cost_usd"] == said["cost_usd"] > 0
    assert report["hardware"]["refreshes"]["applied"] >= 1
    assert report["sources"] == said["sources"]
