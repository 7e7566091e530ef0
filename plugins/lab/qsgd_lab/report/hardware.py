"""What was measured on hardware, what that cost, and whether it was worth it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from qsgd_core.cli.show.report import measurements, money_rows, worth_in_words
from qsgd_core.jobs import dollars, qpu_seconds
from qsgd_core.schedule.record.reader import RecordReader
from qsgd_core.training.folder.folder import RunFolder
from qsgd_core.training.folder.report import Hardware, Report
from qsgd_lab.compare.table import Comparison
from qsgd_lab.compare.text import NONE, between_times
from qsgd_lab.report import run_figures
from qsgd_lab.report.document import Block, Figure, Key, Paragraph, Section, Table, pairs
from qsgd_lab.report.palette import label, looks


def of_run(found: Report, folder: RunFolder) -> tuple[Section, ...]:
    """Sections about a run on a backend; none for any other."""
    hardware, money = found.hardware, found.money
    if hardware is None or money is None:
        return ()
    reader = RecordReader(folder.record)
    try:
        errors = run_figures.errors(reader.results())
    finally:
        reader.close()
    burn = [run_figures.burn_down(unit, points) for unit, points in hardware.burn_down.items()]
    left = [job for job in money.jobs if job["settled_at"] is None and job["state"] != "denied"]
    waiting = Table(("job", "step", "state"), tuple(
        (str(j["tag"]), str(j["step"]), str(j["state"])) for j in left
    ), words=(0, 2))  # fmt: skip
    return (
        Section("Was the hardware worth its money?", (Paragraph(worth_in_words(hardware, money)),)),
        Section("Money", _blocks(pairs(money_rows(money, found.steps)), *burn)),
        Section(
            "Measurements",
            _blocks(
                pairs(measurements(hardware)),
                run_figures.staleness(hardware.ages.steps),
                errors,
            ),
        ),
        Section("Jobs that are not over", (waiting,) if left else ()),
    )


def of_comparison(comparison: Comparison, paid: Mapping[tuple[str, int], Report]) -> Section:
    """The paid runs, one a line, and their budgets over the steps; empty where nothing was."""
    if not paid:
        return Section("Hardware", ())
    rows = tuple(_row(arm, seed, found) for (arm, seed), found in paid.items())
    table = Table(
        columns=("arm", "seed", "device", "jobs", "shots", "paid", "QPU s", "skill V", "verdict"),
        rows=rows,
        words=(0, 2, 8),
        note=(
            "V = 1 − E²/E²_twin, with its 95 % interval: the share of the free classical twin’s "
            "squared error that measuring took away. Below 0, measuring was worse than nothing."
        ),
    )
    units = sorted({u for r in paid.values() if r.hardware for u in r.hardware.burn_down})
    burn = [_burn_down(unit, comparison, paid) for unit in units]
    return Section("Hardware", _blocks(Paragraph(total(paid)), table, *burn))


def skill(hardware: Hardware) -> str:
    """``0.93 (0.88 to 0.97)``."""
    found = hardware.skill
    if found.value is None or found.low is None or found.high is None:
        return NONE
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def submitted(reports: Iterable[Report]) -> str | None:
    """When jobs were sent: the first and the last."""
    return between_times(
        job["submitted_at"]
        for found in reports
        if found.money is not None
        for job in found.money.jobs
        if job["submitted_at"] is not None
    )


def _row(arm: str, seed: int, found: Report) -> tuple[str, ...]:
    money, hardware = found.money, found.hardware
    if money is None or hardware is None:
        return (arm, str(seed), found.device, *[NONE] * 6)
    return (
        arm,
        str(seed),
        found.device,
        str(len(money.jobs)),
        NONE if money.shots is None else f"{money.shots:,}",
        NONE if money.cost_usd is None else dollars(money.cost_usd),
        NONE if money.qpu_s is None else qpu_seconds(money.qpu_s),
        skill(hardware),
        hardware.verdict,
    )


def total(paid: Mapping[tuple[str, int], Report]) -> str:
    """What all of it cost, in a sentence."""
    money = [found.money for found in paid.values() if found.money is not None]
    known = [m.cost_usd for m in money if m.cost_usd is not None]
    price = dollars(sum(known)) if len(known) == len(money) else "an amount nobody knows"
    shots = sum(m.shots or 0 for m in money)
    jobs = sum(len(m.jobs) for m in money)
    return (
        f"{len(money)} runs measured on a backend: {jobs:,} jobs, {shots:,} shots, {price} in all."
    )


def _burn_down(
    unit: str, comparison: Comparison, paid: Mapping[tuple[str, int], Report]
) -> Figure | None:
    """What each run spent, one line each, in the colour of its arm."""
    look = looks(comparison)
    traces: list[dict[str, Any]] = []
    shown: list[str] = []
    for (arm, seed), found in paid.items():
        points = () if found.hardware is None else found.hardware.burn_down.get(unit, ())
        if not points:
            continue
        if arm not in shown:
            shown.append(arm)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"{label(arm)}, seed {seed}",
                "legendgroup": arm,
                "x": [p.step for p in points],
                "y": [100 * (p.spent + p.overrun) / (p.cap or 1.0) for p in points],
                "line": {"shape": "hv", "width": 1.5, "color": look[arm].colour},
            }
        )
    if not traces:
        return None
    return Figure(
        name=f"burn-down-{unit.replace('_', '-')}",
        title="Budgets over the steps",
        caption=(
            f"Spent of each run’s budget, in {run_figures.UNITS[unit]}, as a share of its cap; a "
            "line is a run."
        ),
        traces=tuple(traces),
        layout={
            "xaxis": {"title": {"text": "step"}},
            "yaxis": {"title": {"text": "spent, % of cap"}, "rangemode": "tozero"},
        },
        height_px=280,
        keys=tuple(Key(arm, look[arm].colour, "solid", None, arm) for arm in shown),
    )


def _blocks(*blocks: Block | None) -> tuple[Block, ...]:
    return tuple(block for block in blocks if block is not None)
