"""A run's report for the terminal: the answer first, then what it rests on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from qsgd_core.cli.show.bars import bar, budget_bar
from qsgd_core.cli.show.output import print_pairs
from qsgd_core.cli.show.words import duration, effect, number, provisional
from qsgd_core.jobs import dollars, qpu_seconds
from qsgd_core.schedule.money import say
from qsgd_core.schedule.record.history import Point, Spread
from qsgd_core.training.folder.report import Hardware, Money, Report

LINES = 10
"""Lines of the burn-down."""
LATEST = 20
"""Events that are shown."""


def print_report(found: Report, console: Console) -> None:
    """The report for people."""
    print_pairs(about(found), console)
    if found.hardware is not None and found.money is not None:
        _section(console, "Was the hardware worth its money?")
        console.print(Text(worth_in_words(found.hardware, found.money)))
        _section(console, "Money")
        print_pairs(money_rows(found.money, found.steps), console)
        for unit, points in found.hardware.burn_down.items():
            _burn_down(console, unit, points, planned=found.every is None)
        _section(console, "Measurements")
        print_pairs(measurements(found.hardware), console)
        _histogram(console, found.hardware.ages.steps)
        _open_jobs(console, found.money)
    if found.events:
        _section(console, "What happened")
        _events(console, found.events)
    for note in found.notes:
        console.print(Text(f"Note: {note}", style="yellow"))


def worth_in_words(hardware: Hardware, money: Money) -> str:
    """The skill score as an answer."""
    skill = hardware.skill
    if skill.value is None or skill.low is None or skill.high is None:
        return f"It cannot be told: {skill.reason}."
    price = "" if money.cost_usd is None else f" for {dollars(money.cost_usd)}"
    score = f"V = {skill.value:.2f}, with 95 % confidence {skill.low:.2f} to {skill.high:.2f}"
    errors = (
        f"What was used was off by {_rms(hardware.e_rms, skill.e_sq)}, the free twin would have "
        f"been by {_rms(hardware.twin_rms, skill.twin_sq)} (RMS of ⟨Z⟩ at {skill.n} refreshes, "
        "shot noise taken off)."
    )
    if hardware.verdict == "worth it":
        least = f"{100 * max(skill.low, 0.0):.0f} %"
        answer = f"Yes: at least {least} of the free twin's squared error was taken away{price}"
        advice = ""
    elif hardware.verdict == "not worth it":
        answer = f"No: the free twin would have been nearer to the device{price and ', and free'}"
        advice = " Use --policy twin, or --policy tracked with more shots."
    else:
        answer = f"It cannot be told: the results fit a gain and a loss{price}"
        advice = " More refreshes or shots would tell."
    return f"{answer} ({score}). {errors}{advice}"


def about(found: Report) -> list[tuple[str, str]]:
    """What the run was and came to: names and values."""
    where = found.backend + ("" if found.device == found.backend else f" ({found.device})")
    if found.policy is not None:
        where += f", policy {found.policy}, wait {found.wait}"
    of = "" if found.total_steps in (None, found.steps) else f" of {found.total_steps:,}"
    took = "" if found.wall_s is None else f" in {duration(found.wall_s)}"
    rows = [
        ("run", f"{found.run_dir}, {found.status}"),
        ("task", f"{found.task}, {found.perturbation}, seed {found.seed}"),
        ("backend", where),
        ("steps", f"{found.steps:,}{of}{took}"),
    ]
    shown = {k: v for k, v in found.metrics.items() if k not in ("epoch", "step", "effect_size")}
    if shown:
        rows.append(
            ("metrics", ", ".join(f"{k.replace('_', ' ')} {number(v)}" for k, v in shown.items()))
        )
    if found.effect_size is not None:
        rows.append(("effect size", effect(found.effect_size)))
    used = [f"{name} {100 * share:.3g} %" for name, share in found.sources.items() if share]
    rows.append(("sources of s", ", ".join(used) or "none: no step had a term"))
    if found.hardware is None:
        free = "a simulator in this process"
        if found.replay_of is not None:
            free = f"a replay of {found.replay_of} from its record"
        rows.append(("cost", f"none: {free}"))
    return rows


def money_rows(money: Money, steps: int) -> list[tuple[str, str]]:
    """What its jobs cost and hold, and where the budgets stand."""
    states = ", ".join(f"{n} {state}" for state, n in sorted(money.by_state.items()))
    rows = [
        ("jobs", f"{len(money.jobs)}" + (f": {states}" if states else "")),
        (
            "paid",
            _amounts(money.cost_usd, money.qpu_s, money.shots)
            + provisional(money.provisional_usd, money.provisional_qpu_s),
        ),
    ]
    if money.open:
        rows.append(("held", _amounts(money.held_usd, money.held_qpu_s, money.held_shots)))
    if money.jobs and money.usd_per_step is not None:
        each = f"{dollars(money.usd_per_step)} a step"
        if money.usd_per_refresh is not None:
            each += f", {dollars(money.usd_per_refresh)} a refresh that was used"
        rows.append(("on average", each))
    elif money.jobs and money.qpu_s_per_step is not None:
        each = f"{qpu_seconds(money.qpu_s_per_step)} of QPU time a step"
        if money.qpu_s_per_refresh is not None:
            each += f", {qpu_seconds(money.qpu_s_per_refresh)} a refresh that was used"
        rows.append(("on average", each))
    rows += [("budget", _budget(share)) for share in money.budgets]
    if money.budgets:
        right = "to the cent: the jobs add up to the budget's own figures"
        rows.append(("accounts", right if money.balanced else "do not add up: see the note below"))
    return rows


def _budget(share: dict[str, Any]) -> str:
    unit = share["unit"]
    run, others = share["run"], share["others"]
    said = [f"{share['budget']}: {say(unit, share['spent'])} of {say(unit, share['cap'])} spent"]
    if share["reserved"]:
        said.append(f"{say(unit, share['reserved'])} held")
    if share["overrun"]:
        said.append(f"{say(unit, share['overrun'])} billed above holds: frozen")
    if others["paid"] or others["held"]:
        said.append(f"{say(unit, run['paid'] + run['held'])} of it by this run")
    return ", ".join(said)


def measurements(hardware: Hardware) -> list[tuple[str, str]]:
    """What came of its refreshes, how late, and how far off the noise model was."""
    refreshes, guess, ages = hardware.refreshes, hardware.prediction, hardware.ages
    came = [f"{refreshes.arrived} arrived", f"{refreshes.applied} used"]
    if refreshes.failed:
        came.append(f"{refreshes.failed} came to nothing")
    waiting = refreshes.asked - refreshes.arrived - refreshes.failed
    if waiting:
        came.append(f"{waiting} under way")
    of = "" if refreshes.shots is None else f" of {refreshes.rows} blocks × {refreshes.shots} shots"
    rows = [("refreshes", f"{refreshes.asked} asked for{of}: {', '.join(came)}")]
    if hardware.queue_s.n:
        rows.append(("time to a result", _quantiles(hardware.queue_s, duration)))
    if guess.n and guess.predicted_rms is not None and guess.realised_rms is not None:
        alarms = f", {guess.alarms} recalibrations noticed" if guess.alarms else ""
        rows.append(
            (
                "noise model",
                f"expected to be off by {guess.predicted_rms:.4f} RMS, was by "
                f"{guess.realised_rms:.4f} (NIS {guess.nis:.2f}; 1 is right){alarms}",
            )
        )
    for name, spread, says in (
        ("age, radians", ages.radians, lambda v: f"{v:.2g}"),
        ("age, time", ages.seconds, duration),
        ("age, steps", ages.steps, lambda v: f"{v:.0f}"),
    ):
        if spread.n:
            rows.append((name, _quantiles(spread, says)))
    return rows


def _burn_down(console: Console, unit: str, points: Sequence[Point], *, planned: bool) -> None:
    """Spent (█), held (▒) and plan (│) over the steps; a bar's full width is the cap."""
    if not points:
        return
    last = points[-1]
    most = last.cap or 1.0
    count = min(LINES, len(points))
    chosen = [points[round(k * (len(points) - 1) / max(count - 1, 1))] for k in range(count)]
    planned = planned and any(point.planned is not None for point in chosen)
    key = ", │ where the plan was" if planned else ""
    paid = last.spent + last.overrun
    spent = f"{_in(unit, paid)} of {_in(unit, most)} ({paid / most:.0%})"
    above = f", {_in(unit, last.overrun)} of it above what was held" if last.overrun else ""
    console.print(
        Text(f"\nBudget over the steps: spent █, held ▒{key}. In the end {spent}{above}.")
    )
    for point in chosen:
        plan = point.planned if planned else None
        beside = "" if plan is None else f" (plan {_in(unit, plan)})"
        share = None if plan is None else plan / most
        paid = point.spent + point.overrun
        cells = budget_bar(paid / most, point.reserved / most, share)
        amount = _in(unit, paid)
        console.print(Text(f"  step {point.step:>7,} {cells} {amount}{beside}"))


def _in(unit: str, amount: float) -> str:
    """An amount of the record's units."""
    if unit == "usd":
        return dollars(amount)
    return qpu_seconds(amount) if unit == "qpu_s" else f"{amount:,.0f} shots"


def _histogram(console: Console, spread: Spread) -> None:
    """Steps since what was used had been measured."""
    if not spread.counts:
        return
    console.print(Text("\nSteps by how long ago what they used was measured, in steps:"))
    most = max(spread.counts)
    edges = list(zip(spread.edges, spread.edges[1:], strict=False))
    for (low, high), count in zip(edges, spread.counts, strict=True):
        name = f"{low:.0f}" if high - low <= 1 else f"{low:.0f} to {high - 1:.0f}"
        console.print(Text(f"  {name:>14} {bar(count / most)} {count:,} ({count / spread.n:.0%})"))


def _open_jobs(console: Console, money: Money) -> None:
    left = [job for job in money.jobs if job["settled_at"] is None and job["state"] != "denied"]
    if not left:
        return
    _section(console, "Jobs that are not over")
    rows = [
        (job["tag"], f"step {job['step']}, {job['state']}, {_amounts(**job['held'])} held")
        for job in left
    ]
    print_pairs(rows, console)


def _events(console: Console, events: Sequence[dict[str, Any]]) -> None:
    if len(events) > LATEST:
        console.print(Text(f"(the latest {LATEST} of {len(events)}; all with --json)"))
    rows = [
        (f"step {e['step']:,}", f"{_clock(e['wall'])} {e['kind']}: {e['message']}")
        for e in events[-LATEST:]
    ]
    print_pairs(rows, console)


def _section(console: Console, title: str) -> None:
    console.print()
    console.rule(Text(title, style="bold"), align="left")


def _quantiles(spread: Spread, says: Callable[[float], str]) -> str:
    if spread.median is None or spread.p90 is None or spread.most is None:
        return "unknown"
    half, most, longest = says(spread.median), says(spread.p90), says(spread.most)
    return f"half within {half}, 9 in 10 within {most}, at most {longest}"


def _amounts(usd: float | None, qpu_s: float | None, shots: int | None) -> str:
    said = ["dollars unknown" if usd is None else dollars(usd)]
    if qpu_s is not None:
        said.append(f"{qpu_seconds(qpu_s)} of QPU time")
    if shots is not None:
        said.append(f"{shots:,} shots")
    return ", ".join(said)


def _rms(root: float | None, square: float | None) -> str:
    if root is None:
        return "an unknown amount"
    return (
        "0 (its estimate, less shot noise, is negative)" if (square or 0.0) < 0 else f"{root:.4f}"
    )


def _clock(wall: float) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.localtime(wall))
