"""Where a paid run stands, as a panel above the progress bar: money, refreshes, s, trouble."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from qsgd_core.cli.show.bars import budget_bar
from qsgd_core.cli.show.words import duration, spoken
from qsgd_core.events import Event, RunStarted, ScheduleChanged, StepTaken

ENDS = {
    "asked": ("denied", "recalibrated"),
    "answered": ("failed", "late", "outage", "stopped"),
    "applied": ("fell back",),
    "reached": ("outage", "stopped"),
}
"""What is over once something else has happened."""
TROUBLE = {
    "audit": "audit",
    "denied": "budget",
    "failed": "refresh failed",
    "fell back": "fallen back",
    "late": "late",
    "left": "still running",
    "outage": "no answer",
    "overrun": "overbilled",
    "partial": "partial",
    "recalibrated": "recalibrated",
    "stopped": "courier",
    "stuck": "one job",
}
"""What stays on the panel until it is over, and what it is called there."""


class SchedulePanel:
    """An observer that is rendered; empty until a scheduler has said something.

    Args:
        clock: seconds since the epoch, for dates.
        timer: seconds from any origin, never set back, for durations.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._timer = timer
        self._status: Mapping[str, Any] = {}
        self._config: Mapping[str, Any] = {}
        self._step = 0
        self._began_at = 0
        self._sources: Counter[str] = Counter()
        self._taken: str | None = None
        self._trouble: dict[str, str] = {}
        self._asked_at: float | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._config, self._step, self._began_at = event.config, event.step, event.step
            case StepTaken():
                self._step = event.step
                self._sources[event.source] += 1
                self._taken = event.source
            case ScheduleChanged():
                self._changed(event)

    def _changed(self, event: ScheduleChanged) -> None:
        self._status = event.status
        if event.what == "asked" and self._asked_at is None:
            self._asked_at = self._timer()
        for over in ENDS.get(event.what, ()):
            self._trouble.pop(over, None)
        if event.what in TROUBLE:
            self._trouble[event.what] = event.message

    def renderables(self, remaining_s: float | None) -> Iterator[Panel]:
        """The panel, if there is anything to show.

        Args:
            remaining_s: how long the run still takes; None if unknown.
        """
        if not self._status:
            return
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in self._rows(remaining_s):
            table.add_row(name, Text(value))
        for what, message in self._trouble.items():
            table.add_row(Text(TROUBLE[what], style="yellow"), Text(message, style="yellow"))
        title = self._status["backend"] or self._config.get("backend") or "backend"
        yield Panel(table, title=Text(str(title)), title_align="left", expand=True)

    def _rows(self, remaining_s: float | None) -> Iterator[tuple[str, str]]:
        status = self._status
        for cap in status["caps"]:
            yield "budget", self._budget(cap)
        yield "refreshes", self._refreshes()
        yield "s now", self._now()
        if taken := sum(self._sources.values()):
            shares = (f"{k} {100 * n / taken:.3g} %" for k, n in self._sources.most_common())
            since = f" (since step {self._began_at:,})" if self._began_at else ""
            yield "s so far", ", ".join(shares) + since
        if remaining_s:
            at = time.strftime("%H:%M:%S", time.localtime(self._clock() + remaining_s))
            yield "ends", f"about {at}, in {duration(remaining_s)}"

    def _budget(self, cap: Mapping[str, Any]) -> str:
        unit, most = cap["unit"], cap["cap"]
        paced = self._config.get("every") is None and self._status["planned"] is not None
        planned = self._status["planned"] if paced else None
        said = f"{spoken(unit, cap['spent'])} of {spoken(unit, most)}"
        if cap["reserved"]:
            said += f", {spoken(unit, cap['reserved'])} held"
        if planned is not None:
            said += f", plan {spoken(unit, round(planned * most))}"
        if cap["overrun"]:
            said += f"; frozen: {spoken(unit, cap['overrun'])} billed above holds"
        return f"{budget_bar(cap['spent'] / most, cap['reserved'] / most, planned)} {said}"

    def _refreshes(self) -> str:
        status = self._status
        said = [f"{status['arrived']} arrived", f"{status['in_flight']} under way"]
        if status["affordable"] is not None:
            said.append(f"the budget pays for about {int(status['affordable'])} more")
        if status["queue_s"] is not None:
            said.append(f"a result takes {duration(status['queue_s'])}")
        return ", ".join(said)

    def _now(self) -> str:
        status = self._status
        source, measured_at = status["source"], status["measured_at"]
        if source == "measured" and self._taken == "held":  # the scheduler tells of changes only
            source = "held"
        if source is None:
            if self._asked_at is None or self._config.get("wait") == "never":
                return "nothing yet"
            return f"waiting for the first result for {duration(self._timer() - self._asked_at)}"
        if source in ("measured", "held", "tracked") and measured_at is not None:
            return f"{source}, measured {max(self._step - measured_at, 0):,} steps ago"
        return f"{source}: {NOT_MEASURED[source]}"


NOT_MEASURED = {
    "nominal": "a model of the device that no result has corrected",
    "random": "drawn at random, as large as the last result was",
    "zero": "no term at all",
}
