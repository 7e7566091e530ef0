"""From a run's folder to a document."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from qsgd_core.cli.show.report import about
from qsgd_core.cli.show.words import effect
from qsgd_core.errors import ConfigError
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.training.folder.folder import RunFolder, RunRecord, read_record
from qsgd_core.training.folder.report import Report
from qsgd_core.training.folder.report import report as gather
from qsgd_lab.compare.text import between_times
from qsgd_lab.report import hardware, run_figures
from qsgd_lab.report.backstage import calibrations
from qsgd_lab.report.commands import train_command
from qsgd_lab.report.document import (
    Block,
    Code,
    Document,
    Fold,
    Paragraph,
    Section,
    pairs,
)


def document(folder: RunFolder, open_ledger: Callable[[], Ledger]) -> Document:
    """The page about a run; also while it is going on.

    Args:
        folder: the run's.
        open_ledger: called for a run on a backend.

    Raises:
        ConfigError: the folder holds no run with a record, or one that cannot be read.
    """
    found = gather(folder, open_ledger)
    record = read_record(folder)
    rows = _epochs(folder)
    figures = [run_figures.metric(rows, "loss"), run_figures.metric(rows, "accuracy")]
    shown = dict(about(found))
    place = shown.pop("run")
    worth, *spending = hardware.of_run(found, folder) or [Section("", ())]
    return Document(
        kind="run",
        title=f"{found.task}, {found.perturbation}, seed {found.seed}",
        lead=f"A run of QSGD: {place}.",
        sections=(
            Section("In short", (*_notes(found), pairs(list(shown.items())))),
            worth,
            Section("Training", tuple(figure for figure in figures if figure is not None)),
            Section("Effect size", _effect(found, rows)),
            *spending,
            Section("What happened", _events(found)),
            Section("Provenance", _provenance(found, record, folder)),
        ),
    )


def _notes(found: Report) -> tuple[Block, ...]:
    return tuple(Paragraph(note, "alert") for note in found.notes)


def _effect(found: Report, rows: list[Mapping[str, Any]]) -> tuple[Block, ...]:
    figure = run_figures.effect(rows)
    if figure is not None:
        return (figure,)
    none = "The term was zero."
    if not any(found.sources.values()):
        none = "No step had a term."
    elif found.effect_size is not None and found.effect_size["mean"] != 0:
        none = f"The effect size is {effect(found.effect_size)}."
    return (Paragraph(none),) if rows else ()


def _events(found: Report) -> tuple[Block, ...]:
    if not found.events:
        return ()
    rows = [
        (f"step {e['step']:,}, {e['kind']}", f"{_clock(e['wall'])} UTC. {e['message']}")
        for e in found.events
    ]
    return (pairs(rows),)


def _provenance(found: Report, record: RunRecord, folder: RunFolder) -> tuple[Block, ...]:
    rows = [("run", found.run), ("task", record.source or f"{record.task}, handed over in Python")]
    rows += [(f"task, {name}", str(value)) for name, value in record.identity.items()]
    rows += [] if record.data is None else [("data", record.data)]
    rows += [(name, str(value)) for name, value in record.environment.items()]
    if found.ended_at is not None:
        rows.append(("ended", between_times([found.ended_at]) or ""))
    if (sent := hardware.submitted([found])) is not None:
        rows.append(("jobs sent", sent))
    if found.hardware is not None and (stamps := calibrations(folder)):
        rows.append(("calibrations", ", ".join(stamps)))
    settings = [(k, "–" if v is None else str(v)) for k, v in record.config.to_dict().items()]
    blocks: list[Block] = [pairs(rows)]
    if (line := train_command(record)) is not None:
        blocks += [Paragraph("This line trains it again:"), Code(line)]
    return (*blocks, Fold("Settings", (pairs(settings),)))


def _epochs(folder: RunFolder) -> list[Mapping[str, Any]]:
    """Lines of metrics.jsonl; none before the first epoch has ended."""
    try:
        lines = folder.metrics.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder.metrics} cannot be read ({type(error).__name__}: {error}). Restore it from "
            "a copy."
        ) from error


def _clock(wall: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(wall))
