"""What goes wrong at AWS while a model is trained: training goes on, and nothing is lost.

The optimizer, scheduler, courier, ledger and adapter are the real ones, and so are Amazon's client
libraries; the service is the double. A step takes a minute of a clock that nobody waits for
(``timelapse``).
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aws_devices
import pytest
import torch
from aws_double import AwsDouble
from timelapse import STEP_S, Clock, Training, timelapse

import qsgd_core as qsgd
from qsgd_braket.cloud.backend import BraketDevice
from qsgd_core.schedule.record.reader import RecordReader

STEPS, EVERY = 150, 30
HOUR = int(3600 / STEP_S)
POLLS = 4
"""Times that a task is asked for before it runs."""


@pytest.fixture
def clock(double: AwsDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
    def make(run: Any, clock: Clock) -> BraketDevice:
        return BraketDevice(run.pinned or run.backend, clock=clock, timer=clock, pause=clock.sleep)

    # Between two tries of the client.
    quick = SimpleNamespace(sleep=lambda seconds: None, time=time.time)
    monkeypatch.setattr("botocore.endpoint.time", quick)
    double.settings(queued_polls=POLLS)
    return timelapse(monkeypatch, tmp_path / "home", make)


@pytest.fixture
def training(clock: Clock, tmp_path: Path) -> Training:
    return train(clock, tmp_path, budget="$25")


def train(clock: Clock, folder: Path, **asked: Any) -> Training:
    def make(parameters: Any, **term: Any) -> Any:
        optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
        optimizer._term = qsgd.attach(optimizer, **term)
        return optimizer

    given = {"backend": aws_devices.CEPHEUS, "shots": 20, "every": EVERY, "total_steps": STEPS}
    return Training(folder / "home", clock, make, **{**given, "wait": "first", **asked})


def settle(training: Training, double: AwsDouble, **ended: int) -> None:
    """Nothing is lost: the ledger and AWS agree on every task and every cent."""
    training.finish()
    books, jobs = double.ledger(), training.jobs()
    assert training.steps == STEPS
    assert {job.state for job in jobs} <= {"settled", "failed", "refunded"}
    sent = [job.tag for job in jobs if job.handle is not None]
    assert sorted(sent) == sorted(task["tag"] for task in books["tasks"])
    assert training.spent("micro_usd") == round(books["paid_usd"] * 1e6)
    assert Counter(task["status"] for task in books["tasks"]) == {
        "COMPLETED": len(training.jobs("settled")),
        **ended,
    }
    settled = {job.step for job in training.jobs("settled")}
    assert settled <= set(training.learned)  # late ones teach too
    assert {
        result.step for result in RecordReader(training.record).results() if result.z
    } >= settled
    assert books["limits"] == {}  # the spending limit of our own is lifted


@pytest.mark.slow
@pytest.mark.parametrize("how", ["reset", "503"])
def test_an_hour_in_which_aws_does_not_answer_is_told_and_everything_comes_in_afterwards(
    training, double, how
):
    training.go(EVERY + 4)  # a task is in the queue
    assert [job.state for job in training.open()] == ["submitted"]
    double.settings(outage=how)
    training.go(HOUR)
    (outage,) = training.said("outage")
    assert f"{aws_devices.CEPHEUS} cannot be reached" in outage
    assert training.said("reached") == []
    asked = [job.step for job in training.jobs()]
    assert len(asked) == 4
    double.settings(outage=None)
    training.go(STEPS - training.steps)
    assert training.said("reached") == [f"{aws_devices.CEPHEUS} answers again."]
    assert {job.step for job in training.jobs("settled")} >= set(asked)
    settle(training, double)


def test_credentials_revoked_in_mid_run_stop_the_measuring_and_not_the_training(training, double):
    training.go(EVERY + 4)
    (job,) = training.open()
    double.settings(revoked=True)
    training.go(HOUR)
    stopped = training.said("stopped")
    assert "aws configure" in stopped[0]
    assert "Training goes on with what it has; the service is tried again in 60 s." in stopped[0]
    assert len(stopped) <= 7  # less and less often
    assert training.ledger.job(job.tag).state == "submitted"  # paid for, and not given up
    double.settings(revoked=False)
    training.go(STEPS - training.steps)
    assert [j.step for j in training.jobs("settled")] == [0, EVERY, 2 * EVERY, 3 * EVERY]
    settle(training, double)


def test_a_task_that_aws_fails_is_told_paid_as_billed_and_not_waited_for(training, double):
    training.go(EVERY)
    double.outcome("FAILED", reason="The fridge is warm.", shots=20)
    training.go(STEPS - training.steps)
    (job,) = training.jobs("failed")
    assert job.step == EVERY
    assert job.spent.micro_usd == round((0.30 + 20 * 0.000425) * 1e6)
    (said,) = training.said("failed")
    assert said.startswith(f"Step {EVERY}: ")
    assert "The fridge is warm." in said
    assert [j.step for j in training.jobs("settled")] == [0, 2 * EVERY, 3 * EVERY, 4 * EVERY]
    settle(training, double, FAILED=1)


def test_a_budget_raised_in_mid_run_is_spent_from_there_on(clock, double, tmp_path):
    """The budget is for two refreshes; the rest is granted half-way."""
    training = train(clock, tmp_path, budget="$0.8")
    training.go(STEPS // 2)
    assert [job.step for job in training.jobs("settled")] == [0, EVERY]
    (denied,) = training.said("denied")
    assert "Raise the budget (qsgd budget raise NAME AMOUNT) to go on measuring." in denied
    training.ledger.raise_budget(training.budget, {"micro_usd": 25_000_000})
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
    assert len(training.jobs("settled")) == 5
    settle(training, double)


def test_a_run_that_ends_while_the_courier_rests_still_cancels_what_is_queued(training, double):
    """The credentials are back, and the courier would have looked again much later."""
    training.go(4 * EVERY)
    double.settings(queued_polls=10**9)
    training.go(4)
    (job,) = training.open()
    double.settings(revoked=True)
    training.go(STEPS - training.steps)
    assert training.said("stopped")
    double.settings(revoked=False)
    settle(training, double, CANCELLED=1)
    assert training.ledger.job(job.tag).state == "failed"
    assert training.ledger.job(job.tag).spent.micro_usd == 0
    assert training.said("left") == []
