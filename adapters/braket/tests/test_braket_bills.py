"""What an AWS task that was cancelled, failed, doubled or deleted costs in the ledger."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from aws_double import AwsDouble

from qsgd_braket.cloud.backend import RESULT_LAG_S, BraketDevice
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.schedule.audit.findings import FindingKind, book, compare
from qsgd_core.schedule.audit.statement import ask
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.states import OPEN

WORK = Workload((CircuitBatch(ansatz(2, 1), np.zeros((3, 2))),))
SHOTS = 20
HELD = 300_000 + 3 * SHOTS * 1_450
"""Micro-dollars of the task above on Garnet: $0.30 and $0.00145 a shot."""


@pytest.fixture
def ledger(double: AwsDouble, tmp_path: Path) -> Ledger:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger.create_budget("b", {"micro_usd": 10_000_000, "shots": 1_000})
    return ledger


def device(**more) -> BraketDevice:
    return BraketDevice("braket:garnet", pause=lambda _: None, **more)


def courier(ledger: Ledger, *, submit: bool = True, **more) -> Courier:
    seconds = itertools.count(1e9, 10.0)
    tick = lambda: next(seconds)  # noqa: E731
    return Courier(ledger, device(**more), run="r", submit=submit, clock=tick, timer=tick)


def send(ledger: Ledger, serving: Courier, *, until: str | None = None) -> None:
    ledger.add_intent(
        WORK, tag="t", run="r", budget="b", backend="braket:garnet", options={}, step=0,
        part=0, attempt=0, shots=SHOTS, seed=0,
    )  # fmt: skip
    go(ledger, serving, until=until)


def go(ledger: Ledger, serving: Courier, *, until: str | None = None) -> None:
    for _ in range(100):
        serving.round()
        if ledger.job("t").state == until or not ledger.jobs(states=OPEN):
            return
    raise AssertionError("the task is not over")


def spent(ledger: Ledger) -> dict[str, tuple[int, int, int]]:
    return {cap.unit: (cap.reserved, cap.spent, cap.overrun) for cap in ledger.caps("b")}


def audit(ledger: Ledger) -> list[FindingKind]:
    known = [job.handle for job in ledger.jobs() if job.handle is not None]
    findings = compare(ledger, ask(device(), since=0.0, tags=[], known=known))
    book(ledger, findings)
    return [finding.kind for finding in findings]


def test_a_task_that_is_cancelled_in_the_queue_costs_nothing(double, ledger):
    double.settings(queued_polls=1_000)
    serving = courier(ledger)
    send(ledger, serving, until="submitted")
    ledger.cancel("t")
    go(ledger, serving)
    assert ledger.job("t").state == "failed"
    assert spent(ledger) == {"micro_usd": (0, 0, 0), "shots": (0, 0, 0)}
    assert double.ledger()["paid_usd"] == 0


@pytest.mark.parametrize("shots", [0, 7])
def test_a_failed_task_whose_shots_are_told_late_is_held_until_then(double, ledger, shots):
    import time

    double.outcome("FAILED", shots=shots)
    double.settings(shots_pending=True)
    send(ledger, courier(ledger))
    assert spent(ledger)["micro_usd"] == (0, HELD, 0)
    courier(ledger, submit=False).round()
    assert spent(ledger)["micro_usd"] == (0, HELD, 0)
    if shots:
        double.settings(shots_pending=False)
        courier(ledger, submit=False).round()
    else:  # AWS tells the shots of tasks that had any
        later = lambda: time.time() + 2 * RESULT_LAG_S  # noqa: E731
        courier(ledger, submit=False, clock=later).round()
    paid = round(1e6 * double.ledger()["paid_usd"])
    assert spent(ledger) == {"micro_usd": (0, paid, 0), "shots": (0, shots, 0)}
    assert audit(ledger) == []


def test_two_tasks_that_aws_made_of_one_creation_are_found_and_paid_for(double, ledger):
    double.settings(duplicates=1)
    send(ledger, courier(ledger))
    assert spent(ledger)["micro_usd"] == (0, HELD, 0)
    assert double.ledger()["requests"]["CreateQuantumTask"] == 1
    assert audit(ledger) == [FindingKind.DUPLICATE]
    go(ledger, courier(ledger))
    assert spent(ledger)["micro_usd"] == (0, round(1e6 * double.ledger()["paid_usd"]), 0)
    assert audit(ledger) == []


def test_a_task_that_aws_has_no_more_is_named_and_stays_paid_for(double, ledger):
    send(ledger, courier(ledger))
    double.delete(double.ledger()["tasks"][0]["arn"])
    assert audit(ledger) == [FindingKind.GONE]
    assert spent(ledger)["micro_usd"] == (0, HELD, 0)


def test_prices_that_rose_after_a_task_do_not_make_it_dearer(double, ledger):
    import copy

    import aws_devices

    send(ledger, courier(ledger))
    capabilities = copy.deepcopy(aws_devices.catalogue()[aws_devices.GARNET]["deviceCapabilities"])
    capabilities["service"]["deviceCost"]["price"] = 0.5
    capabilities["service"]["updatedAt"] = "2100-01-01T00:00:00"
    double.device(aws_devices.GARNET, deviceCapabilities=capabilities)
    assert audit(ledger) == []
    assert spent(ledger)["micro_usd"] == (0, HELD, 0)
