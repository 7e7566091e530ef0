"""From outcomes to the table: E, the skill score V, ratios, and what the run itself could know."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from scheduler_parts.cells import MARKETS, Outcome

BASELINE = "hold_tuned"
SHOWN = ("tracked", "hold", BASELINE, "twin", "ideal")


def cell(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """E and skill of every policy on one trace, device family and budget.

    E is the root mean square over steps, blocks, qubits and devices; V = 1 - E²/E²_twin. Tuned
    hold is the best of its shot counts on each device by itself, with hindsight.
    """
    by_policy: dict[str, dict[int, float]] = {}
    for outcome in outcomes:
        by_policy.setdefault(outcome.policy, {})[outcome.unit.seed] = outcome.e_sq
    tuned = [found for policy, found in by_policy.items() if policy.startswith("hold ")]
    by_policy[BASELINE] = {
        seed: min(found[seed] for found in tuned) for seed in by_policy["tracked"]
    }
    e_sq = {policy: float(np.mean(list(found.values()))) for policy, found in by_policy.items()}
    free = e_sq["twin"]
    return {
        "E": {policy: math.sqrt(e_sq[policy]) for policy in SHOWN},
        "skill": {policy: 1.0 - e_sq[policy] / free for policy in SHOWN},
        "tracked_over_hold_tuned": math.sqrt(e_sq["tracked"] / e_sq[BASELINE]),
        "hold_by_shots": {
            policy.removeprefix("hold "): math.sqrt(value)
            for policy, value in e_sq.items()
            if policy.startswith("hold ")
        },
        "tracked_by_seed": [
            math.sqrt(by_policy["tracked"][seed]) for seed in sorted(by_policy["tracked"])
        ],
    }


def estimated(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """What tracked runs said of their own worth, from arriving results alone, beside the truth.

    Returns:
        ``skill`` as said and ``skill_true``, means over devices; ``covered``, the share of
        devices whose true V lay in the interval that the run gave (95 % if all is well).
    """
    found = list(outcomes)
    free = {o.unit.seed: o.e_sq for o in found if o.policy == "twin"}
    said, true, covered = [], [], []
    for outcome in found:
        if outcome.policy != "tracked" or outcome.run is None:
            continue
        skill = outcome.run.said
        value = 1.0 - outcome.e_sq / free[outcome.unit.seed]
        if skill.value is None or skill.low is None or skill.high is None:
            continue
        said.append(skill.value)
        true.append(value)
        covered.append(skill.low <= value <= skill.high)
    if not said:
        return {"skill": None, "skill_true": None, "covered": None}
    return {
        "skill": float(np.mean(said)),
        "skill_true": float(np.mean(true)),
        "covered": float(np.mean(covered)),
    }


def pacing(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Spending of tracked runs against plan, at 50, 75 and 100 % of the steps.

    Returns:
        ``worst``: the largest deviation from plan in units of what is allowed, which is the larger
        of 5 % of the plan and one job's hold; ``leftover_holds``: most left over, in holds.
    """
    worst, leftover = 0.0, 0.0
    for outcome in outcomes:
        run = outcome.run
        if outcome.policy != "tracked" or run is None:
            continue
        for balance in run.balances:
            allowed = max(0.05 * balance.planned, run.hold)
            worst = max(worst, abs(balance.committed - balance.planned) / allowed)
        leftover = max(leftover, (run.cap - run.balances[-1].committed) / run.hold)
    return {"worst": worst, "leftover_holds": leftover}


def pick(
    outcomes: Iterable[Outcome], *, trace: str, hardware: str, market: str, delay: float
) -> list[Outcome]:
    """Those of one cell."""
    return [
        o
        for o in outcomes
        if (o.unit.trace, o.unit.hardware, o.market, o.delay) == (trace, hardware, market, delay)
    ]


def report(outcomes: list[Outcome], *, delays: tuple[float, float]) -> dict[str, Any]:
    """The whole benchmark as one JSON object."""
    usual, long = delays

    def found(trace: str, hardware: str, market: str, delay: float = usual) -> list[Outcome]:
        return pick(outcomes, trace=trace, hardware=hardware, market=market, delay=delay)

    def table(hardware: str, traces: tuple[str, ...]) -> dict[str, Any]:
        return {
            f"{trace}_{market}": cell(found(trace, hardware, market))
            for market in MARKETS
            for trace in traces
        }

    names = [(trace, market) for market in MARKETS for trace in ("fast", "raw")]
    late = {}
    for trace, market in names:
        e_sq = [
            np.mean([o.e_sq for o in found(trace, "research", market, d) if o.policy == "tracked"])
            for d in (usual, long)
        ]
        late[f"{trace}_{market}"] = math.sqrt(e_sq[1] / e_sq[0])
    paid = [(o.unit, o.market, o.policy, o.delay, o.run) for o in outcomes if o.run is not None]
    return {
        "cells": table("research", ("fast", "raw")),
        "outside_family": table("outside", ("fast", "raw")),
        "circuit_trace": table("research", ("circuit",)),
        "delay200_over_delay40": max(late.values()),
        "delay_by_cell": late,
        "estimated": {
            f"{trace}_{market}": estimated(found(trace, "research", market))
            for trace, market in names
        },
        "pacing": pacing([o for o in outcomes if o.delay == usual]),
        "overspend": sum(run.overspend for *_, run in paid),
        "misbooked": sum(run.misbooked for *_, run in paid),
        "jobs": sum(run.jobs for *_, run in paid),
        "seeds": len({o.unit.seed for o in outcomes}),
    }
