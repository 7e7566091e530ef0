"""kill -9 of trainer and courier at any instant, through AWS's clients, with a search that lags."""

from __future__ import annotations

from pathlib import Path

import pytest
from aws_double import AwsDouble
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

from qsgd_core.jobs import Cost
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.money import Amount

CAP = 100_000_000
"""Micro-dollars. A task of three circuits costs $0.3348."""

# The search shows a task 0.3 s after its creation; the adapter is told 1.5 s.
LAG_S, HORIZON_S = 0.3, 1.5

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

# A courier takes seconds to import the SDK; half of the kills meet one that talks to the service.
MOMENTS = [
    *3 * [Moment(2.0)],
    Moment(0.6, since="request"),
    *2 * [Moment(0.4, since="asked")],
]


class Service:
    """The double, the ledger, and what trainers need to reach both."""

    def __init__(self, double: AwsDouble, folder: Path) -> None:
        self.double = double
        self.env = double.environment() | {
            "HOME": str(folder),
            "QSGD_LOAD_PLUGINS": "qsgd-braket",
            "OMP_NUM_THREADS": "1",
        }
        self.log = folder / "log"
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
        self.ledger.create_budget(BUDGET, {"micro_usd": CAP})
        self.bystander = Bystander(self.books, self.ledger)

    def books(self) -> Books:
        known = self.double.ledger()
        paid = [Amount.from_cost(Cost(usd=task["paid"])).micro_usd for task in known["tasks"]]
        tasks = zip(known["tasks"], paid, strict=True)
        return Books(
            tuple(Sold(task["tag"], cost or 0) for task, cost in tasks),
            requests=sum(known["requests"].values()),
            asked=known["requests"].get("CreateQuantumTask", 0),
        )

    def start(self, steps: int, horizon_s: float = HORIZON_S) -> Trainer:
        return Trainer(
            self.ledger.url,
            "braket:garnet",
            {"find_horizon_s": horizon_s},
            steps,
            env=self.env,
            log=self.log,
        )


@pytest.fixture
def service(double: AwsDouble, tmp_path: Path) -> Service:
    return Service(double, tmp_path)


@pytest.mark.parametrize("kills, seed", [(4, 1), pytest.param(110, 2, marks=pytest.mark.slow)])
def test_whatever_is_killed_when_nothing_is_paid_twice(service, kills, seed):
    service.double.settings(search_lag_s=LAG_S)
    for fault in FAULTS:
        service.double.fault("CreateQuantumTask", **fault)
    service.double.fault("SearchQuantumTasks", "html_before")
    service.double.fault("GetObject", "short")
    found = campaign(service.start, service.bystander, MOMENTS, kills=kills, steps=3, seed=seed)
    ledger = service.double.ledger()
    assert ledger["paid"] == ledger["asked"] == found.steps
    print(f"AWS: {dict(found.struck)}, {found.steps} jobs, open at the kills: {dict(found.states)}")


@pytest.mark.slow
def test_a_task_that_turns_up_after_the_horizon_is_cancelled_and_settled(service):
    double, ledger = service.double, service.ledger
    double.settings(search_lag_s=1e9, queued_polls=10**6)
    double.fault("CreateQuantumTask", "late", seconds=5.0)
    trainer = service.start(1, horizon_s=0.5)
    wait_for(lambda: double.ledger()["asked"], trainer)
    courier = trainer.courier()
    assert courier is not None
    kill(courier)
    double.settings(queued_polls=0)
    trainer.end()
    assert [job.state for job in ledger.jobs()] == ["refunded", "settled"]
    assert double.ledger()["asked"] == 2

    double.settings(search_lag_s=0.0)
    look_once(ledger.url, env=service.env)
    late, settled = ledger.jobs()
    assert (late.state, settled.state) == ("failed", "settled")
    first, second = double.ledger()["tasks"]
    assert (first["status"], second["status"]) == ("CANCELLED", "COMPLETED")
    assert late.handle is not None
    assert late.handle.job_id == first["arn"]
    (cap,) = ledger.caps(BUDGET)
    assert (cap.reserved, cap.spent, cap.overrun) == (0, service.books().paid, 0)
