"""Ctrl-C and kill -9, with real signals to a real process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from patience import PATIENCE_S

from qsgd_core.cli import main

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parents[1] / "scripts" / "noisy_task.py"
STEP = 8
"""The step in which ``make_waiting`` waits for a line from its parent: the third of epoch 2."""


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def waiting():
    """A training process that waits within step 8."""
    process = subprocess.Popen(
        [sys.executable, "-m", "qsgd_core", "train", f"{SCRIPT}:make_waiting", "--run-dir", "run"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    for line in process.stderr:
        if line.strip() == "ready":
            break
    yield process
    process.kill()
    process.communicate()


def position() -> dict:
    return torch.load("run/checkpoint.pt", weights_only=True)["position"]


def assert_resumes_to_the_bits_of_a_whole_run(capsys) -> None:
    assert main(["train", f"{SCRIPT}:make_task", "--resume", "run", "--json"]) == 0
    assert main(["train", f"{SCRIPT}:make_task", "--run-dir", "whole", "--json"]) == 0
    one, two = (torch.load(f"{p}/checkpoint.pt", weights_only=True) for p in ("run", "whole"))
    assert all(torch.equal(one["model"][k], two["model"][k]) for k in two["model"])
    moments = [[s["exp_avg"] for s in state["optimizer"]["state"].values()] for state in (one, two)]
    assert all(map(torch.equal, *moments))
    assert Path("run/metrics.jsonl").read_bytes() == Path("whole/metrics.jsonl").read_bytes()
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said[0]["accuracy"] == said[1]["accuracy"]


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(waiting, capsys):
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate("\n", timeout=PATIENCE_S)
    assert waiting.returncode == 130
    assert "Interrupted after step 8; everything is saved." in err
    assert "To go on: qsgd train --resume run" in err
    assert "Traceback" not in err
    assert out == ""
    assert (position()["epoch"], position()["batch"], position()["step"]) == (1, 3, STEP)
    assert_resumes_to_the_bits_of_a_whole_run(capsys)


def test_kill_9_falls_back_to_the_last_checkpoint(waiting, capsys):
    waiting.kill()
    assert waiting.wait(timeout=PATIENCE_S) == -signal.SIGKILL
    assert (position()["epoch"], position()["batch"]) == (1, 0)
    assert_resumes_to_the_bits_of_a_whole_run(capsys)


def test_a_second_ctrl_c_ends_the_process_at_once(waiting):
    waiting.send_signal(signal.SIGINT)
    # The first has been taken in when the second is on its way: it is the handler of the first
    # that lets the second through, and signals of one kind do not queue.
    while waiting.poll() is None:
        waiting.send_signal(signal.SIGINT)
    assert waiting.returncode == -signal.SIGINT
    assert (position()["epoch"], position()["batch"]) == (1, 0)
