"""What goes wrong at IBM while a model is trained: training goes on, and nothing is lost.

The optimizer, scheduler, courier, ledger and adapter are the real ones, and so is IBM's client; the
service is the double. Except in the last tests, a step takes a minute of a clock that nobody waits
for (``timelapse``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from by_hand import children
from patience import PATIENCE_S
from timelapse import STEP_S, Clock, Training, timelapse

import qsgd_core as qsgd
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.record.reader import RecordReader
from qsgd_core.schedule.trainer.scheduler import REST_S
from qsgd_ibm.backend import IBMBackend
from qsgd_ibm.options import IBMOptions

STEPS, EVERY = 150, 30
HOUR = int(3600 / STEP_S)
USD_PER_S = 1.6
QUEUE = {"prompt": True, "queue_polls": 4, "plan": "Pay-as-you-go", "pricing": "paygo"}


@pytest.fixture
def clock(double: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    def make(run: Any, clock: Clock) -> IBMBackend:
        name = run.pinned or run.backend
        return IBMBackend(name, IBMOptions(), clock=clock, sleep=clock.sleep)

    double.settings(**QUEUE)
    return timelapse(monkeypatch, tmp_path / "home", make)


@pytest.fixture
def training(clock: Clock, tmp_path: Path) -> Training:
    return train(clock, tmp_path, budget="$500")


def train(clock: Clock, folder: Path, **asked: Any) -> Training:
    given = {"backend": "ibm_fez", "shots": 16, "every": EVERY, "total_steps": STEPS}
    return Training(folder / "home", clock, qsgd.QSGD, **{**given, "wait": "first", **asked})


def settle(training: Training, double: Any, *, failed: int = 0) -> None:
    """Nothing is lost: the ledger and IBM agree on every job and every cent."""
    training.finish()
    books, jobs = double.ledger(), training.jobs()
    assert training.steps == STEPS
    assert {job.state for job in jobs} <= {"settled", "failed", "refunded"}
    sent = [job for job in jobs if job.handle is not None]
    assert sorted(job.tag for job in sent) == sorted(
        t for j in books["jobs"] for t in j["tags"] if t != "qsgd"
    )
    assert books["asked"] == len(sent) == books["posts"]
    billed = sum(job["billed_s"] for job in books["jobs"])
    assert training.spent("micro_usd") == pytest.approx(billed * USD_PER_S * 1e6, abs=len(sent))
    assert sum(job["status"] == "Failed" for job in books["jobs"]) == failed
    settled = {job.step for job in training.jobs("settled")}
    assert settled <= set(training.learned)  # late ones teach too
    assert {
        result.step for result in RecordReader(training.record).results() if result.z
    } >= settled
    assert books["key_leaks"] == 0


@pytest.mark.parametrize("how", [pytest.param("reset", marks=pytest.mark.slow), "503"])
def test_an_hour_in_which_ibm_does_not_answer_is_told_and_everything_comes_in_afterwards(
    training, double, how
):
    training.go(EVERY + 4)  # a job is in the queue
    assert [job.state for job in training.open()] == ["submitted"]
    double.settings(outage=how)
    training.go(HOUR)
    assert len(training.said("outage")) == 1
    assert "ibm_fez cannot be reached" in training.said("outage")[0]
    assert training.said("reached") == []
    asked = [job.step for job in training.jobs()]
    double.settings(outage=None)
    training.go(STEPS - training.steps)
    assert training.said("reached") == ["ibm_fez answers again."]
    assert [job.state for job in training.jobs() if job.step in asked] == ["settled"] * len(asked)
    assert EVERY in training.learned
    settle(training, double)


def test_credentials_revoked_in_mid_run_stop_the_measuring_and_not_the_training(training, double):
    training.go(EVERY + 4)
    (job,) = training.open()
    double.settings(revoked=True)
    asked = double.ledger()["requests"]
    training.go(HOUR)
    stopped = training.said("stopped")
    assert "QISKIT_IBM_TOKEN" in stopped[0]
    assert "Training goes on with what it has; the service is tried again in 60 s." in stopped[0]
    assert len(stopped) <= 7  # less and less often
    assert sum(double.ledger()["requests"].values()) - sum(asked.values()) < 60
    assert training.ledger.job(job.tag).state == "submitted"  # paid for, and not given up
    double.settings(revoked=False)
    training.go(STEPS - training.steps)
    assert training.ledger.job(job.tag).state == "settled"
    assert [j.step for j in training.jobs("settled")] == [0, EVERY, 2 * EVERY, 3 * EVERY]
    settle(training, double)


def test_a_job_that_ibm_fails_is_told_paid_as_billed_and_not_waited_for(training, double):
    training.go(EVERY)
    double.settings(ending="Failed", reason="Internal error", reason_code=8050, bill_s=1.25)
    training.go(3)
    double.settings(**QUEUE, ending="Completed", reason=None, bill_s=None)
    training.go(STEPS - training.steps)
    (job,) = training.jobs("failed")
    assert job.step == EVERY
    assert job.spent.micro_usd == 1.25 * USD_PER_S * 1e6
    (said,) = training.said("failed")
    assert f"Step {EVERY}: " in said
    assert "8050" in said
    assert len(training.jobs("settled")) == len(training.jobs()) - 1 >= 3
    settle(training, double, failed=1)


def test_a_budget_raised_in_mid_run_is_spent_from_there_on(clock, double, tmp_path):
    """The budget is for two refreshes; the rest is granted half-way."""
    training = train(clock, tmp_path, budget="$15")
    training.go(STEPS // 2)
    assert [job.step for job in training.jobs("settled")] == [0, EVERY]
    (denied,) = training.said("denied")
    assert "Raise the budget (qsgd budget raise NAME AMOUNT) to go on measuring." in denied
    training.ledger.raise_budget(training.budget, {"micro_usd": 500_000_000})
    training.go(STEPS - training.steps)
    later = [job.step for job in training.jobs("settled")][2:]
    assert later == [STEPS // 2, STEPS // 2 + EVERY, STEPS // 2 + 2 * EVERY]
    settle(training, double)


def test_a_machine_that_sleeps_for_a_night_finds_its_result_when_it_wakes(training, double):
    training.go(EVERY + 4)
    (job,) = training.open()
    double.release()
    training.clock.sleep(9 * 3600)
    training.go(4)
    assert training.ledger.job(job.tag).state == "settled"
    assert EVERY in training.learned
    training.go(STEPS - training.steps)
    assert training.said("failed") == training.said("stopped") == []
    assert max(j.step for j in training.jobs("settled")) >= STEPS - 2 * EVERY
    settle(training, double)


# --- with a courier process, on the machine's own clock ------------------------------------------


def until(happened: Any) -> Any:
    """What ``happened`` gives as soon as it gives something."""
    end = time.monotonic() + PATIENCE_S
    while not (found := happened()):
        assert time.monotonic() < end
    return found


def test_trainer_and_courier_stopped_while_the_job_runs_go_on_where_they_were(double, tmp_path):
    """As a machine that sleeps: both processes stand still, IBM does not."""
    double.settings(hold=True)
    home = tmp_path / "home"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "QSGD_HOME": str(home),
        "QSGD_BACKEND": "ibm_brisbane",
        **double.environment,
    }
    task = f"{Path(__file__).parents[3] / 'tests' / 'scripts' / 'noisy_task.py'}:make_task"
    command = [sys.executable, "-m", "qsgd_core", "train", task, "--every", "4", "--shots", "32"]
    process = subprocess.Popen(
        [*command, "--json", "--run-dir", "run"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: double.ledger()["asked"] == 1)
    asleep = [process.pid, *children(process.pid)]
    assert len(asleep) >= 2
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    double.settings(hold=False)
    double.release()
    until(lambda: double.ledger()["jobs"][0]["status"] == "Completed")
    for pid in asleep:
        os.kill(pid, signal.SIGCONT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    said, books = json.loads(out), double.ledger()
    ledger = Ledger(f"sqlite:///{home / 'ledger.sqlite'}")
    assert books["asked"] == books["posts"] == said["jobs"] == len(ledger.jobs())
    assert {job.state for job in ledger.jobs()} <= {"settled", "failed"}
    spent = sum(job.spent.qpu_us for job in ledger.jobs())
    assert spent == pytest.approx(sum(job["billed_s"] for job in books["jobs"]) * 1e6, abs=3)


def test_a_courier_process_whose_key_was_revoked_rests_as_long_as_it_was_told(
    double, monkeypatch, tmp_path
):
    """Its end is noticed after the pause was asked for, and does not cut it short."""
    monkeypatch.setenv("QSGD_HOME", str(tmp_path / "home"))
    training = Training(
        tmp_path / "home",
        Clock(),
        qsgd.QSGD,
        backend="ibm_fez",
        shots=16,
        every=lambda step: 1 if step < 2 else 10**6,
        wait="first",
    )
    training.go(1)
    double.settings(hold=True)
    until(lambda: training.go(1) or [job for job in training.open() if job.state == "submitted"])
    double.settings(revoked=True)
    until(lambda: training.go(1) or training.said("stopped"))
    line = training.term.source.paid._scheduler._line._line
    until(lambda: training.go(1) or line.pid is None)
    starts = line.starts
    training.go(1)
    assert line._rest_until - time.monotonic() > REST_S[0] / 2
    assert line.starts == starts
    double.settings(revoked=False)
    training.term.close(finished=False)
