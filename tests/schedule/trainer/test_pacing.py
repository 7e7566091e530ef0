"""Spending to plan: half-way, at three quarters and at the end, through the real pipeline.

Scheduler, desk, courier and ledger in one process (``stage``); a step takes a second, and so does
the vendor, times its delay. The tolerance is the larger of 5 % of the budget and one job's hold.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from stage import PRICE, Stage

from qsgd_core.builtin.policies import Tracked
from qsgd_core.jobs import Cost, Quote
from qsgd_core.schedule.messages import Account
from qsgd_core.schedule.trainer.horizon import Horizon
from qsgd_core.schedule.trainer.purse import Purse

STEPS = 120
MARKS = (0.5, 0.75, 1.0)
MANY = 50
"""Refreshes out at once: more than any of these budgets needs."""


@pytest.fixture
def stage(filebox, tmp_path) -> Stage:
    return Stage(tmp_path)


def overstate(stage: Stage, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """The vendor's worst case is so many times what it bills."""
    real = stage.backend.quote

    def quote(*arguments: Any, **more: Any) -> Quote:
        found = real(*arguments, **more)
        worst = Cost(*(None if c is None else c * factor for c in dataclasses.astuple(found.worst)))
        return dataclasses.replace(found, worst=dataclasses.replace(worst, shots=found.worst.shots))

    monkeypatch.setattr(stage.backend, "quote", quote)


def spend(
    stage: Stage, worth: float, policy: Any, **config: Any
) -> tuple[list[float], list[float]]:
    """Train on a budget for ``worth`` refreshes; spent, and planned, after each step, as shares.

    A refresh that is out counts at its price.
    """
    cap = int(worth * PRICE)
    stage.ledger.create_budget("small", {"micro_usd": cap})
    given = {"total_steps": STEPS, "budget_name": "small", "max_in_flight": MANY, **config}
    scheduler = stage.scheduler(policy, **given)
    spent, planned = [], []
    for step in range(STEPS):
        stage.go(scheduler, [step])
        spent.append(PRICE * len(stage.jobs()) / cap)
        planned.append(scheduler.status()["planned"])
    scheduler.close(finished=False)
    return spent, planned


def settle(stage: Stage) -> int:
    """What the budget has left once everything has come in."""
    line = stage.courier()
    while any(job.settled_at is None for job in stage.jobs()):
        stage.clock.sleep(1.0)
        line.receive()
    (cap,) = stage.ledger.caps("small")
    assert (cap.reserved, cap.overrun) == (0, 0)
    assert cap.spent == stage.truth <= cap.cap
    return cap.cap - cap.spent


@pytest.mark.parametrize(
    "wait, worth, delay",
    [
        ("first", 1.5, 0),
        ("first", 7.4, 10),
        ("first", 4.0, 40),
        ("first", 23.9, 10),
        ("never", 4.0, 0),
        ("never", 7.4, 40),
        ("never", 23.9, 25),
    ],
)
def test_spending_keeps_to_the_plan_whatever_the_budget_and_the_delay(stage, wait, worth, delay):
    stage.have(run_s=delay)
    spent, planned = spend(stage, worth, Tracked(), wait=wait)
    for mark in MARKS:
        at = int(mark * STEPS) - 1
        assert abs(spent[at] - planned[at]) <= max(0.05, 1 / worth) + 1 / STEPS  # to the step
    assert planned[-1] == 1.0
    assert settle(stage) < PRICE


def test_the_plan_is_a_straight_line_that_ends_with_the_last_refresh_that_can_still_arrive():
    """A result takes 20 of 120 steps; before step 40 nobody knows."""
    horizon = Horizon(120)
    planned = []
    for step in range(120):
        if step == 40:
            horizon.delays.append(20)
        planned.append(horizon.planned(step, 0.0, None))
    assert planned[:40] == pytest.approx([(step + 1) / 120 for step in range(40)])
    rest = [1 / 3 + (2 / 3) * (step + 1 - 40) / (99 - 40) for step in range(40, 120)]
    assert planned[40:] == pytest.approx([min(1.0, share) for share in rest])


@pytest.mark.parametrize("delay", [0, 3])
@pytest.mark.parametrize("worth", [4.0, 15.9])
def test_a_hold_three_times_the_cost_is_not_spending_and_less_than_one_is_left_over(
    stage, monkeypatch, worth, delay
):
    stage.have(run_s=delay)
    overstate(stage, monkeypatch, 3.0)
    spent, planned = spend(stage, worth, Tracked(), wait="first")
    for mark in MARKS:
        at = int(mark * STEPS) - 1
        assert abs(spent[at] - planned[at]) <= max(0.05, 3 / worth) + 1 / STEPS
    assert settle(stage) < 3 * PRICE


def test_dearer_than_expected_refreshes_become_fewer_and_not_an_overspending(stage, monkeypatch):
    """The vendor bills the worst case, half as much again as it said to expect."""
    real = stage.backend.quote

    def quote(*arguments: Any, **more: Any) -> Quote:
        found = real(*arguments, **more)
        usd = None if found.expected.usd is None else found.expected.usd / 1.5
        return dataclasses.replace(found, expected=dataclasses.replace(found.expected, usd=usd))

    monkeypatch.setattr(stage.backend, "quote", quote)
    spent, _ = spend(stage, 10.0, Tracked(), wait="first")
    assert max(spent) <= 1.0
    assert settle(stage) < PRICE


def test_a_purse_counts_what_is_out_at_the_expected_price_and_keeps_the_worst_for_it():
    cap = {"budget": "b", "unit": "micro_usd", "cap": 100, "reserved": 30, "spent": 40}
    price = {
        "expected": {"usd": 10e-6, "qpu_s": None, "shots": 1},
        "worst": {"usd": 30e-6, "qpu_s": None, "shots": 1},
    }
    said = Account([{**cap, "overrun": 0}], price, shots=1, tiles=1, queue_s=[], backend="x")
    purse = Purse.of(said)
    assert purse.affordable(1) == 5
    assert purse.holds(1)
    assert not purse.holds(2)
