"""kill -9 of trainer and courier at any instant, through IBM's client, with a list that lags."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kills import (
    BUDGET,
    Books,
    Bystander,
    Moment,
    Sold,
    Trainer,
    campaign,
    kill,
    look_once,
    wait_for,
)
from patience import PATIENCE_S

from qsgd_core.jobs import Cost
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.money import Amount

CAP = 500_000_000
"""QPU microseconds. A job of three circuits holds six seconds and takes two."""

# The list shows a job 0.3 s after its acceptance; the adapter is told 1.5 s.
LAG_S, HORIZON_S = 0.3, 1.5

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

# A courier takes seconds to import the SDK; half of the kills meet one that talks to the service.
MOMENTS = [
    *3 * [Moment(2.0)],
    Moment(0.6, since="request"),
    *2 * [Moment(0.4, since="asked")],
]


class Service:
    """A double of its own, the ledger, and what trainers need to reach both."""

    def __init__(self, double: Any, folder: Path) -> None:
        self.double = double
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "QSGD_LOAD_PLUGINS": "qsgd-ibm",
            "OMP_NUM_THREADS": "1",
            **double.environment,
        }
        self.log = folder / "log"
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
        self.ledger.create_budget(BUDGET, {"qpu_us": CAP})
        self.bystander = Bystander(self.books, self.ledger)

    def books(self) -> Books:
        known = self.double.ledger()
        paid = [Amount.from_cost(Cost(qpu_s=job["billed_s"])).qpu_us for job in known["jobs"]]
        jobs = zip(known["jobs"], paid, strict=True)
        return Books(
            tuple(Sold(job["tags"][1], cost or 0) for job, cost in jobs),
            requests=sum(known["requests"].values()),
            asked=known["posts"],
        )

    def start(self, steps: int, horizon_s: float = HORIZON_S) -> Trainer:
        options = {"find_horizon_s": horizon_s}
        return Trainer(self.ledger.url, "ibm_fez", options, steps, env=self.env, log=self.log)

    def check_results(self) -> None:
        """What is stored under a tag is what was served for it, to the bit."""
        for served in self.double.ledger()["jobs"]:
            tag = served["tags"][1]
            result = self.ledger.result(tag).expectations(self.ledger.workload(tag))
            np.testing.assert_array_equal(np.concatenate(result), np.concatenate(served["served"]))


@pytest.fixture
def service(start_double: Callable[..., Any], tmp_path: Path) -> Iterator[Service]:
    process, double = start_double("--max-seconds", "3600", "--devices", "ibm_fez")
    yield Service(double, tmp_path)
    process.terminate()
    process.wait(PATIENCE_S)


@pytest.mark.parametrize("kills, seed", [(4, 1), pytest.param(110, 2, marks=pytest.mark.slow)])
def test_whatever_is_killed_when_nothing_is_paid_twice(service, kills, seed):
    service.double.settings(list_lag_s=LAG_S)
    service.double.faults(*FAULTS)
    # Three steps a trainer: IBM takes five jobs a minute from one courier.
    found = campaign(service.start, service.bystander, MOMENTS, kills=kills, steps=3, seed=seed)
    service.check_results()
    ledger = service.double.ledger()
    assert ledger["paid"] == ledger["asked"] == found.steps
    assert ledger["key_leaks"] == 0
    print(f"IBM: {dict(found.struck)}, {found.steps} jobs, open at the kills: {dict(found.states)}")


@pytest.mark.slow
@pytest.mark.parametrize("ran", [False, True])
def test_a_job_that_turns_up_after_the_horizon_is_cancelled_and_settled(service, ran):
    double, ledger = service.double, service.ledger
    double.settings(list_lag_s=1e9, hold=not ran)
    double.faults(LATE | {"seconds": 5.0})
    trainer = service.start(1, horizon_s=0.5)
    wait_for(lambda: double.ledger()["asked"], trainer)
    courier = trainer.courier()
    assert courier is not None
    kill(courier)
    double.settings(hold=False)
    trainer.end()
    assert [job.state for job in ledger.jobs()] == ["refunded", "settled"]
    assert double.ledger()["asked"] == 2

    double.settings(list_lag_s=0.0)
    look_once(ledger.url, env=service.env)
    late, settled = ledger.jobs()
    assert (late.state, settled.state) == ("failed", "settled")
    first, second = double.ledger()["jobs"]
    assert (first["status"], second["status"]) == ("Completed" if ran else "Cancelled", "Completed")
    assert late.handle is not None
    assert late.handle.job_id == first["id"]
    assert (first["billed_s"] > 0) is ran
    (cap,) = ledger.caps(BUDGET)
    assert (cap.reserved, cap.spent, cap.overrun) == (0, service.books().paid, 0)
