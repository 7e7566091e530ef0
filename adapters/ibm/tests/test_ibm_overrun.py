"""What IBM bills above what was held, and which instance it bills."""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import BudgetExceededError
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.states import OPEN

WORK = Workload((CircuitBatch(ansatz(2, 1, "chain"), np.zeros((3, 2))),))
USD_PER_S = 1.6
HELD_S = 6
"""IBM is told to stop such a job after so many QPU seconds."""


@pytest.fixture
def ledger(double: Any, tmp_path: Path) -> Ledger:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger.create_budget("b", {"micro_usd": 50_000_000, "qpu_us": 60_000_000})
    return ledger


@pytest.fixture
def courier(backend: Any, ledger: Ledger) -> Courier:
    return serving(ledger, backend(usd_per_s=USD_PER_S))


def serving(ledger: Ledger, ibm: Any) -> Courier:
    seconds = itertools.count(1e9, 10.0)
    return Courier(ledger, ibm, run="r", timer=lambda: next(seconds))


def ask(ledger: Ledger, tag: str, *, budget: str = "b") -> None:
    ledger.add_intent(
        WORK, tag=tag, run="r", budget=budget, backend="ibm_fez", options={}, step=0, part=0,
        attempt=0, shots=32, seed=0,
    )  # fmt: skip


def finish(ledger: Ledger, courier: Courier) -> None:
    for _ in range(2000):
        courier.round()
        if not ledger.jobs(states=OPEN):
            return
    raise AssertionError("the job is not over")


def books(ledger: Ledger) -> dict[str, tuple[int, int, int]]:
    return {cap.unit: (cap.reserved, cap.spent, cap.overrun) for cap in ledger.caps("b")}


def test_a_double_that_honours_its_limits_leaves_no_overrun(double, ledger, courier):
    double.settings(bill_s=float(HELD_S))
    ask(ledger, "t")
    finish(ledger, courier)
    (job,) = double.ledger()["jobs"]
    assert job["max_execution_time"] == HELD_S == job["billed_s"]
    assert books(ledger) == {
        "micro_usd": (0, HELD_S * 1_600_000, 0),
        "qpu_us": (0, HELD_S * 1_000_000, 0),
    }
    assert courier.overruns() == []


def test_a_bill_above_the_limit_is_recorded_to_the_cent_and_freezes_the_budget(
    double, ledger, courier
):
    double.settings(bill_s=9.37)
    ask(ledger, "t")
    finish(ledger, courier)
    assert books(ledger) == {
        "micro_usd": (0, 9_600_000, 5_392_000),  # $14.992 in all
        "qpu_us": (0, 6_000_000, 3_370_000),
    }
    assert ledger.job("t").spent.micro_usd == 14_992_000
    dollars, seconds = courier.overruns()
    assert "billed $5.392 above what was held under budget 'b': $14.992 in all, of $50" in dollars
    assert "billed 3.37 s of QPU time above what was held" in seconds
    assert "qsgd budget raise b AMOUNT" in seconds
    assert courier.overruns() == []

    ask(ledger, "u")
    courier.round()
    assert isinstance(ledger.job("u").error, BudgetExceededError)
    assert "is frozen" in str(ledger.job("u").error)
    assert double.ledger()["posts"] == 1


def test_a_failed_job_that_is_billed_above_its_limit_is_an_overrun_too(double, ledger, courier):
    double.settings(ending="Failed", bill_s=7.0)
    ask(ledger, "t")
    finish(ledger, courier)
    assert ledger.job("t").state == "failed"
    assert books(ledger)["qpu_us"] == (0, 6_000_000, 1_000_000)
    assert len(courier.overruns()) == 2


def test_the_account_is_a_digest_of_the_instance_and_not_the_instance_itself(backend):
    ibm = backend()
    crn = ibm._connect().service.active_instance()
    assert ibm.account() == ibm.account() == backend().account()
    assert ibm.account() == "ibm-" + hashlib.sha256(crn.encode()).hexdigest()[:12]
    assert not re.search(r"crn|:", ibm.account())


def test_two_instances_on_one_ledger_have_a_default_budget_each(
    double, ledger, backend, monkeypatch
):
    ibm = backend(usd_per_s=0.5)
    courier, service = serving(ledger, ibm), ibm._connect().service
    mine = service.active_instance()
    for tag, crn in (("one", mine), ("two", f"{mine}-other"), ("three", mine)):
        with monkeypatch.context() as patch:
            patch.setattr(service, "active_instance", lambda crn=crn: crn)
            ask(ledger, tag, budget="default")
            finish(ledger, courier)
    spent = sorted(cap.spent for cap in ledger.caps() if cap.budget != "b")
    names = {cap.budget for cap in ledger.caps() if cap.budget != "b"}
    one = 2_028_800 // 2  # the double bills 2 s and 300 µs for each of 96 executions
    assert spent == [one, 2 * one]
    assert all(re.fullmatch(r"default-usd:ibm-[0-9a-f]{12}", name) for name in names)
