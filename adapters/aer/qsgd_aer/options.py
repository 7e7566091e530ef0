"""Options of every ``aer:…`` simulator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator


class AerOptions(BaseModel):
    """What may be asked of an Aer simulator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    noise_model: Any = Field(
        None,
        description="A NoiseModel; or a file with its to_dict() as JSON; or 'script.py:NAME' or "
        "'package.module:NAME', where NAME is a NoiseModel or a function that returns one.",
    )

    @field_validator("noise_model")
    @classmethod
    def _readable(cls, value: object) -> object:
        model = callable(getattr(value, "to_dict", None)) and hasattr(value, "noise_instructions")
        named = isinstance(value, str) and (value.endswith(".json") or ":" in value)
        if value is None or model or named or isinstance(value, Mapping):
            return value
        raise ValueError(
            "give a NoiseModel, a file whose name ends in .json, 'script.py:NAME' or "
            "'package.module:NAME'"
        )
