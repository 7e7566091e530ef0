"""Four processes on one ledger and one budget, killed again and again: not a micro-dollar too much.

The small campaign is for every run of the tests; the large one is the acceptance of the ledger, on
SQLite and on a real PostgreSQL server.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from mortals import BUDGET, Graveyard, Scenario

from qsgd_core.schedule.ledger.ledger import Ledger

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
