"""What AWS bills above what was held, and whose account it bills."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import aws_devices
import numpy as np
import pytest
from aws_double import AwsDouble

from qsgd_braket.cloud.backend import BraketDevice
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import BudgetExceededError
from qsgd_core.jobs import Cost
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.states import OPEN
from qsgd_core.schedule.money import Amount

WORK = Workload((CircuitBatch(ansatz(2, 1), np.zeros((3, 2))),))
SHOTS = 20
HELD = 300_000 + 3 * SHOTS * 1_450
"""Micro-dollars of the task above on Garnet: $0.30 and $0.00145 a shot."""


@pytest.fixture
def ledger(double: AwsDouble, tmp_path: Path) -> Ledger:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger.create_budget("b", {"micro_usd": 1_000_000, "shots": 1_000})
    return ledger


def courier(ledger: Ledger, name: str = "braket:garnet") -> Courier:
    """A new process's, as it were."""
    seconds = itertools.count(1e9, 10.0)
    return Courier(
        ledger, BraketDevice(name, pause=lambda _: None), run="r", timer=lambda: next(seconds)
    )


def ask(ledger: Ledger, tag: str, *, budget: str = "b") -> None:
    ledger.add_intent(
        WORK, tag=tag, run="r", budget=budget, backend="braket:garnet", options={}, step=0,
        part=0, attempt=0, shots=SHOTS, seed=0,
    )  # fmt: skip


def finish(ledger: Ledger, serving: Courier) -> None:
    for _ in range(50):
        serving.round()
        if not ledger.jobs(states=OPEN):
            return
    raise AssertionError("the job is not over")


def paid(double: AwsDouble) -> int:
    micro = Amount.from_cost(Cost(usd=double.ledger()["paid_usd"])).micro_usd
    assert micro is not None
    return micro


def make_dearer(double: AwsDouble, arn: str, price: float) -> None:
    capabilities = copy.deepcopy(aws_devices.catalogue()[arn]["deviceCapabilities"])
    capabilities["service"]["deviceCost"]["price"] = price
    double.device(arn, deviceCapabilities=capabilities)


def test_a_double_that_honours_its_prices_leaves_no_overrun(double, ledger):
    for tag in ("one", "two"):
        ask(ledger, tag)
    serving = courier(ledger)
    finish(ledger, serving)
    assert {job.state for job in ledger.jobs()} == {"settled"}
    spent = {cap.unit: (cap.reserved, cap.spent, cap.overrun) for cap in ledger.caps("b")}
    assert spent == {"micro_usd": (0, paid(double), 0), "shots": (0, 6 * SHOTS, 0)}
    assert paid(double) == 2 * HELD
    assert serving.overruns() == []


def test_a_price_that_rose_after_the_hold_is_recorded_to_the_cent_and_freezes_the_budget(
    double, ledger
):
    double.settings(queued_polls=1)
    ask(ledger, "t")
    first = courier(ledger)
    while ledger.job("t").state != "submitted":
        first.round()
    make_dearer(double, aws_devices.GARNET, 0.00745)
    second = courier(ledger)
    finish(ledger, second)

    rise = 3 * SHOTS * 6_000
    assert paid(double) == HELD + rise
    spent = {cap.unit: (cap.reserved, cap.spent, cap.overrun) for cap in ledger.caps("b")}
    assert spent == {"micro_usd": (0, HELD, rise), "shots": (0, 3 * SHOTS, 0)}
    assert ledger.job("t").spent.micro_usd == paid(double)
    (said,) = second.overruns()
    assert "billed $0.36 above what was held under budget 'b': $0.747 in all, of $1" in said
    assert second.overruns() == []

    ask(ledger, "u")
    second.round()
    assert isinstance(ledger.job("u").error, BudgetExceededError)
    assert "is frozen" in str(ledger.job("u").error)
    assert double.ledger()["asked"] == 1


def test_two_aws_accounts_on_one_ledger_have_a_default_budget_each(double, ledger):
    for tag, number in (
        ("one", "111122223333"),
        ("two", "444455556666"),
        ("three", "111122223333"),
    ):
        double.settings(number=number)
        ask(ledger, tag, budget="default")
        finish(ledger, courier(ledger))
    spent = {cap.budget: cap.spent for cap in ledger.caps() if cap.budget != "b"}
    assert spent == {
        "default-usd:aws-111122223333": 2 * HELD,
        "default-usd:aws-444455556666": HELD,
    }


def test_the_account_is_asked_for_once_and_only_where_the_default_budget_pays(double, ledger):
    serving = courier(ledger)
    for tag, budget in (("one", "default"), ("two", "default")):
        ask(ledger, tag, budget=budget)
        finish(ledger, serving)
    # The other one is the SDK's own: the default bucket has the account's number in its name.
    assert double.ledger()["requests"]["GetCallerIdentity"] == 2
