"""What a scheduler is told when it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Wait: TypeAlias = Literal["never", "first", "always"]
OnExhausted: TypeAlias = Literal["fallback", "freeze", "raise"]


@dataclass(frozen=True)
class Staleness:
    """How old what a step uses may be; None sets no bound.

    Attributes:
        steps: since the step it was measured at.
        radians: that any angle has moved since.
        seconds: since then.
    """

    steps: int | None = None
    radians: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class ScheduleConfig:
    """Everything but the policy.

    Attributes:
        run: the run's id on the ledger.
        budget: name of the budget that pays.
        options: vendor options, plain JSON values.
        total_steps: of the whole run, if that is known.
        wait: for no result, for the first one, or for each.
        on_exhausted: what a step does when the budget denies a refresh: go down the fallback
            ladder as far as staleness demands, stay with what it has, or raise.
        max_in_flight: refreshes that may be out at once.
        max_age: beyond it what was measured is not used.
        first_deadline_s: how long the first step waits for the first result at most.
        tiles: blocks side by side in one circuit; ``auto``: as many as fit where that is cheaper.
        blocks_per_refresh: blocks measured by one refresh, in turns; None for all.
        seed: of the run.
        record: path of the run's record; None keeps none.
        header: what the record says of the run.
    """

    run: str
    budget: str
    options: dict[str, Any] = field(default_factory=dict)
    total_steps: int | None = None
    wait: Wait = "first"
    on_exhausted: OnExhausted = "fallback"
    max_in_flight: int = 8
    max_age: Staleness = Staleness()
    first_deadline_s: float = 600.0
    tiles: int | Literal["auto"] = 1
    blocks_per_refresh: int | None = None
    seed: int = 0
    record: str | None = None
    header: dict[str, Any] = field(default_factory=dict)
