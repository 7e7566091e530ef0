"""An unmodified ``qsgd train`` on IBM: no test code in its process, only environment variables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from patience import PATIENCE_S

from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.training.loop import checkpoint

QSGD = [sys.executable, "-m", "qsgd_core"]
DIGITS = ["train", "digits", "--epochs", "1", "--every", "15", "--shots", "256", "--json"]
DIGITS += ["--policy", "sync"]  # training waits for each refresh and holds it
SMALL = Path(__file__).parents[3] / "tests" / "scripts" / "noisy_task.py"
TINY = ["train", f"{SMALL}:make_task", "--every", "2", "--shots", "32", "--json"]


class User:
    """Somebody with a shell."""

    def __init__(self, double: Any, folder: Path) -> None:
        self.double = double
        self.folder = folder
        self.ledger_url = f"sqlite:///{folder / 'home' / 'ledger.sqlite'}"
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "OMP_NUM_THREADS": "1",
            "QSGD_HOME": str(folder / "home"),
            "QSGD_BACKEND": "ibm_brisbane",
            **double.environment,
        }

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*QSGD, *arguments],
            cwd=self.folder,
            env=self.env | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err

    def succeed(self, *arguments: str, **variables: str) -> dict[str, Any]:
        status, out, err = self.run(*arguments, **variables)
        assert status == 0, err
        return dict(json.loads(out))

    def saved(self, run: str) -> checkpoint.Checkpoint:
        return checkpoint.load(self.folder / run / "checkpoint.pt")


@pytest.fixture
def user(double: Any, tmp_path: Path) -> User:
    return User(double, tmp_path)


def wait_for(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


def held(saved: checkpoint.Checkpoint) -> torch.Tensor:
    """The s that the latest steps applied, all coordinates in the order of the circuits."""
    state = saved.optimizer["state"]
    return torch.cat([state[i]["qsgd_s"] for i in sorted(state)])


def test_what_the_double_serves_at_steps_0_15_and_30_is_the_s_that_training_applies(user):
    double = user.double
    double.settings(hold=True)
    process = user.start(*DIGITS, "--run-dir", "run", "--checkpoint-every", "15")
    applied = []
    for jobs in (1, 2, 3):
        wait_for(lambda jobs=jobs: double.ledger()["asked"] == jobs, process)
        saved = user.saved("run")  # written before the step that waits for this job
        assert saved.position.step == 15 * (jobs - 1)
        if jobs > 1:
            applied.append(held(saved))
        double.release()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    said, saved, books = json.loads(out), user.saved("run"), double.ledger()
    applied.append(held(saved))

    assert (books["posts"], books["asked"], books["paid"]) == (3, 3, 3)
    assert {job["backend"] for job in books["jobs"]} == {"ibm_brisbane"}
    assert said["jobs"] == 3
    assert said["shots"] == sum(sum(job["rows"]) * job["shots"] for job in books["jobs"])
    assert said["qpu_s"] == pytest.approx(sum(job["billed_s"] for job in books["jobs"]))
    assert said["cost_usd"] == 0.0  # the double's plan is free
    assert said["sources"]["measured"] == 1.0

    ledger = Ledger(user.ledger_url)
    jobs = ledger.jobs(run=saved.config["run"])
    assert [(job.state, job.step, job.consumed_step) for job in jobs] == [
        ("settled", step, step) for step in (0, 15, 30)
    ]
    assert [job.shots for job in jobs] == [256] * 3
    for job, at_ibm, s in zip(jobs, books["jobs"], applied, strict=True):
        assert job.tag in at_ibm["tags"]
        (served,) = map(np.array, at_ibm["served"])
        assert served.std() > 0.1
        (stored,) = ledger.result(job.tag).expectations(ledger.workload(job.tag))
        np.testing.assert_array_equal(stored, served)
        np.testing.assert_array_equal(s.numpy(), -served.ravel().astype(np.float32))
    assert len({tuple(s.tolist()) for s in applied}) == 3


@pytest.mark.slow
def test_without_a_term_ibm_hears_nothing(user):
    said = user.succeed(*DIGITS, "--quantum-weight", "0")
    assert (said["jobs"], said["shots"], said["cost_usd"], said["qpu_s"]) == (0, 0, 0, 0)
    assert user.double.ledger()["requests"] == {}


def test_a_retired_device_is_an_error_that_says_what_there_is(user):
    user.double.settings(devices={"ibm_fez": {"online": True, "queue_length": 3}})
    status, out, err = user.run(*TINY)
    assert (status, out) == (2, "")
    assert "ibm_brisbane is not available to this account" in err
    assert "IBM has retired it" in err
    for way in (
        "QSGD_BACKEND=ibm_fez",
        "QSGD_BACKEND=ibm:least_busy",
        "QSGD_BACKEND=fake_brisbane",
    ):
        assert way in err
    assert "Traceback" not in err
    assert user.double.ledger()["posts"] == 0


@pytest.mark.slow
def test_the_least_busy_device_is_looked_up_once_and_kept_when_the_run_goes_on(user):
    def queues(brisbane: int, fez: int) -> None:
        lengths = {"ibm_brisbane": brisbane, "ibm_fez": fez}
        user.double.settings(
            devices={name: {"online": True, "queue_length": n} for name, n in lengths.items()}
        )

    asked = {"QSGD_BACKEND": "ibm:least_busy"}
    queues(9, 1)
    user.succeed(*TINY, "--policy", "sync", "--run-dir", "run", "--max-steps", "1", **asked)
    queues(1, 9)
    said = user.succeed("train", "--resume", "run", "--max-steps", "3", "--json", **asked)
    assert said["jobs"] == 2
    assert [job["backend"] for job in user.double.ledger()["jobs"]] == ["ibm_fez", "ibm_fez"]
    run = Ledger(user.ledger_url).run(user.saved("run").config["run"])
    assert (run.backend, run.pinned) == ("ibm:least_busy", "ibm_fez")


def test_a_budget_below_one_job_says_what_a_job_costs_and_sends_nothing(user):
    status, out, err = user.run(*TINY, "--budget", "2s")
    assert (status, out) == (1, "")
    assert "The next job on 'ibm_brisbane' can cost up to 6 s of QPU time" in err
    assert "2 s of QPU time left of 2 s" in err
    assert "Traceback" not in err
    assert user.double.ledger()["posts"] == 0
