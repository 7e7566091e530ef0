"""Options of the shot-budget scheduler that most runs leave alone."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Wait: TypeAlias = Literal["never", "first", "always"]
"""Whether a step waits for a result: never, for the run's first, or for each that it asks for."""


class ScheduleOptions(BaseModel):
    """``schedule={...}``, or ``--schedule KEY=VALUE``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    twin_every: int = Field(4, ge=1, description="Steps that use one evaluation of the twin.")
    on_exhausted: Literal["fallback", "freeze", "raise"] = Field(
        "fallback",
        description="When the budget denies a refresh: fall back as what was measured gets too "
        "old, keep it however old, or raise.",
    )
    max_in_flight: int = Field(8, ge=1, description="Refreshes that may be out at once.")
    max_age_steps: int | None = Field(
        None, ge=1, description="What was measured longer ago is not used."
    )
    max_age_radians: float | None = Field(
        None, gt=0, description="What was measured before an angle moved further is not used."
    )
    max_age_s: float | None = Field(
        None, gt=0, description="What was measured longer ago is not used."
    )
    first_deadline_s: float = Field(
        600.0, gt=0, description="How long the first step waits for the first result at most."
    )
    tiles: int | Literal["auto"] = Field(
        1, description="Blocks side by side in one circuit; auto: as many as fit, if cheaper."
    )
    blocks_per_refresh: int | None = Field(
        None, ge=1, description="Blocks that one refresh measures, in turns; None: all."
    )
