"""What the training loop asks for: measured once, paid for once, by a courier that may die."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.cli import courier as entry
from qsgd_core.errors import (
    AuthError,
    BackendError,
    BackendGoneError,
    BudgetExceededError,
    CapabilityError,
    ConfigError,
    JobFailedError,
)
from qsgd_core.schedule import process
from qsgd_core.schedule.courier import Courier
from qsgd_core.schedule.ledger import Ledger
from qsgd_core.schedule.measure import LOST, MAX_ATTEMPTS, Measurements, spending
from qsgd_core.schedule.process import MAX_DEATHS, CourierProcess


def work(seed: int = 0, rows: int = 2, n: int = 2) -> Workload:
    angles = np.random.default_rng(seed).normal(size=(rows, n))
    return Workload((CircuitBatch(ansatz(n, 1), angles),))


class Inline:
    """A courier in this process: one round per nudge."""

    def __init__(self, url: str, run: str, *, log: Path | None = None) -> None:
        self.ledger, self.run = Ledger(url), run
        self.courier: Courier | None = None
        self.stopped = 0

    def nudge(self) -> None:
        if self.courier is None:
            backend = entry._look(self.ledger, self.ledger.run(self.run))
            self.courier = Courier(self.ledger, backend, run=self.run)
        self.courier.round()

    def wait(self, timeout_s: float) -> None:
        pass

    def stop(self) -> None:
        self.courier = None
        self.stopped += 1


@pytest.fixture
def url(filebox, tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


@pytest.fixture
def start(url, tmp_path):
    """Makes measurements, as a trainer that starts or comes back does."""
    made = []

    def make(*, real: bool = False, budget: str = "b", run: str = "r", **options) -> Measurements:
        ledger = Ledger(url)
        ledger.ensure_budget("b", {"micro_usd": 50_000})
        options = {"folder": str(tmp_path / "vendor"), "coins": True} | options
        measurements = Measurements(
            ledger,
            run=run,
            backend="filebox:x",
            options=options,
            budget=budget,
            log=tmp_path / "courier.log",
            process=CourierProcess if real else Inline,
        )
        made.append(measurements)
        return measurements

    yield make
    for measurements in made:
        measurements.close()


@pytest.fixture
def vendor_jobs(tmp_path):
    def jobs() -> list[dict]:
        from qsgd_filebox.options import FileboxOptions
        from qsgd_filebox.vendor import Vendor

        return Vendor(FileboxOptions(folder=tmp_path / "vendor"), lambda: 1e12).jobs()

    return jobs


def bits(result) -> bytes:
    return b"".join(part.values.tobytes() for part in result.parts)


# --- asked again ---------------------------------------------------------------------------------


def test_the_same_question_twice_is_one_job_and_one_answer(start, vendor_jobs):
    first = start()
    one = first.measure(work(), shots=8, seed=1, step=0)
    again = first.measure(work(), shots=8, seed=1, step=0)
    later = start().measure(work(), shots=8, seed=1, step=0)
    assert bits(one) == bits(again) == bits(later)
    assert len(vendor_jobs()) == 1


@pytest.mark.parametrize("what", ["step", "work", "shots", "run"])
def test_another_question_is_another_job(start, vendor_jobs, what):
    start().measure(work(), shots=8, seed=1, step=0)
    start(run="r2" if what == "run" else "r").measure(
        work(1 if what == "work" else 0),
        shots=9 if what == "shots" else 8,
        seed=1,
        step=1 if what == "step" else 0,
    )
    assert len(vendor_jobs()) == 2


def test_the_step_that_used_a_result_first_is_noted(start, url):
    start().measure(work(), shots=8, seed=1, step=7)
    (job,) = Ledger(url).jobs()
    assert (job.step, job.consumed_step) == (7, 7)


def test_what_does_not_fit_one_job_is_measured_in_parts_and_joined(start, vendor_jobs):
    parts = start(max_rows=2).measure(work(rows=5), shots=8, seed=1, step=0)
    assert [part.values.shape for part in parts.parts] == [(5, 8, 2)]
    assert len(vendor_jobs()) == 3
    start(max_rows=2).measure(work(rows=5), shots=8, seed=1, step=0)
    assert len(vendor_jobs()) == 3


def test_a_part_that_is_missing_after_a_crash_is_all_that_is_bought(start, vendor_jobs, url):
    with pytest.raises(JobFailedError):
        start(max_rows=2, faults={"fails": [1]}).measure(work(rows=3), shots=8, seed=1, step=0)
    assert len(vendor_jobs()) == 2
    start(max_rows=2).measure(work(rows=3), shots=8, seed=1, step=0)
    assert len(vendor_jobs()) == 3
    assert sorted(j.state for j in Ledger(url).jobs()) == ["failed", "settled", "settled"]


# --- what comes to nothing -----------------------------------------------------------------------


def test_a_refunded_job_is_asked_for_again(start, vendor_jobs, url):
    start(faults={"dropped": [0]}).measure(work(), shots=8, seed=1, step=0)
    assert [(j.attempt, j.state) for j in Ledger(url).jobs()] == [(0, "refunded"), (1, "settled")]
    assert len(vendor_jobs()) == 1


def test_after_a_few_refunds_in_a_row_it_is_given_up(start, vendor_jobs, url):
    with pytest.raises(JobFailedError, match="no job under this tag"):
        start(faults={"dropped": list(range(99))}).measure(work(), shots=8, seed=1, step=0)
    assert [j.state for j in Ledger(url).jobs()] == ["refunded"] * MAX_ATTEMPTS
    assert vendor_jobs() == []
    assert sum(cap.reserved + cap.spent for cap in Ledger(url).caps()) == 0


def test_a_failed_job_is_an_error_now_and_another_attempt_when_the_run_is_resumed(
    start, vendor_jobs, url
):
    trainer = start(faults={"fails": [0]})
    with pytest.raises(JobFailedError, match="was failed: the vendor's reasons"):
        trainer.measure(work(), shots=8, seed=1, step=0)
    start().measure(work(), shots=8, seed=1, step=0)
    start().measure(work(), shots=8, seed=1, step=0)
    assert len(vendor_jobs()) == 2
    assert {j.state for j in Ledger(url).jobs()} == {LOST[0], "settled"}


def test_a_denial_is_the_same_answer_until_the_budget_is_raised(start, vendor_jobs, url):
    Ledger(url).create_budget("small", {"micro_usd": 1_000})
    for _ in range(2):
        with pytest.raises(BudgetExceededError, match="raise small") as caught:
            start(budget="small").measure(work(), shots=8, seed=1, step=0)
        assert (caught.value.asked, caught.value.left) == (1_016, 1_000)
    assert vendor_jobs() == []
    Ledger(url).raise_budget("small", "micro_usd", 1_016)
    start(budget="small").measure(work(), shots=8, seed=1, step=0)
    assert len(vendor_jobs()) == 1


def test_what_the_device_cannot_do_is_refused_before_anything_is_written(start, url):
    with pytest.raises(CapabilityError, match="up to 10 qubits"):
        start().measure(work(n=11), shots=8, seed=1, step=0)
    assert Ledger(url).jobs() == []


def test_a_job_cancelled_by_the_user_is_not_sent_again_behind_their_back(start, url, vendor_jobs):
    trainer = start(run_s=1000)
    ledger = Ledger(url)
    real = trainer._process.wait

    def cancel(timeout_s):
        for job in ledger.jobs(states=["submitted"]):
            ledger.cancel(job.tag)
        real(timeout_s)

    trainer._process.wait = cancel
    trainer._process.nudge()
    trainer._process.courier._look_later = lambda tag: None
    with pytest.raises(JobFailedError, match="cancelled"):
        trainer.measure(work(), shots=8, seed=1, step=0)
    assert len(vendor_jobs()) == 1


# --- what it cost --------------------------------------------------------------------------------


def test_spending_is_what_the_runs_jobs_cost_with_holds_for_those_that_are_out(start, url):
    start().measure(work(), shots=8, seed=1, step=0)
    start(run="other").measure(work(), shots=8, seed=1, step=0)
    cost = spending(Ledger(url), "r")
    assert (cost.jobs, cost.shots, cost.cost_usd, cost.qpu_s) == (1, 16, 1_016e-6, 2_160e-6)
    nothing = spending(Ledger(url), "none")
    assert (nothing.jobs, nothing.shots, nothing.cost_usd, nothing.qpu_s) == (0, 0, 0, 0)


def test_spending_that_nobody_knows_is_none(start, url):
    Ledger(url).create_budget("shots", {"shots": 100})
    start(priced=False, budget="shots", faults={"unbilled": [0]}).measure(
        work(), shots=8, seed=1, step=0
    )
    cost = spending(Ledger(url), "r")
    assert (cost.jobs, cost.shots, cost.cost_usd) == (1, 16, None)


# --- the courier as a process --------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault, kind, words",
    [
        ({"bad_key": True}, AuthError, "does not know this key"),
        ({"offline": True}, BackendGoneError, "is retired. There are: filebox:y"),
    ],
)
def test_what_the_first_look_finds_is_raised_as_it_is_and_forgotten_when_it_is_mended(
    start, url, vendor_jobs, fault, kind, words
):
    with pytest.raises(kind, match=words) as caught:
        start(real=True, **fault).measure(work(), shots=8, seed=1, step=0)
    assert type(caught.value) is kind
    assert Ledger(url).jobs() == []
    start(real=True).measure(work(), shots=8, seed=1, step=0)
    assert len(vendor_jobs()) == 1


def test_options_that_do_not_validate_are_a_config_error_in_the_trainer(start):
    with pytest.raises(ConfigError, match="has no option 'colour'"):
        start(real=True, colour="red").capabilities()


def test_a_courier_that_is_killed_while_a_job_is_out_is_replaced(start, vendor_jobs, url):
    trainer = start(real=True, run_s=0.5)
    killed = []
    real = trainer._process.wait

    def kill(timeout_s):
        if not killed and Ledger(url).jobs(states=["submitted"]):
            killed.append(trainer._process.pid)
            os.kill(trainer._process.pid, signal.SIGKILL)
        real(timeout_s)

    trainer._process.wait = kill
    trainer.measure(work(), shots=8, seed=1, step=0)
    assert killed
    assert trainer._process.pid not in (None, *killed)
    assert len(vendor_jobs()) == 1


@pytest.mark.parametrize("last_words", ["", "print('r', end='', flush=True)"])
def test_a_courier_that_dies_again_and_again_is_given_up(start, monkeypatch, tmp_path, last_words):
    """A first look is no progress: only a change on the ledger is."""
    (tmp_path / "dying.py").write_text(last_words)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(process, "COURIER_MODULE", "dying")
    waited = []
    monkeypatch.setattr(process.time, "sleep", waited.append)
    with pytest.raises(BackendError, match=f"died {MAX_DEATHS} times in a row; its log is "):
        start(real=True).measure(work(), shots=8, seed=1, step=0)
    assert len(waited) == MAX_DEATHS - 1


def test_a_surprise_in_the_adapter_reaches_the_trainer_and_keeps_the_job(start, url, tmp_path):
    trainer = start(real=True, run_s=0.3)
    real = trainer._process.wait

    def lose(timeout_s):
        if Ledger(url).jobs(states=["submitted"]):
            for path in (tmp_path / "vendor" / "jobs").glob("*.json"):
                path.write_text("<html>502</html>")
        real(timeout_s)

    trainer._process.wait = lose
    with pytest.raises(BackendError, match="cannot go on: JSONDecodeError"):
        trainer.measure(work(), shots=8, seed=1, step=0)
    assert [j.state for j in Ledger(url).jobs()] == ["submitted"]
    assert "Traceback" in (tmp_path / "courier.log").read_text()


def test_a_courier_waits_until_the_runs_other_one_is_gone(start, url, vendor_jobs):
    with Ledger(url).serve("r") as alone:
        assert alone
        trainer = start(real=True)
        ready = trainer._process
        ready.nudge()
        ready.wait(1.5)
        assert Ledger(url).run("r").capabilities is None
    trainer.measure(work(), shots=8, seed=1, step=0)
    assert len(vendor_jobs()) == 1


def test_close_ends_the_courier_and_its_exit_is_clean(start):
    trainer = start(real=True)
    trainer.capabilities()
    child = trainer._process._child
    trainer.close()
    assert child.returncode == 0
    trainer.close()
