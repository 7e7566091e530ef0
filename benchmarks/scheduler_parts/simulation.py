"""One training run on the simulated device, driven by the project's own scheduler."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qsgd_core.builtin.policies import Hold, Tracked, TwinOnly
from qsgd_core.circuits import Workload
from qsgd_core.events import Event
from qsgd_core.perturbation import Perturbation
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.courier.desk import Desk
from qsgd_core.schedule.courier.inline import LocalLine
from qsgd_core.schedule.ledger.budgets import open_budget
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.messages import Frame
from qsgd_core.schedule.money import Amount, BudgetAsked
from qsgd_core.schedule.paid_run import PaidRun
from qsgd_core.schedule.record.history import worth
from qsgd_core.schedule.record.reader import RecordReader
from qsgd_core.schedule.record.worth import Skill
from qsgd_core.schedule.trainer.scheduler import Scheduler
from scheduler_parts.device import START_S, STEP_S, SimulatedDevice, Tariff
from scheduler_parts.physics import Errors

Floats = NDArray[np.float64]

POLICIES = {"tracked": Tracked, "hold": Hold, "twin": TwinOnly}
RUN = "benchmark"
CHECKPOINTS = (0.5, 0.75, 1.0)
"""Shares of the steps at which spending is compared with the plan."""


@dataclass(frozen=True)
class Market:
    """What the run may spend, and where.

    Attributes:
        tariff: the device's prices.
        budget: as a user writes it.
        delay_steps: median time in the queue.
    """

    tariff: Tariff
    budget: str
    delay_steps: float = 40.0


@dataclass(frozen=True)
class Balance:
    """The budget at one checkpoint, in the unit's integers.

    Attributes:
        committed: spent and reserved.
        planned: what the scheduler had planned to spend by then.
    """

    committed: int
    planned: float


@dataclass(frozen=True, eq=False)
class Run:
    """What came of it.

    Attributes:
        z: float64 (steps, rows, n), what each step used.
        jobs: that ran.
        alarms: results taken for a recalibration.
        said: what the run's record says of its own worth, from arriving results alone.
        cap: of the budget, in the unit's integers.
        hold: of one job.
        overspend: what the provider billed above the cap.
        misbooked: the ledger's spending less the provider's bills, in absolute value.
        balances: at each of :data:`CHECKPOINTS`.
    """

    z: Floats
    jobs: int
    alarms: int
    said: Skill
    cap: int
    hold: int
    overspend: int
    misbooked: int
    balances: tuple[Balance, ...]


class Clock:
    """Simulated time."""

    def __init__(self) -> None:
        self.now = START_S

    def __call__(self) -> float:
        return self.now

    def set_step(self, step: int) -> None:
        """Go to the beginning of a step."""
        self.now = START_S + step * STEP_S


class SimulatedLine(LocalLine):
    """Lets the courier work whenever something can have changed, as a real one does all the time.

    A real courier makes many rounds between two steps that stand for 86 seconds each; most of them
    find nothing new, and are left out here.
    """

    def __init__(self, desk: Desk, courier: Courier, device: SimulatedDevice, clock: Clock) -> None:
        super().__init__(desk, courier)
        self._device = device
        self._now = clock
        self._quiet_until = -math.inf

    def send(self, frame: Frame) -> None:
        """See :class:`LocalLine`."""
        super().send(frame)
        self._quiet_until = -math.inf

    def receive(self, timeout_s: float = 0.0) -> list[Frame]:
        """See :class:`LocalLine`; goes on until nothing changes any more."""
        if self._now() < self._quiet_until:
            return []
        frames: list[Frame] = []
        while True:
            changed = self._courier.round()
            frames += self._desk.news(changed=changed)
            if not changed:
                break
        self._quiet_until = self._device.next_change()
        return frames


def simulate(
    trace: Floats,
    perturbation: Perturbation,
    errors: Errors,
    market: Market,
    *,
    policy: str,
    seed: int,
) -> Run:
    """Run a policy along a trace.

    Args:
        trace: float64 (steps, blocks, n), the selected coordinates before each step.
        perturbation: makes the circuits.
        errors: of the device, at every step.
        market: prices, budget and queue.
        policy: ``tracked``, ``hold`` or ``twin``.
        seed: of queue and shots.

    Raises:
        BudgetError: the budget does not pay for one job.
    """
    clock = Clock()
    device = SimulatedDevice(
        market.tariff, errors, delay_steps=market.delay_steps, seed=seed, clock=clock
    )
    steps = len(trace)
    events: list[Event] = []
    memory = Path("/dev/shm")  # the ledger syncs every transaction: keep real disks out of it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite", clock=clock)
        budget = open_budget(ledger, BudgetAsked.parse(market.budget), run=RUN)
        ledger.open_run(RUN, backend=device.name, options={})
        courier = Courier(ledger, device, run=RUN, clock=clock, timer=clock)
        desk = Desk(ledger, device, courier, run=RUN, clock=clock, timer=clock)
        record = Path(folder) / "record.sqlite"
        run = PaidRun(
            run_id=RUN, budget_name=budget, total_steps=steps, seed=seed, record=str(record)
        )
        scheduler = Scheduler(
            SimulatedLine(desk, courier, device, clock),
            POLICIES[policy](),
            run,
            tell=events.append,
            clock=clock,
            timer=clock,
        )
        z: list[Floats] = []
        balances = []
        marks = {round(share * steps) - 1 for share in CHECKPOINTS}
        for step in range(steps):
            clock.set_step(step)
            batches = perturbation.plan(trace[step], np.zeros_like(trace[step]), step=step)
            used, _ = scheduler.expectations(Workload(tuple(batches)), step=step)
            z.append(np.concatenate(used))
            if step in marks:
                (cap,) = ledger.caps(budget)
                planned = (scheduler.status()["planned"] or 0.0) * cap.cap
                balances.append(Balance(cap.spent + cap.reserved, planned))
        clock.set_step(steps)
        scheduler.close(finished=True)
        (cap,) = ledger.caps(budget)
        bills = [Amount.from_cost(cost).of(cap.unit) or 0 for cost in device.bills()]
        jobs = ledger.jobs(run=RUN)
        hold = max([job.hold.of(cap.unit) or 0 for job in jobs], default=0)
        reader = RecordReader(record)
        results = reader.results()
        said = worth(results, reader.applied())
        reader.close()
    return Run(
        z=np.array(z),
        jobs=len(bills),
        alarms=sum(row.alarm for row in results),
        said=said,
        cap=cap.cap,
        hold=hold,
        overspend=max(sum(bills) - cap.cap, 0),
        misbooked=abs(cap.spent + cap.overrun - sum(bills)),
        balances=tuple(balances),
    )
