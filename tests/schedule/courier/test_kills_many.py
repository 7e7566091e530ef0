"""Four processes on one ledger and one budget, killed again and again: not a micro-dollar too much.

The small campaign is for every run of the tests; the large one is the acceptance of the ledger, on
SQLite and on a real PostgreSQL server.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from mortals import BUDGET, Graveyard, Scenario
from patience import PATIENCE_S

from qsgd_core.schedule.audit.findings import book, compare
from qsgd_core.schedule.audit.statement import ask
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.states import OPEN
from qsgd_core.schedule.money import Amount

RUNS = 4
SHARE = 0.94
"""Of what all jobs cost, the cap: the last ones are denied."""


def vendor_options(folder: Path) -> dict[str, object]:
    """Jobs turn up in the list late; of the submissions, some meet a fault that leaves a doubt."""
    every = range(0, 20_000, 97)
    return {
        "folder": str(folder),
        "lag_s": 0.2,
        "horizon_s": 0.5,
        "run_s": 0.02,
        "job_micro_usd": 10,
        "coins": True,
        "faults": {
            "lost": [n + 3 for n in every],
            "refused": [n + 17 for n in every],
            "dropped": [n + 31 for n in every],
            "fails": [n + 47 for n in every],
            "unbilled": [n + 59 for n in every],
        },
    }


@pytest.mark.parametrize(
    "steps, kills, ledger_url",
    [
        pytest.param(15, 6, "sqlite", id="60 jobs"),
        pytest.param(565, 120, "sqlite", id="sqlite", marks=pytest.mark.slow),
        pytest.param(565, 120, "postgresql", id="postgresql", marks=pytest.mark.slow),
    ],
    indirect=["ledger_url"],
)
def test_four_processes_killed_at_any_instant_never_spend_too_much_nor_twice(
    filebox, tmp_path, ledger_url, steps, kills
):
    from qsgd_filebox.options import FileboxOptions
    from qsgd_filebox.vendor import Vendor

    begun = time.monotonic()
    options = vendor_options(tmp_path / "vendor")
    scenario = Scenario(ledger_url, options, RUNS, steps, seed=7)
    shots = [
        rows * shots
        for run in scenario.names
        for rows, shots in (scenario.shape(run, step) for step in range(steps))
    ]
    price = sum(10 + n for n in shots)
    caps = {"micro_usd": int(SHARE * price), "shots": sum(shots)}
    Ledger(ledger_url).create_budget(BUDGET, caps)

    vendor = Vendor(FileboxOptions(**options), time.time)
    # A job meets about thirty points; a third of the deaths is to come from within.
    graveyard = Graveyard(scenario, vendor, risk=kills / 3 / (30 * len(shots)))
    graveyard.campaign(kills=kills)
    bought = graveyard.check_end()

    toll = graveyard.toll
    assert toll.kills >= kills
    assert toll.open_at_death["submitting"] + toll.open_at_death["submitted"] > 0
    assert bought["denied"] > 0
    assert bought["sold"] >= 0.9 * SHARE * len(shots)
    if kills >= 100:
        assert bought["sold"] >= 2000
        assert toll.from_within >= 10
    print(f"{bought}, {toll}, {time.monotonic() - begun:.0f} s")


@pytest.mark.slow
def test_with_late_costs_and_duplicates_the_audit_ends_in_the_providers_books(filebox, tmp_path):
    """Four processes, killed; then audits that stop half-way: the books agree to the µs."""
    from qsgd_filebox.backend import Filebox
    from qsgd_filebox.options import FileboxOptions

    every = range(0, 20_000, 23)
    marks = {"lost": 3, "blamed": 5, "refused": 7, "dropped": 9, "fails": 11, "cancelled": 13}
    marks |= {"duplicated": 15, "twice": 17}
    faults = {fault: [n + first for n in every] for fault, first in marks.items()}
    options = vendor_options(tmp_path / "vendor")
    options |= {"worst": 3, "usage_s": 0.4, "faults": faults}
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    ledger = Ledger(url)
    ledger.create_budget(BUDGET, {"micro_usd": 10**9, "shots": 10**9, "qpu_us": 10**12})
    backend = Filebox("filebox:x", FileboxOptions(**options))
    scenario = Scenario(url, options, RUNS, 100, seed=11)
    for run in scenario.names:
        ledger.open_run(run, backend="filebox:x", options={})
    graveyard = Graveyard(scenario, backend.vendor, risk=0.002)
    graveyard.campaign(kills=40)

    draw = random.Random(3)
    end = time.monotonic() + PATIENCE_S
    while (found := _audited(ledger, backend, scenario.names, draw)) or ledger.jobs(states=OPEN):
        assert time.monotonic() < end, found
    jobs = {job.handle.job_id: job for job in ledger.jobs() if job.handle is not None}
    sold = backend.vendor.jobs()
    assert sum(job["by_itself"] for job in sold) > 10
    for job in sold:
        spent = jobs[job["id"]].spent
        assert spent == Amount(job["executions"], job["micro_usd"], job["qpu_us"])
    columns = {"micro_usd": "micro_usd", "shots": "executions", "qpu_us": "qpu_us"}
    for cap in ledger.caps(BUDGET):
        truth = sum(job[columns[cap.unit]] for job in sold)
        assert (cap.reserved, cap.spent, cap.overrun) == (0, truth, 0)
    corrected = sum(job.corrected_at is not None for job in jobs.values())
    print(f"{len(sold)} sold, {corrected} corrected, {graveyard.toll}")


def _audited(ledger: Ledger, backend: Any, runs: list[str], draw: random.Random) -> list[str]:
    """One audit, which may die between two bookings, and one look at what it left to cancel."""
    known = [job.handle for job in ledger.jobs() if job.handle is not None]
    found = compare(ledger, ask(backend, since=0.0, tags=[], known=known))
    last = draw.randint(0, 2 * len(found))
    book(ledger, found[:last])
    for run in runs:
        Courier(ledger, backend, run=run, submit=False).round()
    return [str(finding) for finding in found]
