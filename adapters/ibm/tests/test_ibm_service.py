"""IBM is held to what every paid service is: see ``paid_service``."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from by_hand import children
from numpy.typing import NDArray
from paid_service import TINY, Bought, PaidService, PaidServiceTests, until
from patience import PATIENCE_S
from timelapse import Clock, Training

import qsgd_core as qsgd
from qsgd_core.backend import Backend
from qsgd_core.jobs import Cost
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.trainer.scheduler import REST_S
from qsgd_ibm.backend import IBMBackend
from qsgd_ibm.options import IBMOptions

USD_PER_S = 1.6
STATES = {"Queued": "queued", "Completed": "done", "Failed": "failed", "Cancelled": "cancelled"}
QUEUE = {"prompt": True, "queue_polls": 4, "plan": "Pay-as-you-go", "pricing": "paygo"}

# The answer to a submission is 0.2 s on its way: the job exists and nobody knows.
LATE = {"on": "submit", "kind": "stall", "seconds": 0.2, "after": True}
FAULTS = [
    LATE | {"times": 2},
    {"on": "submit", "kind": "reset", "after": True},
    LATE | {"times": 1},
    {"on": "submit", "kind": "status", "status": 429},
    LATE | {"times": 1},
    {"on": "submit", "kind": "reset"},
    LATE | {"times": 1},
    {"on": "submit", "kind": "status", "status": 504, "after": True},
    LATE | {"times": -1},
    {"on": "results", "kind": "cut"},
    {"on": "list", "kind": "html"},
]


class IBM(PaidService):
    """The double of IBM's service."""

    distribution = "qsgd-ibm"
    device = task_device = "ibm_fez"
    retired = "ibm_brisbane"
    instead = (
        "ibm_brisbane is not available to this account",
        "IBM has retired it",
        "QSGD_BACKEND=ibm_fez",
        "QSGD_BACKEND=ibm:least_busy",
        "QSGD_BACKEND=fake_brisbane",
    )
    no_access = "QISKIT_IBM_TOKEN"
    unit, cap = "qpu_us", 500_000_000  # a job of three circuits holds six seconds and takes two
    enough, for_two = "$500", "$15"
    too_little = (
        "2s",
        ["'ibm_fez' can cost up to 6 s of QPU time", "2 s of QPU time left of 2 s"],
    )
    small_shots = 16
    failure = ("8050", int(1.25 * USD_PER_S * 1e6))

    def __init__(self, double: Any) -> None:
        self.double = double

    @property
    def environment(self) -> Mapping[str, str]:
        return {"PATH": os.environ["PATH"], **self.double.environment}

    def bought(self) -> Sequence[Bought]:
        return [
            Bought(
                next(tag for tag in job["tags"] if tag != "qsgd"),
                job["id"],
                job["backend"],
                STATES.get(job["status"], "running"),
                sum(job["rows"]) * job["shots"],
                Cost(usd=job["billed_s"] * USD_PER_S, qpu_s=job["billed_s"]),
            )
            for job in self.double.ledger()["jobs"]
        ]

    def served(self, number: int) -> Sequence[NDArray[np.float64]]:
        return [np.array(part) for part in self.double.ledger()["jobs"][number]["served"]]

    def requests(self) -> Mapping[str, int]:
        return dict(self.double.ledger()["requests"])

    def asked(self) -> int:
        return int(self.double.ledger()["posts"])

    def queue(self) -> None:
        self.double.settings(**QUEUE)

    def hold(self, on: bool = True) -> None:
        self.double.settings(hold=on)

    def release(self) -> None:
        self.double.release()

    def outage(self, how: str | None) -> None:
        self.double.settings(outage=how)

    def revoke(self, on: bool) -> None:
        self.double.settings(revoked=on)

    def fail_next(self) -> None:
        self.double.settings(ending="Failed", reason="Internal", reason_code=8050, bill_s=1.25)

    def go_well(self) -> None:
        self.double.settings(**QUEUE, ending="Completed", reason=None, bill_s=None)

    def trouble(self) -> None:
        self.double.faults(*FAULTS)

    def lose_the_answer(self) -> None:
        self.double.faults(LATE | {"seconds": 5.0})

    def list_after(self, seconds: float) -> None:
        self.double.settings(list_lag_s=seconds)

    def retire(self) -> None:
        self.double.settings(devices={"ibm_fez": {"online": True, "queue_length": 3}})

    def make(self, name: str, clock: Clock) -> Backend:
        return IBMBackend(name, IBMOptions(), clock=clock, sleep=clock.sleep)

    def optimizer(self, parameters: Any, **term: Any) -> Any:
        return qsgd.QSGD(parameters, **term)

    def check_summary(self, said: Mapping[str, Any]) -> None:
        assert said["qpu_s"] == pytest.approx(sum(job.bill.qpu_s or 0 for job in self.bought()))
        assert said["cost_usd"] == 0.0  # the double's plan is free


class TestIBM(PaidServiceTests):
    LONG = (  # AWS does these for every push
        "test_a_run_that_ends_while_the_courier_rests_still_cancels_what_is_queued",
        "test_credentials_revoked_in_mid_run_stop_the_measuring_and_not_the_training",
        "test_a_failed_job_is_told_paid_as_billed_and_not_waited_for",
    )

    @pytest.fixture
    def service(self, double: Any) -> Iterator[IBM]:
        yield IBM(double)
        assert double.ledger()["key_leaks"] == 0

    @pytest.mark.slow
    def test_the_least_busy_device_is_looked_up_once_and_kept_when_the_run_goes_on(
        self, service, shell
    ):
        def queues(brisbane: int, fez: int) -> None:
            lengths = {"ibm_brisbane": brisbane, "ibm_fez": fez}
            service.double.settings(
                devices={name: {"online": True, "queue_length": n} for name, n in lengths.items()}
            )

        asked = "ibm:least_busy"
        queues(9, 1)
        shell.succeed(asked, *TINY, "--policy", "sync", "--run-dir", "run", "--max-steps", "1")
        queues(1, 9)
        said = shell.succeed(asked, "--resume", "run", "--max-steps", "3", "--json")
        assert said["jobs"] == 2
        assert [job.device for job in service.bought()] == ["ibm_fez", "ibm_fez"]
        run = Ledger(shell.ledger_url).run(shell.saved("run").config["run"])
        assert (run.backend, run.pinned) == ("ibm:least_busy", "ibm_fez")

    @pytest.mark.slow
    def test_a_job_that_has_run_when_it_turns_up_after_the_horizon_is_settled(
        self, service, tmp_path
    ):
        self.check_a_late_job(service, tmp_path, ran=True)

    # --- with a courier process, on the machine's own clock --------------------------------------

    def test_trainer_and_courier_stopped_while_the_job_runs_go_on_where_they_were(
        self, service, shell
    ):
        """As a machine that sleeps: both processes stand still, IBM does not."""
        service.hold()
        process = shell.start(service.device, *TINY, "--run-dir", "run")
        until(service.asked, process)
        asleep = [process.pid, *children(process.pid)]
        assert len(asleep) >= 2
        for pid in asleep:
            os.kill(pid, signal.SIGSTOP)
        service.hold(False)
        service.release()
        until(lambda: service.bought()[0].state == "done")
        for pid in asleep:
            os.kill(pid, signal.SIGCONT)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, err
        ledger = Ledger(shell.ledger_url)
        assert service.asked() == len(service.bought()) == json.loads(out)["jobs"]
        made = [job for job in ledger.jobs() if job.handle]  # one more may have come too late
        assert len(made) == service.asked()
        assert {job.state for job in ledger.jobs()} <= {"settled", "failed"}
        assert sum(job.spent.qpu_us for job in ledger.jobs()) == service.paid("qpu_us")

    def test_a_courier_process_whose_key_was_revoked_rests_as_long_as_it_was_told(
        self, service, monkeypatch, tmp_path
    ):
        """Its end is noticed after the pause was asked for, and does not cut it short."""
        monkeypatch.setenv("QSGD_HOME", str(tmp_path / "home"))
        term = {"backend": service.device, "shots": 16, "wait": "first"}
        term["every"] = lambda step: 1 if step < 2 else 10**6
        training = Training(tmp_path / "home", Clock(), qsgd.QSGD, **term)
        training.go(1)
        service.hold()
        until(lambda: training.go(1) or [j for j in training.open() if j.state == "submitted"])
        service.revoke(True)
        until(lambda: training.go(1) or training.said("stopped"))
        line = training.term.source.paid._scheduler._line._line
        until(lambda: training.go(1) or line.pid is None)
        starts = line.starts
        training.go(1)
        assert line._rest_until - time.monotonic() > REST_S[0] / 2
        assert line.starts == starts
        service.revoke(False)
        training.term.close(finished=False)
