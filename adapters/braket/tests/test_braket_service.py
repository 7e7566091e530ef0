"""AWS is held to what every paid service is: see ``paid_service``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import aws_devices
import numpy as np
import pytest
import torch
from aws_double import AwsDouble
from numpy.typing import NDArray
from paid_service import DIGITS, Bought, PaidService, PaidServiceTests
from timelapse import Clock

import qsgd_core as qsgd
from qsgd_braket.cloud.backend import BraketDevice
from qsgd_core.backend import Backend
from qsgd_core.jobs import Cost

STATES = {"COMPLETED": "done", "FAILED": "failed", "CANCELLED": "cancelled"}

# The answer to a creation is 0.2 s on its way: the task exists and nobody knows.
LATE = {"kind": "late", "seconds": 0.2}
FAULTS = [
    LATE | {"times": 2},
    {"kind": "reset_after"},
    LATE | {"times": 1},
    {"kind": "ThrottlingException"},
    LATE | {"times": 1},
    {"kind": "reset_before"},
    LATE | {"times": 1},
    {"kind": "html_after"},
    LATE | {"times": 10_000},
]


class AWS(PaidService):
    """The double of Amazon Braket."""

    distribution = "qsgd-braket"
    device, task_device = aws_devices.CEPHEUS, aws_devices.GARNET
    retired, instead = aws_devices.ANKAA, ("RETIRED", "braket:cepheus-1-108q")
    no_access = "aws configure"
    unit, cap = "micro_usd", 100_000_000  # a task of three circuits costs $0.3348
    enough, for_two, yes = "$25", "$0.8", ("--budget", "$25", "--yes")
    too_little = ("$0.3", ["can cost up to $0.4", "$0.3 left of $0.3"])
    small_shots = 20
    failure = ("The fridge is warm.", round((0.30 + 20 * 0.000425) * 1e6))

    def __init__(self, double: AwsDouble) -> None:
        self.double = double

    @property
    def environment(self) -> Mapping[str, str]:
        return self.double.environment()

    def bought(self) -> Sequence[Bought]:
        return [
            Bought(
                task["tag"],
                task["arn"],
                task["device"],
                STATES.get(task["status"], "queued"),
                task["shots"],
                Cost(usd=task["paid"]),
            )
            for task in self.double.ledger()["tasks"]
        ]

    def served(self, number: int) -> Sequence[NDArray[np.float64]]:
        task = self.double.ledger()["tasks"][number]
        parts = []
        for program in self.double.result(task["result"])["programResults"]:
            entries = sorted(program["executableResults"], key=lambda entry: entry["inputsIndex"])
            bits = np.array([entry["measurements"] for entry in entries])
            parts.append(1.0 - 2.0 * bits.mean(axis=1))
        return parts

    def requests(self) -> Mapping[str, int]:
        return dict(self.double.ledger()["requests"])

    def asked(self) -> int:
        return self.requests().get("CreateQuantumTask", 0)

    def queue(self) -> None:
        self.double.settings(queued_polls=4)

    def hold(self, on: bool = True) -> None:
        self.double.settings(queued_polls=10**9 if on else 0)

    def release(self) -> None:
        self.double.release()

    def outage(self, how: str | None) -> None:
        self.double.settings(outage=how)

    def revoke(self, on: bool) -> None:
        self.double.settings(revoked=on)

    def fail_next(self) -> None:
        self.double.outcome("FAILED", reason=self.failure[0], shots=20)

    def go_well(self) -> None:
        pass  # it was the next one's outcome alone

    def trouble(self) -> None:
        for fault in FAULTS:
            self.double.fault("CreateQuantumTask", **fault)
        self.double.fault("SearchQuantumTasks", "html_before")
        self.double.fault("GetObject", "short")

    def lose_the_answer(self) -> None:
        self.double.fault("CreateQuantumTask", "late", seconds=5.0)

    def list_after(self, seconds: float) -> None:
        self.double.settings(search_lag_s=seconds)

    def retire(self) -> None:
        pass  # in the double's catalogue, as in Amazon's, it is

    def make(self, name: str, clock: Clock) -> Backend:
        return BraketDevice(name, clock=clock, pause=clock.sleep)

    def optimizer(self, parameters: Any, **term: Any) -> Any:
        optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
        optimizer._term = qsgd.attach(optimizer, **term)._term
        return optimizer

    def check_summary(self, said: Mapping[str, Any]) -> None:
        assert said["cost_usd"] == pytest.approx(self.double.ledger()["paid_usd"])
        assert said["qpu_s"] is None  # AWS bills shots

    def check(self) -> None:
        assert self.double.ledger()["limits"] == {}  # the spending limit of our own is lifted


class TestAWS(PaidServiceTests):
    LONG = (  # IBM does these for every push
        "test_whatever_is_killed_when_nothing_is_paid_twice",
        "test_what_is_served_at_steps_0_15_and_30_is_the_s_that_training_applies",
        "test_a_machine_that_sleeps_for_a_night_finds_its_result_when_it_wakes",
        "test_a_budget_raised_in_mid_run_is_spent_from_there_on",
    )

    @pytest.fixture
    def service(self, double: AwsDouble, monkeypatch: pytest.MonkeyPatch) -> AWS:
        # Between two tries of the client.
        quick = SimpleNamespace(sleep=lambda seconds: None, time=time.time)
        monkeypatch.setattr("botocore.endpoint.time", quick)
        return AWS(double)

    @pytest.mark.slow
    @pytest.mark.parametrize("backend, tasks", [("braket:cepheus-1-108q", 3), ("braket:sv1", 18)])
    def test_training_by_a_short_name_pays_for_what_one_refresh_takes(
        self, service, shell, backend, tasks
    ):
        said = shell.succeed(backend, *DIGITS, "--shots", "128")
        assert len(service.bought()) == service.asked() == said["jobs"] == tasks
        assert said["sources"]["measured"] == pytest.approx(1 / 15)
        assert said["sources"]["held"] == pytest.approx(14 / 15)
        assert said["cost_usd"] == pytest.approx(service.double.ledger()["paid_usd"])
