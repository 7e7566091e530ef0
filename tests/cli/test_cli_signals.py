"""Ctrl-C and kill -9, with real signals to a real process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
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
    assert waiting.returncode == 130, err
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


# --- while a job is queued -----------------------------------------------------------------------


def queued(filebox: dict[str, str], folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A process, started when the vendor has a job that will take long."""
    options = {"folder": str(folder / "vendor"), "coins": True, "run_s": 1000}
    return subprocess.Popen(
        [sys.executable, "-m", "qsgd_core", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=filebox | {"QSGD_BACKEND": "filebox:x", "QSGD_BACKEND_OPTIONS": json.dumps(options)},
        start_new_session=True,
    )


def until_a_job_is_out(process: subprocess.Popen[str], folder: Path) -> None:
    while not list((folder / "vendor" / "jobs").glob("*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def let_the_vendor_finish(folder: Path) -> None:
    for path in (folder / "vendor" / "jobs").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"accepted_at": 0.0}))


def interrupted(process: subprocess.Popen[str]) -> str:
    """Ctrl-C, and what it is answered before the end."""
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize("policy", ["sync", pytest.param("tracked", marks=pytest.mark.slow)])
def test_ctrl_c_while_a_job_is_queued_is_answered_and_stops_at_the_last_checkpoint(
    filebox, tmp_path, capsys, monkeypatch, policy
):
    train = ["train", f"{SCRIPT}:make_task", "--shots", "8", "--every", "3", "--policy", policy]
    process = queued(filebox, tmp_path, *train, "--budget", "$1", "--run-dir", "run", "--yes")
    until_a_job_is_out(process, tmp_path)
    err = interrupted(process)
    assert "Training waits for the result of step 0 from filebox:x." in err
    assert "A second Ctrl-C ends it at once." in err
    assert "Interrupted after step 0; everything is saved." in err
    let_the_vendor_finish(tmp_path)
    monkeypatch.setattr("qsgd_core.schedule.trainer.scheduler.FINISH_S", 0.0)
    assert main(["train", f"{SCRIPT}:make_task", "--resume", "run", "--max-steps", "2"]) == 0
    assert len(list((tmp_path / "vendor" / "jobs").glob("*.json"))) == 1  # paid for once


def test_ctrl_c_while_jobs_are_waited_for_is_answered(filebox, tmp_path):
    train = ["train", f"{SCRIPT}:make_task", "--shots", "8", "--budget", "$1", "--yes"]
    trainer = queued(filebox, tmp_path, *train, "--run-dir", "run")
    until_a_job_is_out(trainer, tmp_path)
    trainer.kill()
    trainer.communicate()
    process = queued(filebox, tmp_path, "jobs", "wait")
    while not subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True).stdout:
        assert process.poll() is None
    err = interrupted(process)
    assert "Interrupted while waiting for qsgd-" in err
    assert "(submitted); they stay with the service. To wait again: qsgd jobs wait." in err
