"""What a comparison's runs say beside its table: their times, machines and hardware."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from qsgd_core.errors import QSGDError
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.record.reader import RecordReader
from qsgd_core.schedule.twin.estimate import Estimate
from qsgd_core.training.folder.folder import RunFolder, read_record
from qsgd_core.training.folder.report import Report
from qsgd_core.training.folder.report import report as gather
from qsgd_lab.compare.plan import RUNS
from qsgd_lab.compare.runs import outcome
from qsgd_lab.compare.table import Comparison

TYPICAL = "typical"
"""Stands for a calibration where the vendor gave none."""


@dataclass(frozen=True)
class Backstage:
    """Read from the folders of the runs.

    Attributes:
        states: runs by what became of them.
        epoch_s: arm -> seed -> seconds of an epoch, of runs that finished.
        ended: when runs did, in seconds since the epoch, UTC.
        machines: what runs were computed with, each once, and how many runs.
        paid: (arm, seed) -> report, of runs that measured on a backend.
        calibrations: that the noise models of those started from, as the vendor calls them.
        notes: what could not be read, and why.
    """

    states: Counter[str] = field(default_factory=Counter)
    epoch_s: dict[str, dict[int, float]] = field(default_factory=dict)
    ended: list[float] = field(default_factory=list)
    machines: tuple[tuple[dict[str, Any], int], ...] = ()
    paid: dict[tuple[str, int], Report] = field(default_factory=dict)
    calibrations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def look(comparison: Comparison, open_ledger: Callable[[], Ledger]) -> Backstage:
    """Read what the runs' folders hold.

    Args:
        comparison: which runs.
        open_ledger: called if any of them was paid for.
    """
    found = Backstage()
    machines: list[tuple[dict[str, Any], int]] = []
    stamps: set[str] = set()
    notes: list[str] = []
    for key in comparison.plan.every_run():
        run = outcome(comparison.folder, key)
        found.states[run.state] += 1
        if run.summary is None:
            continue
        folder = RunFolder(comparison.folder / RUNS / key.name)
        if (ended := run.summary.get("ended_at")) is not None:
            found.ended.append(ended)
        epochs = int(run.summary.get("epochs") or 0)
        if epochs:
            found.epoch_s.setdefault(key.arm, {})[key.seed] = run.summary["wall_s"] / epochs
        try:
            _count(machines, read_record(folder).environment)
            if comparison.plan.arm(key.arm).paid:
                report = found.paid[key.arm, key.seed] = gather(folder, open_ledger)
                notes += [f"{key.arm} seed {key.seed}: {note}" for note in report.notes]
                stamps.update(calibrations(folder))
        except QSGDError as error:  # a page that lacks a line is worth more than none
            notes.append(f"{key.arm} seed {key.seed}: {error}")
    return replace(
        found, machines=tuple(machines), calibrations=tuple(sorted(stamps)), notes=tuple(notes)
    )


def calibrations(folder: RunFolder) -> list[str]:
    """The calibrations that a run's noise model started from, as the vendor calls them."""
    reader = RecordReader(folder.record)
    try:
        frames = [applied.frame.values.get("estimate") for applied in reader.applied()]
    finally:
        reader.close()
    stamps = (Estimate.from_json(text).stamp for text in frames if text)
    return sorted(set(stamps) - {TYPICAL})


def _count(machines: list[tuple[dict[str, Any], int]], machine: dict[str, Any]) -> None:
    machine = {k: v for k, v in machine.items() if k != "backend served by"}
    for i, (known, n) in enumerate(machines):
        if known == machine:
            machines[i] = (known, n + 1)
            return
    machines.append((machine, 1))
