"""An unmodified ``qsgd train`` with a Braket ARN, wired to the double by variables only."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aws_devices
import numpy as np
import pytest
import torch
from aws_double import AwsDouble
from patience import PATIENCE_S

from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.training.loop import checkpoint

QSGD = [sys.executable, "-m", "qsgd_core", "train"]
DIGITS = ["digits", "--epochs", "1", "--every", "15", "--json"]
DIGITS += ["--policy", "sync"]  # training waits for each refresh and holds it
SMALL = Path(__file__).parents[3] / "tests" / "scripts" / "noisy_task.py"
TINY = [f"{SMALL}:make_task", "--every", "2", "--shots", "32", "--json"]


class User:
    """Somebody with a shell."""

    def __init__(self, double: AwsDouble, folder: Path) -> None:
        self.double = double
        self.folder = folder
        self.ledger_url = f"sqlite:///{folder / 'home' / 'ledger.sqlite'}"

    def start(self, backend: str, *arguments: str) -> subprocess.Popen[str]:
        variables = {
            "HOME": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "QSGD_HOME": str(self.folder / "home"),
            "QSGD_BACKEND": backend,
        }
        return subprocess.Popen(
            [*QSGD, *arguments],
            cwd=self.folder,
            env=self.double.environment() | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, backend: str, *arguments: str) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        process = self.start(backend, *arguments)
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err

    def succeed(self, backend: str, *arguments: str) -> dict[str, Any]:
        status, out, err = self.run(backend, *arguments)
        assert status == 0, err
        return dict(json.loads(out))

    def saved(self, run: str) -> checkpoint.Checkpoint:
        return checkpoint.load(self.folder / run / "checkpoint.pt")


@pytest.fixture
def user(double: AwsDouble, tmp_path: Path) -> User:
    return User(double, tmp_path)


def held(saved: checkpoint.Checkpoint) -> torch.Tensor:
    """The s that the latest steps applied, all coordinates in the order of the circuits."""
    state = saved.optimizer["state"]
    return torch.cat([state[i]["qsgd_s"] for i in sorted(state)])


def served(double: AwsDouble, task: dict[str, Any]) -> np.ndarray:
    """⟨Z⟩ of the one program in a task's result, float64 (rows, qubits)."""
    (program,) = double.result(task["result"])["programResults"]
    entries = sorted(program["executableResults"], key=lambda entry: entry["inputsIndex"])
    return 1.0 - 2.0 * np.array([entry["measurements"] for entry in entries]).mean(axis=1)


def test_what_the_double_serves_at_steps_0_15_and_30_is_the_s_that_training_applies(user):
    double = user.double
    double.settings(queued_polls=10**9)
    run = [
        "--shots",
        "256",
        "--budget",
        "$25",
        "--yes",
        "--run-dir",
        "run",
        "--checkpoint-every",
        "15",
    ]
    process = user.start(aws_devices.CEPHEUS, *DIGITS, *run)
    applied = []
    for tasks in (1, 2, 3):
        end = time.monotonic() + PATIENCE_S
        while double.ledger()["asked"] < tasks:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.02)
        saved = user.saved("run")  # written before the step that waits for this task
        assert saved.position.step == 15 * (tasks - 1)
        if tasks > 1:
            applied.append(held(saved))
        double.release()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    said, saved, books = json.loads(out), user.saved("run"), double.ledger()
    applied.append(held(saved))

    assert (books["requests"]["CreateQuantumTask"], books["asked"], books["paid"]) == (3, 3, 3)
    assert {task["device"] for task in books["tasks"]} == {aws_devices.CEPHEUS}
    assert said["jobs"] == 3
    assert said["shots"] == sum(task["shots"] for task in books["tasks"])
    assert said["cost_usd"] == pytest.approx(books["paid_usd"])
    assert said["qpu_s"] is None  # AWS bills shots
    assert said["sources"]["measured"] == 1.0

    ledger = Ledger(user.ledger_url)
    jobs = ledger.jobs(run=saved.config["run"])
    assert [(job.state, job.step, job.consumed_step) for job in jobs] == [
        ("settled", step, step) for step in (0, 15, 30)
    ]
    assert [job.shots for job in jobs] == [256] * 3
    for job, task, s in zip(jobs, books["tasks"], applied, strict=True):
        assert job.tag == task["tag"]
        at_aws = served(double, task)
        assert at_aws.std() > 0.1
        (stored,) = ledger.result(job.tag).expectations(ledger.workload(job.tag))
        np.testing.assert_array_equal(stored, at_aws)
        np.testing.assert_array_equal(s.numpy(), -at_aws.ravel().astype(np.float32))
    assert len({tuple(s.tolist()) for s in applied}) == 3


@pytest.mark.slow
def test_without_a_term_aws_hears_nothing(user):
    said = user.succeed(aws_devices.CEPHEUS, *DIGITS, "--quantum-weight", "0")
    assert (said["jobs"], said["shots"], said["cost_usd"], said["qpu_s"]) == (0, 0, 0, 0)
    assert user.double.ledger()["requests"] == {}


@pytest.mark.slow
def test_a_retired_device_is_an_error_that_says_what_there_is(user):
    status, out, err = user.run(aws_devices.ANKAA, *TINY)
    assert (status, out) == (2, "")
    assert "RETIRED" in err
    assert "braket:cepheus-1-108q" in err
    assert "Traceback" not in err
    assert user.double.ledger()["asked"] == 0


@pytest.mark.slow
def test_a_budget_below_one_task_says_what_a_task_costs_and_sends_nothing(user):
    status, out, err = user.run(aws_devices.GARNET, *TINY, "--budget", "$0.3")
    assert (status, out) == (1, "")
    assert "can cost up to $0.4" in err
    assert "$0.3 left of $0.3" in err
    assert "Traceback" not in err
    assert user.double.ledger()["requests"].get("CreateQuantumTask", 0) == 0


@pytest.mark.slow
@pytest.mark.parametrize("backend, tasks", [("braket:cepheus-1-108q", 3), ("braket:sv1", 18)])
def test_training_by_a_short_name_pays_for_what_one_refresh_takes(user, backend, tasks):
    said = user.succeed(backend, *DIGITS, "--shots", "128")
    ledger = user.double.ledger()
    assert (ledger["asked"], ledger["paid"]) == (tasks, tasks)
    assert said["sources"]["measured"] == 1.0
    assert said["jobs"] == tasks
    assert said["cost_usd"] == pytest.approx(ledger["paid_usd"])
