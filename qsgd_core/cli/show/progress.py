"""Shows a run as it goes, on stderr: bar and panel in a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from qsgd_core.cli.show.panel import SchedulePanel
from qsgd_core.cli.show.words import number, percent
from qsgd_core.events import (
    BatchTrained,
    EpochEnded,
    Event,
    RunEnded,
    RunStarted,
    ScheduleChanged,
    StepTaken,
)

MOVE_S = 0.2
"""Seconds between two movements of the bar."""
READ_S = 1.0
"""Seconds between two readings of the loss and effect size, each of which synchronises."""


class Screen(Progress):
    """A progress bar below a panel."""

    def __init__(self, panel: SchedulePanel, console: Console) -> None:
        self._panel = panel
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=4,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Panel and bar."""
        remaining = self.tasks[0].time_remaining if self.tasks else None
        yield from self._panel.renderables(remaining)
        yield self.make_tasks_table(self.tasks)


class ProgressBar:
    """An observer with a screen. Enter it around the run."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._panel = SchedulePanel()
        self._bar = Screen(self._panel, console)
        self._task: TaskID | None = None
        self._epochs: Any = "?"
        self._figures: dict[str, str] = {}
        self._effect: Any = None
        self._shown_at = 0.0
        self._read_at = 0.0

    def __enter__(self) -> ProgressBar:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        self._panel(event)
        match event:
            case ScheduleChanged(what="planned"):  # all else of note is in the log, on stderr too
                self._console.print(event.message, markup=False, highlight=False)
            case RunStarted():
                self._epochs = event.config.get("epochs", "?")
                self._task = self._bar.add_task(
                    "starting", total=event.total_steps, completed=event.step, figures=""
                )
            case StepTaken():
                self._effect = event.effect_size
                if self._effect is None and event.source != "zero":
                    self._figures["effect"] = percent(None)
            case BatchTrained():
                self._batch(event)
            case EpochEnded():
                self._epoch(event)
            case RunEnded():
                self._show(event.step)

    def _batch(self, event: BatchTrained) -> None:
        now = time.monotonic()
        if not self._console.is_terminal or now - self._shown_at < MOVE_S:
            return
        if now - self._read_at >= READ_S:
            self._read_at = now
            self._figures["loss"] = number(float(event.loss), ".3f")
            if self._effect is not None:
                self._figures["effect"] = percent(float(self._effect))
        self._show(event.step, event.epoch)

    def _epoch(self, event: EpochEnded) -> None:
        row = event.metrics
        self._figures["loss"] = number(row["train_loss"], ".3f")
        if "accuracy" in row:
            self._figures["accuracy"] = percent(row["accuracy"])
        if row["effect_size"] != 0:
            self._figures["effect"] = percent(row["effect_size"])
        self._show(event.step, event.epoch)
        if not self._console.is_terminal:
            self._console.print(f"epoch {event.epoch}/{self._epochs}  {self._line()}")

    def _show(self, step: int, epoch: int | None = None) -> None:
        if self._task is None:
            return
        self._shown_at = time.monotonic()
        self._bar.update(self._task, completed=step, figures=self._line())
        if epoch is not None:
            self._bar.update(self._task, description=f"epoch {epoch}/{self._epochs}")

    def _line(self) -> str:
        return "  ".join(f"{name} {value}" for name, value in self._figures.items())
