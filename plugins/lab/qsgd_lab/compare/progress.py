"""Shows a comparison as it goes, on stderr: bars in a terminal, a line per run elsewhere."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from qsgd_lab.compare.plan import ComparisonPlan, RunKey
from qsgd_lab.compare.runs import RunOutcome, how_far

LOOK_S = 0.5
"""Seconds between two looks at how far the runs have come."""


class ComparisonProgress:
    """One bar for the whole, one for each run that is going on. Enter it around the comparison."""

    def __init__(self, home: Path, plan: ComparisonPlan, console: Console) -> None:
        self._home = home
        self._console = console
        self._left = {key.name: key for key in plan.every_run()}
        self._of = len(self._left)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._whole = self._bars.add_task("runs", total=self._of)
        self._rows: dict[str, TaskID] = {}
        self._changing = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ComparisonProgress:
        if self._console.is_terminal:
            self._bars.start()
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._console.is_terminal:
            self._thread.join()
            self._bars.stop()

    def __call__(self, key: RunKey, outcome: RunOutcome) -> None:
        """A run has ended."""
        with self._changing:
            self._left.pop(key.name, None)
            if (row := self._rows.pop(key.name, None)) is not None:
                self._bars.remove_task(row)
        done = self._of - len(self._left)
        self._bars.update(self._whole, completed=done)
        if outcome.state == "failed" or not self._console.is_terminal:
            line = f"[{done}/{self._of}] {key.arm} seed {key.seed}: {_became(outcome)}"
            self._console.print(line, markup=False, highlight=False)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            with self._changing:
                for key in self._left.values():
                    self._show(key)

    def _show(self, key: RunKey) -> None:
        step, of = how_far(self._home, key)
        if not step:
            return
        if key.name not in self._rows:
            self._rows[key.name] = self._bars.add_task(f"{key.arm} seed {key.seed}", total=of)
        self._bars.update(self._rows[key.name], completed=step, total=of)


def _became(outcome: RunOutcome) -> str:
    if outcome.summary is None:
        return outcome.state if outcome.error is None else f"{outcome.state}: {outcome.error}"
    said = [f"{outcome.summary['wall_s']:.1f} s"]
    for name in ("accuracy", "loss"):
        if (value := outcome.summary.get(name)) is not None:
            said.append(f"{name} {value:.4f}")
    return f"{outcome.state}, {', '.join(said)}"
