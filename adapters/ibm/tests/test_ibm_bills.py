"""What IBM says of a job's cost later than of its end, and what it has of ours."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.schedule.audit.findings import FindingKind, book, compare
from qsgd_core.schedule.audit.statement import ask
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.states import OPEN, LedgerState

WORK = Workload((CircuitBatch(ansatz(2, 1, "chain"), np.zeros((3, 2))),))
HELD = 6_000_000
"""QPU microseconds that IBM is told to stop such a job after."""
RAN = 2_028_800
"""What the double charges for it: 2 s, and 300 µs for each of 96 executions."""
PENDING = [
    {"status": "pending", "qpu_charge_time_seconds": 0},
    {"status": "pending", "qpu_charge_time_seconds": None},
    {"qpu_charge_time_seconds": 0},
    {"status": "final", "qpu_charge_time_seconds": None},
    {"status": "final", "qpu_charge_time_seconds": "pending"},
    None,
]


@pytest.fixture
def ledger(double: Any, tmp_path: Path) -> Ledger:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger.create_budget("b", {"qpu_us": 60_000_000})
    return ledger


@pytest.fixture
def courier(backend: Any, ledger: Ledger) -> Courier:
    return serving(ledger, backend())


def serving(ledger: Ledger, ibm: Any, *, submit: bool = True) -> Courier:
    seconds = itertools.count(1e9, 10.0)
    tick = lambda: next(seconds)  # noqa: E731
    return Courier(ledger, ibm, run="r", submit=submit, clock=tick, timer=tick)


def send(ledger: Ledger, courier: Courier, tag: str, *, until: str | None = None) -> None:
    ledger.add_intent(
        WORK, tag=tag, run="r", budget="b", backend="ibm_fez", options={}, step=0, part=0,
        attempt=0, shots=32, seed=0,
    )  # fmt: skip
    go(ledger, courier, tag, until=until)


def go(ledger: Ledger, courier: Courier, tag: str, *, until: str | None = None) -> None:
    for _ in range(2000):
        courier.round()
        state = ledger.job(tag).state
        if state == until or (until is None and state not in OPEN):
            return
    raise AssertionError("the job is not over")


def spent(ledger: Ledger) -> tuple[int, int, int]:
    (cap,) = ledger.caps("b")
    return cap.reserved, cap.spent, cap.overrun


def audit(ledger: Ledger, ibm: Any) -> list[FindingKind]:
    known = [job.handle for job in ledger.jobs() if job.handle is not None]
    findings = compare(ledger, ask(ibm, since=0.0, tags=[], known=known))
    book(ledger, findings)
    return [finding.kind for finding in findings]


@pytest.mark.parametrize("pending", PENDING)
def test_usage_that_is_not_stated_yet_is_held_and_corrected_when_it_is(
    double, ledger, courier, backend, pending
):
    double.settings(usage_pending=True, pending=pending)
    send(ledger, courier, "t")
    assert ledger.job("t").state == "settled"
    assert spent(ledger) == (0, HELD, 0)
    serving(ledger, backend(), submit=False).round()
    assert spent(ledger) == (0, HELD, 0)
    double.settings(usage_pending=False)
    serving(ledger, backend(), submit=False).round()
    assert spent(ledger) == (0, RAN, 0)
    assert (ledger.job("t").unstated, ledger.job("t").spent.shots) == ((), 96)
    assert audit(ledger, backend()) == []


@pytest.mark.parametrize("ending, bill_s", [("Failed", 1.0), ("Cancelled", None)])
def test_a_job_that_ends_early_is_booked_at_what_it_took_once_that_is_stated(
    double, ledger, courier, backend, ending, bill_s
):
    double.settings(usage_pending=True, ending=ending, bill_s=bill_s)
    send(ledger, courier, "t")
    assert (ledger.job("t").state, spent(ledger)) == ("failed", (0, HELD, 0))
    double.settings(usage_pending=False)
    serving(ledger, backend(), submit=False).round()
    assert spent(ledger) == (0, 1_000_000, 0)


def test_a_job_that_is_cancelled_in_the_queue_costs_nothing_once_that_is_stated(
    double, ledger, courier, backend
):
    double.settings(hold=True, usage_pending=True)
    send(ledger, courier, "t", until="submitted")
    ledger.cancel("t")
    go(ledger, courier, "t")
    assert spent(ledger) == (0, HELD, 0)
    double.settings(usage_pending=False)
    serving(ledger, backend(), submit=False).round()
    assert spent(ledger) == (0, 0, 0)


def test_two_jobs_that_ibm_made_of_one_submission_are_found_and_paid_for(
    double, ledger, courier, backend
):
    double.settings(duplicates=1)
    send(ledger, courier, "t")
    assert (double.ledger()["posts"], double.ledger()["asked"]) == (1, 2)
    assert spent(ledger) == (0, RAN, 0)
    assert audit(ledger, backend()) == [FindingKind.DUPLICATE]
    (stray,) = ledger.jobs(states=[LedgerState.STRAY])
    go(ledger, courier, stray.tag)
    assert spent(ledger) == (0, 2 * RAN, 0)
    assert audit(ledger, backend()) == []


def test_a_job_that_ibm_has_no_more_is_named_and_stays_paid_for(double, ledger, courier, backend):
    send(ledger, courier, "t")
    double.delete(double.ledger()["jobs"][0]["id"])
    ibm = backend(find_horizon_s=0.0)
    assert audit(ledger, ibm) == [FindingKind.GONE]
    assert spent(ledger) == (0, RAN, 0)


def test_everything_of_ours_on_this_device_is_listed_with_its_tag(double, backend):
    from qsgd_core.jobs import Limit

    ibm = backend()
    limit = Limit(qpu_s=HELD / 1e6)
    sent = [ibm.submit(WORK, shots=32, tag=tag, limit=limit) for tag in ("one", "two")]
    found = ibm.list_jobs(since=0.0)
    assert {(job.job_id, job.tag) for job in found} == {(job.job_id, job.tag) for job in sent}
    assert ibm.list_jobs(since=4e9) == []
