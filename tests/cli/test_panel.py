"""The live panel of a paid run: what a person reads while it goes, and that nobody else pays."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console, Group

from qsgd_core.cli.show.bars import WIDTH, budget_bar
from qsgd_core.cli.show.panel import ENDS, TROUBLE, SchedulePanel
from qsgd_core.cli.show.progress import ProgressBar
from qsgd_core.events import (
    BatchTrained,
    EpochEnded,
    Event,
    RunEnded,
    RunStarted,
    ScheduleChanged,
    StepTaken,
)

CAP = {"budget": "b", "unit": "micro_usd", "cap": 25_000_000, "reserved": 0, "spent": 0}
CAP |= {"overrun": 0}
STATUS: dict[str, Any] = {
    "backend": "ibm_fez",
    "caps": [CAP | {"reserved": 2_500_000, "spent": 10_000_000}],
    "planned": 0.5,
    "asked": 5,
    "arrived": 4,
    "in_flight": 1,
    "source": "tracked",
    "measured_at": 90,
    "affordable": 4.9,
    "queue_s": 754.0,
    "total_steps": 200,
}
CONFIG = {"epochs": 2, "every": None, "wait": "first", "backend": "ibm_fez"}


def changed(what: str, message: str = "", step: int = 100, **status: Any) -> ScheduleChanged:
    return ScheduleChanged(step, what=what, message=message, status=STATUS | status)


def shown(*events: Event, remaining_s: float | None = None, now: float = 1000.0) -> str:
    """What the panel shows after these events, on one line without frame."""
    panel = SchedulePanel(clock=lambda: now)
    for event in events:
        panel(event)
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(Group(*panel.renderables(remaining_s)))
    return " ".join(console.export_text().replace("│ ", " ").split())


STARTED = RunStarted(0, config=CONFIG, total_steps=200)


def test_a_run_without_a_scheduler_has_no_panel():
    assert shown(STARTED, StepTaken(1, source="exact")) == ""


def test_the_panel_says_money_refreshes_age_and_sources():
    steps = [StepTaken(k, source="nominal" if k <= 25 else "tracked") for k in range(1, 101)]
    text = shown(STARTED, *steps, changed("applied"), remaining_s=600.0)
    assert "ibm_fez" in text
    assert "$10.00 of $25.00, $2.50 held, plan $12.50" in text
    assert "4 arrived, 1 under way, the budget pays for about 4 more" in text
    assert "a result takes 12.6 min" in text
    assert "tracked, measured 10 steps ago" in text
    assert "tracked 75 %, nominal 25 %" in text
    assert "in 10.0 min" in text


def test_the_panel_says_that_a_result_is_held_once_a_later_step_uses_it():
    first = changed("applied", source="measured", measured_at=100)
    then = [StepTaken(101, source="measured"), StepTaken(105, source="held")]
    assert "measured, measured" in shown(STARTED, first, then[0])
    assert "held, measured 5 steps ago" in shown(STARTED, first, *then)


def test_with_a_fixed_interval_there_is_no_plan_to_keep():
    started = RunStarted(0, config=CONFIG | {"every": 10})
    assert "plan" not in shown(started, changed("applied"))


def test_a_frozen_budget_is_told():
    caps = [CAP | {"spent": 5_000_000, "overrun": 1_000_000}]
    assert "frozen: $1.00 billed above holds" in shown(STARTED, changed("answered", caps=caps))


def test_waiting_for_the_first_result_counts_the_seconds():
    nothing = {"source": None, "measured_at": None, "arrived": 0}
    panel = SchedulePanel(timer=iter([1000.0, 1042.0]).__next__)
    for event in (STARTED, changed("asked", step=0, **nothing)):
        panel(event)
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(*panel.renderables(None))
    assert "waiting for the first result for 42.0 s" in console.export_text()


@pytest.mark.parametrize(
    ("trouble", "over"),
    [
        ("denied", "asked"),
        ("outage", "reached"),
        ("stopped", "answered"),
        ("fell back", "applied"),
        ("failed", "answered"),
    ],
)
def test_trouble_is_shown_until_it_is_over(trouble, over):
    begins = changed(trouble, "something [is] wrong")
    assert "something [is] wrong" in shown(STARTED, begins)
    assert "something [is] wrong" in shown(STARTED, begins, StepTaken(101, source="nominal"))
    assert "wrong" not in shown(STARTED, begins, changed(over))


def test_what_is_not_measured_is_said_in_words():
    text = shown(STARTED, changed("fell back", source="nominal"))
    assert "nominal: a model of the device that no result has corrected" in text


def test_the_panel_knows_everything_that_a_scheduler_says():
    doc = (ScheduleChanged.__doc__ or "").split("what:")[1].split(".")[0]
    said = {" ".join(part.split()) for part in doc.replace(" or ", ",").split(",")}
    assert said == {*TROUBLE, *ENDS, "planned"}


@pytest.mark.parametrize(
    ("spent", "held", "planned", "bar"),
    [
        (0.0, 0.0, None, "·" * WIDTH),
        (0.5, 0.25, None, "█" * 20 + "▒" * 10 + "·" * 10),
        (1.0, 0.0, 1.0, "█" * 39 + "│"),
        (0.9, 0.9, 0.0, "│" + "█" * 35 + "▒" * 4),
    ],
)
def test_a_bar_is_as_wide_as_the_cap(spent, held, planned, bar):
    assert budget_bar(spent, held, planned) == bar


# --- together with the progress bar --------------------------------------------------------------


class Reading:
    """A value on a device that counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def __float__(self) -> float:
        self.reads += 1
        return 0.25


def a_run(effect: object, loss: object) -> list[Event]:
    """A hundred steps of two epochs."""
    events: list[Event] = [STARTED, changed("planned", "4 refreshes [for $10].", step=0)]
    for step in range(1, 101):
        events.append(StepTaken(step, effect_size=effect, source="tracked"))
        events.append(BatchTrained(step, epoch=1, batch=step, loss=loss))
    row = {"epoch": 1, "step": 100, "train_loss": 0.5, "effect_size": 0.01, "accuracy": 0.9}
    return [*events, changed("applied"), EpochEnded(100, epoch=1, metrics=row), RunEnded(100)]


def test_elsewhere_than_in_a_terminal_there_are_lines_and_nothing_is_read():
    effect, file = Reading(), io.StringIO()
    with ProgressBar(Console(file=file, width=120)) as bar:
        for event in a_run(effect, effect):
            bar(event)
    assert file.getvalue().splitlines() == [
        "4 refreshes [for $10].",
        "epoch 1/2  loss 0.500  accuracy 90.0 %  effect 1.0 %",
    ]
    assert effect.reads == 0


def test_in_a_terminal_the_panel_is_above_the_bar(monkeypatch):
    ticks = iter(range(10_000))
    monkeypatch.setattr("qsgd_core.cli.show.progress.time.monotonic", lambda: next(ticks) / 20)
    effect, loss, file = Reading(), Reading(), io.StringIO()
    with ProgressBar(Console(file=file, force_terminal=True, width=120)) as bar:
        for event in a_run(effect, loss):
            bar(event)
        frame = Console(record=True, width=120, file=io.StringIO())
        frame.print(Group(*bar._bar.get_renderables()))
    lines = frame.export_text().splitlines()
    assert lines[0].startswith("╭─ ibm_fez")
    assert "effect 1" in lines[-1]
    assert "4 refreshes [for $10]." in file.getvalue()
    assert 0 < effect.reads == loss.reads <= 1 + next(ticks) / 20  # once a second of the clock


def test_the_effect_size_may_be_a_tensor():
    with ProgressBar(Console(file=io.StringIO(), force_terminal=True)) as bar:
        for event in a_run(torch.tensor(0.25), torch.tensor(1.5)):
            bar(event)
        assert bar._figures["effect"] == "1.0 %"  # the epoch's
