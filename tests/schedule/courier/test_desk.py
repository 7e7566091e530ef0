"""The courier's desk: a refresh is bought once, whoever asks again, and comes to something or not.

First in one process on a clock of its own, then with couriers that are processes and are killed.
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable

import numpy as np
import pytest
from stage import BUDGET, PRICE, Stage, work_at

from qsgd_core.builtin.policies import Hold, Sync, Tracked
from qsgd_core.circuits import Workload
from qsgd_core.errors import (
    AuthError,
    BackendError,
    BackendGoneError,
    BudgetExceededError,
    CapabilityError,
    ConfigError,
    JobFailedError,
    ResultCorruptError,
)
from qsgd_core.jobs import NoiseSnapshot
from qsgd_core.schedule.courier.desk import MAX_ATTEMPTS, TROUBLE_S
from qsgd_core.schedule.courier.teacher import Teacher
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.spending import spending
from qsgd_core.schedule.paid_run import PaidRun
from qsgd_core.schedule.trainer import process
from qsgd_core.schedule.trainer.process import MAX_DEATHS, CourierProcess
from qsgd_core.schedule.trainer.scheduler import Scheduler


@pytest.fixture
def stage(filebox, tmp_path) -> Stage:
    return Stage(tmp_path)


def measure(stage: Stage, step: int = 0, **config) -> bytes:
    """A trainer that starts, takes one step, and is gone; the bits it got."""
    stage.go(stage.scheduler(Sync(), **config), [step], every=1)
    return stage.z[0].tobytes()


# --- asked again ---------------------------------------------------------------------------------


def test_the_same_step_asked_for_by_three_trainers_is_one_job_and_one_answer(stage):
    assert measure(stage) == measure(stage) == measure(stage)
    assert len(stage.vendor.jobs()) == 1


@pytest.mark.parametrize("what", ["step", "run"])
def test_another_question_is_another_job(stage, what):
    measure(stage)
    stage.run = "r2" if what == "run" else "r"
    measure(stage, 1 if what == "step" else 0)
    assert len(stage.vendor.jobs()) == 2


def test_the_step_that_used_a_result_first_is_noted(stage):
    scheduler = stage.scheduler(Sync())
    stage.go(scheduler, [7, 8], every=5)
    (job,) = stage.jobs()
    assert (job.step, job.consumed_step) == (7, 7)


def test_what_does_not_fit_one_job_is_measured_in_parts_and_put_together(stage):
    stage.have(max_rows=2)
    rows: dict[str, Callable[[int], Workload]] = {"work": lambda step: work_at(step, rows=5)}
    for _ in range(2):
        stage.go(stage.scheduler(Sync()), [0], every=1, **rows)
        assert stage.z[0].shape == (5, 2)
        assert len(stage.vendor.jobs()) == 3
    whole = []
    for job in stage.jobs():
        whole += stage.ledger.result(job.tag).expectations(stage.ledger.workload(job.tag))
    np.testing.assert_array_equal(stage.z[0], np.concatenate(whole))


def test_a_part_that_is_missing_is_all_that_the_next_life_buys(stage):
    stage.have(max_rows=1, faults={"fails": [1]})
    measure(stage)
    stage.have(max_rows=1)
    measure(stage)
    assert len(stage.vendor.jobs()) == 3
    assert [(j.part, j.attempt, j.state) for j in stage.jobs()] == [
        (0, 0, "settled"),
        (1, 0, "failed"),
        (1, 1, "settled"),
    ]


def test_a_result_that_teaches_nothing_is_told_and_the_next_ones_are_collected(stage, monkeypatch):
    real, calls = Teacher.teach, []

    def teach(*given, **more):
        calls.append(given)
        if len(calls) == 1:
            raise ZeroDivisionError("no variance")
        return real(*given, **more)

    monkeypatch.setattr(Teacher, "teach", teach)
    scheduler = stage.scheduler(Tracked(), wait="never", total_steps=1000)
    sources = stage.go(scheduler, range(12), every=4)
    (failed,) = stage.said("failed")
    first = stage.jobs()[0]
    assert failed.startswith(
        f"Step {first.step}: What was measured for step {first.step} could not"
    )
    assert "be used (ZeroDivisionError: no variance.). It stays on the ledger: " in failed
    assert failed.endswith(f"qsgd jobs fetch {first.tag}")
    assert sources[-1] == "tracked"
    assert len(stage.jobs(states=["settled"])) > 1


@pytest.mark.parametrize(
    "beside, words",
    [
        ({"executed_at": "yesterday"}, "executed_at is 'yesterday'"),
        ({"executed_at": float("nan")}, "executed_at is nan"),
        ({"physical_qubits": ("q0", "q1")}, "not numbers of qubits"),
        ({"billed": 0.25}, "billed is a float, and not a Cost"),
    ],
)
def test_what_a_result_says_beside_its_values_is_checked_too(stage, monkeypatch, beside, words):
    real = stage.backend.fetch
    monkeypatch.setattr(
        stage.backend, "fetch", lambda handle: dataclasses.replace(real(handle), **beside)
    )
    with pytest.raises(ResultCorruptError, match=words):
        measure(stage)


# --- what comes to nothing -----------------------------------------------------------------------


def test_a_refunded_job_is_asked_for_again(stage):
    stage.have(faults={"dropped": [0]})
    measure(stage)
    assert [(j.attempt, j.state) for j in stage.jobs()] == [(0, "refunded"), (1, "settled")]
    assert len(stage.vendor.jobs()) == 1


def test_after_a_few_refunds_it_is_given_up(stage):
    stage.have(faults={"dropped": list(range(99))})
    with pytest.raises(JobFailedError, match="no job under this tag"):
        measure(stage)
    assert [j.state for j in stage.jobs()] == ["refunded"] * MAX_ATTEMPTS
    assert stage.vendor.jobs() == []
    assert stage.account == (0, 0, 0)


def test_a_failed_job_is_an_error_now_and_another_attempt_when_the_run_is_resumed(stage):
    stage.have(faults={"fails": [0]})
    with pytest.raises(JobFailedError, match="was failed: the vendor's reasons"):
        measure(stage)
    assert measure(stage) == measure(stage)
    assert len(stage.vendor.jobs()) == 2
    assert {j.state for j in stage.jobs()} == {"failed", "settled"}


def test_the_attempt_that_was_paid_for_is_found_behind_the_one_that_failed(stage):
    """A trainer that does not wait learns from it as soon as it is back."""
    stage.have(faults={"fails": [0]})
    with pytest.raises(JobFailedError):
        measure(stage)
    first = measure(stage)
    scheduler = stage.scheduler(Hold(), wait="never", total_steps=10)
    assert stage.go(scheduler, [1, 2], every=100) == ["nominal", "held"]
    assert stage.z[0].tobytes() == first
    assert len(stage.vendor.jobs()) == 2


def test_a_refunded_job_that_turns_up_late_does_not_take_the_place_of_the_one_that_was_bought(
    stage,
):
    """The list shows it after the horizon, while the second attempt is out."""
    stage.have(lag_s=25, horizon_s=2, run_s=60, faults={"lost": [0]})
    scheduler = stage.scheduler(Sync())
    stage.go(scheduler, [0], every=1)
    late, settled = stage.jobs()
    assert (late.attempt, settled.attempt, settled.state) == (0, 1, "settled")
    assert late.state in ("stray", "failed")
    (expected,) = stage.ledger.result(settled.tag).expectations(work_at(0))
    np.testing.assert_array_equal(stage.z[0], expected)
    assert measure(stage) == expected.tobytes()
    assert len(stage.vendor.jobs()) == 2
    assert stage.account == (0, stage.truth, 0)


def test_a_denial_is_the_same_answer_until_the_budget_is_raised(stage):
    stage.ledger.create_budget("small", {"micro_usd": 1_000})
    for _ in range(2):
        with pytest.raises(BudgetExceededError, match="raise small") as caught:
            measure(stage, budget_name="small")
        assert (caught.value.asked, caught.value.left) == (PRICE, 1_000)
    assert stage.vendor.jobs() == []
    stage.ledger.raise_budget("small", {"micro_usd": PRICE})
    measure(stage, budget_name="small")
    assert len(stage.vendor.jobs()) == 1


def test_a_denied_refresh_is_not_bought_behind_the_users_back_when_there_is_money_again(stage):
    """Its angles are of the past by then."""
    stage.ledger.create_budget("one", {"micro_usd": PRICE})
    stage.run = "other"
    measure(stage, budget_name="one")
    stage.run = "r"
    measure(stage, budget_name="one")
    assert len(stage.said("denied")) == 1
    stage.ledger.raise_budget("one", {"micro_usd": 9 * PRICE})
    scheduler = stage.scheduler(Hold(), wait="never", budget_name="one", total_steps=9)
    stage.go(scheduler, [3], every=100)
    stage.clock.now += 100
    stage.line.receive()
    assert [job["tag"] for job in stage.vendor.jobs()] == [
        job.tag for job in stage.ledger.jobs(states=["settled"])
    ]
    assert {job.state for job in stage.jobs(step=0)} == {"failed"}


def test_what_the_device_cannot_do_is_refused_before_anything_is_written(stage):
    with pytest.raises(CapabilityError, match="up to 30 qubits"):
        stage.go(stage.scheduler(Sync()), [0], every=1, work=lambda step: work_at(step, n=31))
    assert stage.jobs() == []


def test_a_job_cancelled_by_the_user_is_not_sent_again_behind_their_back(stage):
    stage.have(run_s=1000)
    scheduler = stage.scheduler(Sync())
    real = stage.line.receive

    def cancel(timeout_s: float = 0.0):
        for job in stage.jobs(states=["submitted"]):
            stage.ledger.cancel(job.tag)
        return real(timeout_s)

    stage.line.receive = cancel
    with pytest.raises(JobFailedError, match="cancelled"):
        stage.go(scheduler, [0], every=1)
    assert len(stage.vendor.jobs()) == 1


# --- what it says --------------------------------------------------------------------------------


def test_an_outage_is_told_once_it_lasts_and_so_is_its_end(stage, monkeypatch):
    from qsgd_core.errors import TransientError

    stage.have(run_s=1e6)
    scheduler = stage.scheduler(Hold(), wait="never", total_steps=10_000)
    stage.go(scheduler, range(8), every=1000)
    with monkeypatch.context() as patch:

        def down(handle):
            raise TransientError("Connection reset.", retryable=True)

        patch.setattr(stage.backend, "status", down)
        stage.go(scheduler, range(8, 12), every=1000, step_s=TROUBLE_S / 6)
        assert stage.said("outage") == []
        stage.go(scheduler, range(12, 30), every=1000, step_s=TROUBLE_S / 6)
        assert stage.said("outage") == ["filebox:x cannot be reached: Connection reset."]
    stage.go(scheduler, range(30, 40), every=1000, step_s=TROUBLE_S / 6)
    assert stage.said("reached") == ["filebox:x answers again."]


def test_the_nominal_twin_comes_from_the_vendors_own_figures(stage, monkeypatch):
    figures = NoiseSnapshot(
        stamp="today", physical_qubits=(5, 6), readout=((0.2, 0.3), (0.1, 0.15))
    )
    monkeypatch.setattr(stage.backend, "calibration", lambda work: figures)
    scheduler = stage.scheduler(Hold(), wait="never", total_steps=100)
    stage.go(scheduler, [0, 1], every=100)
    free = scheduler._ladder.nominal.estimate
    assert free.stamp == "today"
    assert [(free.of_site(k).e01, free.of_site(k).e10) for k in (0, 1)] == [*figures.readout]


# --- what it cost --------------------------------------------------------------------------------


def test_spending_is_what_the_runs_jobs_cost_with_holds_for_those_that_are_out(stage):
    measure(stage)
    stage.run = "other"
    measure(stage)
    cost = spending(stage.ledger, "r")
    assert (cost.jobs, cost.shots, cost.cost_usd, cost.qpu_s) == (1, 16, PRICE / 1e6, 2_160e-6)
    nothing = spending(stage.ledger, "none")
    assert (nothing.jobs, nothing.shots, nothing.cost_usd, nothing.qpu_s) == (0, 0, 0, 0)


def test_spending_that_nobody_knows_is_none(stage):
    stage.ledger.create_budget("shots", {"shots": 100})
    stage.have(priced=False, faults={"unbilled": [0]})
    measure(stage, budget_name="shots")
    cost = spending(stage.ledger, "r")
    assert (cost.jobs, cost.shots, cost.cost_usd) == (1, 16, None)


# --- the courier as a process --------------------------------------------------------------------


class Trainer:
    """A scheduler that waits for each result, with a real courier."""

    def __init__(self, folder, **options) -> None:
        url = f"sqlite:///{folder / 'real.sqlite'}"
        self.ledger = Ledger(url)
        self.ledger.ensure_budget(BUDGET, {"micro_usd": 50_000})
        options = {"folder": str(folder / "vendor"), "coins": True, **options}
        self.ledger.open_run("r", backend="filebox:x", options=options)
        self.line = CourierProcess(url, "r", log=folder / "courier.log")
        config = PaidRun(run_id="r", budget_name=BUDGET, backend_options=options)
        self.scheduler = Scheduler(self.line, Sync(), config, tell=lambda event: None)

    def measure(self, step: int = 0) -> bytes:
        (z,), source = self.scheduler.expectations(work_at(step), step=step, shots=8, every=1)
        assert source == "measured"
        return z.tobytes()

    def meanwhile(self, act: Callable[[], None]) -> None:
        """Have something happen between any two looks at what the courier says."""
        real = self.line.receive

        def receive(timeout_s: float = 0.0):
            act()
            return real(min(timeout_s, 0.1))

        self.line.receive = receive


@pytest.fixture
def start(filebox, tmp_path):
    made = []

    def make(**options) -> Trainer:
        made.append(Trainer(tmp_path, **options))
        return made[-1]

    yield make
    for trainer in made:
        trainer.line.stop()


@pytest.fixture
def sold(tmp_path):
    def jobs() -> list[dict]:
        from qsgd_filebox.options import FileboxOptions
        from qsgd_filebox.vendor import Vendor

        return Vendor(FileboxOptions(folder=tmp_path / "vendor"), lambda: 1e12).jobs()

    return jobs


@pytest.mark.parametrize(
    "fault, kind, words",
    [
        ({"bad_key": True}, AuthError, "does not know this key"),
        ({"offline": True}, BackendGoneError, "is retired. There are: filebox:y"),
        ({"colour": "red"}, ConfigError, "has no option 'colour'"),
    ],
)
def test_what_the_first_look_finds_is_raised_as_it_is_and_forgotten_when_it_is_mended(
    start, sold, fault, kind, words
):
    trainer = start(**fault)
    with pytest.raises(kind, match=words) as caught:
        trainer.measure()
    assert type(caught.value) is kind
    assert trainer.ledger.jobs() == []
    start().measure()
    assert len(sold()) == 1


def test_a_courier_that_is_killed_while_a_job_is_out_is_replaced(start, sold):
    trainer = start(run_s=0.5)
    killed = []

    def kill() -> None:
        if not killed and trainer.ledger.jobs(states=["submitted"]):
            killed.append(trainer.line.pid)
            os.kill(trainer.line.pid, signal.SIGKILL)

    trainer.meanwhile(kill)
    trainer.measure()
    assert killed
    assert trainer.line.pid not in (None, *killed)
    assert len(sold()) == 1


def test_a_trainer_whose_courier_dies_again_and_again_is_told_so(start, monkeypatch, tmp_path):
    (tmp_path / "dying.py").write_text("print('r', end='', flush=True)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(process, "COURIER_MODULE", "dying")
    monkeypatch.setattr(process.time, "sleep", lambda seconds: None)
    trainer = start()
    with pytest.raises(BackendError, match=f"died {MAX_DEATHS} times in a row; its log is "):
        trainer.measure()


def test_a_surprise_in_the_adapter_reaches_the_trainer_and_keeps_the_job(start, tmp_path):
    trainer = start(run_s=0.5)

    def spoil() -> None:
        if trainer.ledger.jobs(states=["submitted"]):
            for path in (tmp_path / "vendor" / "jobs").glob("*.json"):
                path.write_text("<html>502</html>")

    trainer.meanwhile(spoil)
    with pytest.raises(BackendError, match="cannot go on: JSONDecodeError"):
        trainer.measure()
    assert [j.state for j in trainer.ledger.jobs()] == ["submitted"]
    assert "Traceback" in (tmp_path / "courier.log").read_text()


def test_a_courier_waits_until_the_runs_other_one_is_gone(start, sold):
    trainer = start()
    with trainer.ledger.serve("r") as alone:
        assert alone
        trainer.line.receive(1.5)
        assert trainer.ledger.run("r").capabilities is None
    trainer.measure()
    assert len(sold()) == 1


def test_close_ends_the_courier_and_its_exit_is_clean(start):
    trainer = start()
    trainer.measure()
    child = trainer.line._child
    trainer.scheduler.close(finished=True)
    assert child.returncode == 0
    trainer.scheduler.close(finished=True)


def test_a_trainer_killed_and_started_again_gets_the_same_bits_for_the_same_money(start, sold):
    bits = []
    for step in range(2):
        trainer = start()
        bits.append(trainer.measure(step))
        os.kill(trainer.line.pid, signal.SIGKILL)
    trainer = start()
    assert [trainer.measure(step) for step in range(2)] == bits
    assert len(sold()) == 2
