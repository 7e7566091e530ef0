"""Options of every control."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ControlOptions(BaseModel):
    """What a control is matched to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    match: str = Field(
        "sine",
        min_length=1,
        description="Quantum perturbation whose RMS the control takes on: sine, circuit, …",
    )
