"""Options of every ``pennylane:…`` simulator: the device's own, handed on as they are."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

RESERVED = {
    "wires": "they follow from the circuits",
    "shots": "give the run's shots, such as --shots 1024",
    "seed": "it follows from the run's seed",
}
"""Arguments of ``qml.device`` that are not the user's to give, and why."""


class PennyLaneOptions(BaseModel):
    """Keyword arguments of ``qml.device``, whatever the device takes: ``c_dtype``, ``method``, …"""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _not_ours(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name, why in RESERVED.items():
            if name in given:
                raise ValueError(f"{name} cannot be given: {why}")
        return given

    @property
    def arguments(self) -> dict[str, Any]:
        """What to hand to ``qml.device``."""
        return dict(self.model_extra or {})
