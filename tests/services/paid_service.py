"""What every paid service is held to, through its own client: training, faults, kills.

An adapter's tests derive from :class:`PaidServiceTests` and have a fixture ``service``, which gives
the vendor's double in the words of :class:`PaidService`. The optimizer, the scheduler, the courier,
the ledger and the adapter are the real ones, and so is the vendor's client.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from kills import BUDGET, Books, Bystander, Moment, Sold, Trainer, campaign, kill, look_once
from kills import wait_for as wait_for_trainer
from numpy.typing import NDArray
from patience import PATIENCE_S
from timelapse import STEP_S, Clock, Training, timelapse

from qsgd_core.backend import Backend
from qsgd_core.jobs import Cost
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.money import Amount
from qsgd_core.schedule.record.reader import RecordReader
from qsgd_core.training.loop import checkpoint

QSGD = [sys.executable, "-m", "qsgd_core", "train"]
DIGITS = ["digits", "--epochs", "1", "--every", "15", "--shots", "256", "--json"]
DIGITS += ["--policy", "sync"]  # training waits for each refresh and holds it
SMALL = Path(__file__).parents[1] / "scripts" / "noisy_task.py"
TINY = [f"{SMALL}:make_task", "--every", "2", "--shots", "32", "--json"]

STEPS, EVERY = 150, 30
HOUR = int(3600 / STEP_S)

# The list shows a job 0.3 s after its acceptance; the adapter is told 1.5 s.
LAG_S, HORIZON_S = 0.3, 1.5

# A courier takes seconds to import the SDK; half of the kills meet one that talks to the service.
MOMENTS = [
    *3 * [Moment(2.0)],
    Moment(0.6, since="request"),
    *2 * [Moment(0.4, since="asked")],
]


@dataclass(frozen=True)
class Bought:
    """A job as the vendor has it.

    Attributes:
        tag: ours.
        job_id: the vendor's.
        device: it runs on.
        state: ``queued``, ``done``, ``failed`` or ``cancelled``.
        executions: shots of all circuits.
        bill: what it costs.
    """

    tag: str
    job_id: str
    device: str
    state: str
    executions: int
    bill: Cost


class PaidService(ABC):
    """A vendor's double.

    Attributes:
        distribution: the adapter's.
        device: what most trainings are on.
        task_device: what the small ones are on.
        retired: a device that is no more.
        instead: what the error about it says.
        no_access: what the error about a revoked key says.
        unit: the ledger's, that jobs are paid in.
        cap: of the kill tests' budget, in that unit.
        enough: a budget for a whole training.
        for_two: one for two refreshes and not three.
        too_little: one for less than a job of the small task, and what is said of it.
        yes: options that let ``qsgd train`` spend what it takes.
        small_shots: of a training on a clock of its own.
        failure: what the vendor says of a job that it fails, and what it charges, in micro-dollars.
    """

    distribution: ClassVar[str]
    device: ClassVar[str]
    task_device: ClassVar[str]
    retired: ClassVar[str]
    instead: ClassVar[Sequence[str]]
    no_access: ClassVar[str]
    unit: ClassVar[str]
    cap: ClassVar[int]
    enough: ClassVar[str]
    for_two: ClassVar[str]
    too_little: ClassVar[tuple[str, Sequence[str]]]
    yes: ClassVar[Sequence[str]] = ()
    small_shots: ClassVar[int]
    failure: ClassVar[tuple[str, int]]

    @property
    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """What wires the vendor's client in a new process to the double, PATH included."""

    @abstractmethod
    def bought(self) -> Sequence[Bought]:
        """Every job so far, in the order of acceptance."""

    @abstractmethod
    def served(self, number: int) -> Sequence[NDArray[np.float64]]:
        """⟨Z⟩ that was served for a job, float64 (rows, qubits) for each batch."""

    @abstractmethod
    def requests(self) -> Mapping[str, int]:
        """Requests so far, by kind."""

    @abstractmethod
    def asked(self) -> int:
        """Requests for a job."""

    @abstractmethod
    def queue(self) -> None:
        """From now on a job waits for some polls before it runs."""

    @abstractmethod
    def hold(self, on: bool = True) -> None:
        """From now on a job waits in the queue until it is released."""

    @abstractmethod
    def release(self) -> None:
        """What waits in the queue runs."""

    @abstractmethod
    def outage(self, how: str | None) -> None:
        """``reset``: connections are cut; ``503``: every answer is one; None: all is well."""

    @abstractmethod
    def revoke(self, on: bool) -> None:
        """Whether the key is refused."""

    @abstractmethod
    def fail_next(self) -> None:
        """The next job is failed as :attr:`failure` says."""

    @abstractmethod
    def go_well(self) -> None:
        """Jobs after that one are not."""

    @abstractmethod
    def trouble(self) -> None:
        """Submissions whose answers are late or lost, for a campaign of kills."""

    @abstractmethod
    def lose_the_answer(self) -> None:
        """The answer to the next submission takes five seconds."""

    @abstractmethod
    def list_after(self, seconds: float) -> None:
        """How long the list lags behind."""

    @abstractmethod
    def retire(self) -> None:
        """:attr:`retired` is."""

    @abstractmethod
    def make(self, name: str, clock: Clock) -> Backend:
        """The adapter, on that clock."""

    @abstractmethod
    def optimizer(self, parameters: Any, **term: Any) -> Any:
        """One with the term on it, for :class:`~timelapse.Training`."""

    @abstractmethod
    def check_summary(self, said: Mapping[str, Any]) -> None:
        """What a finished run says it has paid is what the vendor has billed."""

    def check(self) -> None:  # noqa: B027
        """A finished run has left nothing behind at the vendor."""

    def paid(self, unit: str) -> int:
        """What was billed, rounded job by job as the ledger does."""
        return sum(Amount.from_cost(job.bill).of(unit) or 0 for job in self.bought())


class Shell:
    """Somebody who types ``qsgd train``: only environment variables wire it to the double."""

    def __init__(self, service: PaidService, folder: Path) -> None:
        self.service = service
        self.folder = folder
        self.ledger_url = f"sqlite:///{folder / 'home' / 'ledger.sqlite'}"

    def start(self, backend: str, *arguments: str) -> subprocess.Popen[str]:
        """``qsgd train`` with those arguments."""
        variables = {
            "HOME": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "QSGD_HOME": str(self.folder / "home"),
            "QSGD_BACKEND": backend,
        }
        return subprocess.Popen(
            [*QSGD, *arguments],
            cwd=self.folder,
            env={**self.service.environment, **variables},
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
        """What it says with ``--json``."""
        status, out, err = self.run(backend, *arguments)
        assert status == 0, err
        return dict(json.loads(out))

    def saved(self, run: str) -> checkpoint.Checkpoint:
        """The checkpoint of a run folder."""
        return checkpoint.load(self.folder / run / "checkpoint.pt")


def until(happened: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> Any:
    """What ``happened`` gives as soon as it gives something, which the process lives to see."""
    end = time.monotonic() + PATIENCE_S
    while not (found := happened()):
        if process is not None:
            assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


class KillScene:
    """A ledger with a budget, the vendor's books, and trainers that reach both."""

    def __init__(self, service: PaidService, folder: Path) -> None:
        self.service = service
        self.env = {
            **service.environment,
            "HOME": str(folder),
            "QSGD_LOAD_PLUGINS": service.distribution,
            "OMP_NUM_THREADS": "1",
        }
        self.log = folder / "log"
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
        self.ledger.create_budget(BUDGET, {service.unit: service.cap})

    def books(self) -> Books:
        """Read now."""
        unit = self.service.unit
        sold = (
            Sold(job.tag, Amount.from_cost(job.bill).of(unit) or 0) for job in self.service.bought()
        )
        requests = sum(self.service.requests().values())
        return Books(tuple(sold), requests=requests, asked=self.service.asked())

    def start(self, steps: int, horizon_s: float = HORIZON_S) -> Trainer:
        """A trainer that goes so many steps."""
        options, device = {"find_horizon_s": horizon_s}, self.service.task_device
        return Trainer(self.ledger.url, device, options, steps, env=self.env, log=self.log)


def held(saved: checkpoint.Checkpoint) -> torch.Tensor:
    """The s that the latest steps applied, all coordinates in the order of the circuits."""
    state = saved.optimizer["state"]
    return torch.cat([state[i]["qsgd_s"] for i in sorted(state)])


def train(service: PaidService, clock: Clock, folder: Path, **asked: Any) -> Training:
    """A training of :data:`STEPS` minutes on a clock of its own."""
    given = {"backend": service.device, "shots": service.small_shots, "every": EVERY}
    more = {"total_steps": STEPS, "wait": "first"}
    return Training(folder / "home", clock, service.optimizer, **given, **more, **asked)


def settle(training: Training, service: PaidService, **ended: int) -> None:
    """Nothing is lost: the ledger and the vendor agree on every job and every cent."""
    training.finish()
    jobs, bought = training.jobs(), service.bought()
    assert training.steps == STEPS
    assert {job.state for job in jobs} <= {"settled", "failed", "refunded"}
    assert sorted(job.tag for job in jobs if job.handle is not None) == sorted(
        job.tag for job in bought
    )
    assert service.asked() == len(bought)
    assert training.spent("micro_usd") == service.paid("micro_usd")
    done = Counter({"done": len(training.jobs("settled")), **ended})
    assert Counter(job.state for job in bought) == done
    settled = {job.step for job in training.jobs("settled")}
    assert settled <= set(training.learned)  # late ones teach too
    kept = {result.step for result in RecordReader(training.record).results() if result.z}
    assert kept >= settled
    service.check()


class PaidServiceTests:
    """The tests; a class of an adapter's own makes them its."""

    @pytest.fixture
    def shell(self, service: PaidService, tmp_path: Path) -> Shell:
        return Shell(service, tmp_path)

    @pytest.fixture
    def clock(self, service: PaidService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Clock:
        def make(run: Any, name: str, clock: Clock) -> Backend:
            return service.make(name, clock)

        service.queue()
        return timelapse(monkeypatch, tmp_path / "home", make)

    @pytest.fixture
    def training(self, service: PaidService, clock: Clock, tmp_path: Path) -> Training:
        return train(service, clock, tmp_path, budget=service.enough)

    # --- an unmodified `qsgd train` --------------------------------------------------------------

    def test_what_is_served_at_steps_0_15_and_30_is_the_s_that_training_applies(
        self, service, shell
    ):
        service.hold()
        more = ["--run-dir", "run", "--checkpoint-every", "15"]
        process = shell.start(service.device, *DIGITS, *service.yes, *more)
        applied = []
        for count in (1, 2, 3):
            until(lambda count=count: len(service.bought()) == count, process)
            saved = shell.saved("run")  # written before the step that waits for this job
            assert saved.position.step == 15 * (count - 1)
            if count > 1:
                applied.append(held(saved))
            service.release()
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err
        said, saved, bought = json.loads(out), shell.saved("run"), service.bought()
        applied.append(held(saved))

        assert service.asked() == len(bought) == said["jobs"] == 3
        assert {job.state for job in bought} == {"done"}
        assert {job.device for job in bought} == {service.device}
        assert said["shots"] == sum(job.executions for job in bought)
        assert said["sources"]["measured"] == pytest.approx(1 / 15)
        assert said["sources"]["held"] == pytest.approx(14 / 15)
        service.check_summary(said)

        ledger = Ledger(shell.ledger_url)
        jobs = ledger.jobs(run=saved.config["run"])
        assert [(job.state, job.step, job.consumed_step) for job in jobs] == [
            ("settled", step, step) for step in (0, 15, 30)
        ]
        assert [job.shots for job in jobs] == [256] * 3
        for number, (job, s) in enumerate(zip(jobs, applied, strict=True)):
            assert job.tag == bought[number].tag
            (served,) = service.served(number)
            assert served.std() > 0.1
            (stored,) = ledger.result(job.tag).expectations(ledger.workload(job.tag))
            np.testing.assert_array_equal(stored, served)
            np.testing.assert_array_equal(s.numpy(), -served.ravel().astype(np.float32))
        assert len({tuple(s.tolist()) for s in applied}) == 3

    @pytest.mark.slow
    def test_without_a_term_the_vendor_hears_nothing(self, service, shell):
        said = shell.succeed(service.device, *DIGITS, "--quantum-weight", "0")
        assert (said["jobs"], said["shots"], said["cost_usd"], said["qpu_s"]) == (0, 0, 0, 0)
        assert not service.requests()

    @pytest.mark.slow
    def test_a_retired_device_is_an_error_that_says_what_there_is(self, service, shell):
        service.retire()
        status, out, err = shell.run(service.retired, *TINY)
        assert (status, out) == (2, "")
        assert all(way in err for way in service.instead), err
        assert "Traceback" not in err
        assert service.asked() == 0

    @pytest.mark.slow
    def test_a_budget_below_one_job_says_what_a_job_costs_and_sends_nothing(self, service, shell):
        budget, words = service.too_little
        status, out, err = shell.run(service.task_device, *TINY, "--budget", budget)
        assert (status, out) == (1, "")
        assert all(said in err for said in words), err
        assert "Traceback" not in err
        assert service.asked() == 0

    # --- what goes wrong while a model is trained ------------------------------------------------

    @pytest.mark.slow
    @pytest.mark.parametrize("how", ["reset", "503"])
    def test_an_hour_without_answers_is_told_and_everything_comes_in_afterwards(
        self, service, training, how
    ):
        training.go(EVERY + 4)  # a job is in the queue
        assert [job.state for job in training.open()] == ["submitted"]
        service.outage(how)
        training.go(HOUR)
        (outage,) = training.said("outage")
        assert f"{service.device} cannot be reached" in outage
        assert training.said("reached") == []
        asked = {job.step for job in training.jobs()}
        assert len(asked) > 2
        service.outage(None)
        training.go(STEPS - training.steps)
        assert training.said("reached") == [f"{service.device} answers again."]
        assert {job.step for job in training.jobs("settled")} >= asked
        assert EVERY in training.learned
        settle(training, service)

    def test_credentials_revoked_in_mid_run_stop_the_measuring_and_not_the_training(
        self, service, training
    ):
        training.go(EVERY + 4)
        (job,) = training.open()
        service.revoke(True)
        before = sum(service.requests().values())
        training.go(HOUR)
        stopped = training.said("stopped")
        assert service.no_access in stopped[0]
        again = "Training goes on with what it has; the service is tried again in 60 s."
        assert again in stopped[0]
        assert len(stopped) <= 7  # less and less often
        assert sum(service.requests().values()) - before < 60
        assert training.ledger.job(job.tag).state == "submitted"  # paid for, and not given up
        service.revoke(False)
        training.go(STEPS - training.steps)
        assert training.ledger.job(job.tag).state == "settled"
        assert [j.step for j in training.jobs("settled")] == [0, EVERY, 2 * EVERY, 3 * EVERY]
        settle(training, service)

    def test_a_failed_job_is_told_paid_as_billed_and_not_waited_for(self, service, training):
        reason, cost = service.failure
        training.go(EVERY)
        service.fail_next()
        training.go(3)
        service.go_well()
        training.go(STEPS - training.steps)
        (job,) = training.jobs("failed")
        assert job.step == EVERY
        assert job.spent.micro_usd == cost
        (said,) = training.said("failed")
        assert said.startswith(f"Step {EVERY}: ")
        assert reason in said
        assert len(training.jobs("settled")) == len(training.jobs()) - 1 >= 3
        settle(training, service, failed=1)

    def test_a_budget_raised_in_mid_run_is_spent_from_there_on(self, service, clock, tmp_path):
        """The budget is for two refreshes; the rest is granted half-way."""
        training = train(service, clock, tmp_path, budget=service.for_two)
        training.go(STEPS // 2)
        assert [job.step for job in training.jobs("settled")] == [0, EVERY]
        (denied,) = training.said("denied")
        assert "Raise the budget (qsgd budget raise NAME AMOUNT) to go on measuring." in denied
        training.ledger.raise_budget(training.budget, {"micro_usd": 500_000_000})
        training.go(STEPS - training.steps)
        later = [job.step for job in training.jobs("settled")][2:]
        assert later == [STEPS // 2, STEPS // 2 + EVERY, STEPS // 2 + 2 * EVERY]
        settle(training, service)

    def test_a_machine_that_sleeps_for_a_night_finds_its_result_when_it_wakes(
        self, service, training
    ):
        training.go(EVERY + 4)
        (job,) = training.open()
        service.release()
        training.clock.sleep(9 * 3600)
        training.go(4)
        assert training.ledger.job(job.tag).state == "settled"
        assert EVERY in training.learned
        training.go(STEPS - training.steps)
        assert training.said("failed") == training.said("stopped") == []
        assert max(j.step for j in training.jobs("settled")) >= STEPS - 2 * EVERY
        settle(training, service)

    def test_a_run_that_ends_while_the_courier_rests_still_cancels_what_is_queued(
        self, service, training
    ):
        """The credentials are back, and the courier would have looked again much later."""
        training.go(4 * EVERY)
        service.hold()
        training.go(4)
        (job,) = training.open()
        service.revoke(True)
        training.go(STEPS - training.steps)
        assert training.said("stopped")
        service.revoke(False)
        settle(training, service, cancelled=1)
        assert training.ledger.job(job.tag).state == "failed"
        assert training.ledger.job(job.tag).spent.micro_usd == 0
        assert training.said("left") == []

    # --- kill -9 ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("kills, seed", [(4, 1), pytest.param(110, 2, marks=pytest.mark.slow)])
    def test_whatever_is_killed_when_nothing_is_paid_twice(self, service, tmp_path, kills, seed):
        service.list_after(LAG_S)
        service.trouble()
        scene = KillScene(service, tmp_path)
        bystander = Bystander(scene.books, scene.ledger)
        # Three steps a trainer: IBM takes five jobs a minute from one courier.
        found = campaign(scene.start, bystander, MOMENTS, kills=kills, steps=3, seed=seed)
        bought = service.bought()
        assert [job.state for job in bought] == ["done"] * found.steps
        for number, job in enumerate(bought):  # stored is what was served for it, to the bit
            workload = scene.ledger.workload(job.tag)
            result = scene.ledger.result(job.tag).expectations(workload)
            np.testing.assert_array_equal(
                np.concatenate(result), np.concatenate(service.served(number))
            )
        print(f"{service.distribution}: {dict(found.struck)}, {found.steps} jobs, {found.states}")

    @pytest.mark.slow
    def test_a_job_that_turns_up_after_the_horizon_is_cancelled_and_settled(
        self, service, tmp_path
    ):
        self.check_a_late_job(service, tmp_path, ran=False)

    def check_a_late_job(self, service: PaidService, tmp_path: Path, *, ran: bool) -> None:
        """It was given back as never made, and has run by the time it turns up or waits still."""
        scene = KillScene(service, tmp_path)
        ledger = scene.ledger
        service.list_after(1e9)
        service.hold(not ran)
        service.lose_the_answer()
        trainer = scene.start(1, horizon_s=0.5)
        wait_for_trainer(service.bought, trainer)
        courier = trainer.courier()
        assert courier is not None
        kill(courier)
        service.hold(False)
        trainer.end()
        assert [job.state for job in ledger.jobs()] == ["refunded", "settled"]
        assert len(service.bought()) == 2

        service.list_after(0.0)
        look_once(ledger.url, env=scene.env)
        late, settled = ledger.jobs()
        assert (late.state, settled.state) == ("failed", "settled")
        first, second = service.bought()
        assert (first.state, second.state) == ("done" if ran else "cancelled", "done")
        assert late.handle is not None
        assert late.handle.job_id == first.job_id
        (cap,) = ledger.caps(BUDGET)
        assert (cap.reserved, cap.spent, cap.overrun) == (0, scene.books().paid, 0)
