"""Vendor options, validated before anything is sent."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Mitigation: TypeAlias = Literal["none", "twirl", "readout", "dd"]


class TranspileOptions(BaseModel):
    """How circuits are fitted to a device. Part of what identifies a noise law."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    optimization_level: int = Field(2, ge=0, le=3, description="Qiskit's level.")
    seed_transpiler: int = Field(0, ge=0, lt=2**31, description="Seed of the layout search.")
    initial_layout: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None,
        description="Physical qubits for qubits 0 … n-1; None lets the transpiler choose once.",
    )

    @model_validator(mode="after")
    def _distinct(self) -> TranspileOptions:
        layout = self.initial_layout
        if layout is not None and (not layout or len(set(layout)) != len(layout)):
            raise ValueError(f"initial_layout must name distinct qubits, not {list(layout)}")
        return self


class FakeOptions(TranspileOptions):
    """Options of ``fake_*``."""


class IBMOptions(TranspileOptions):
    """Options of ``ibm_*``."""

    mitigation: Mitigation = Field(
        "none",
        description="twirl: gates and readout; readout: readout twirling only; dd: decoupling.",
    )
    rep_delay: float | None = Field(
        None, ge=0, le=0.01, description="Seconds between shots; None is the device's default."
    )
    instance: str | None = Field(
        None, description="CRN or name of the instance; None leaves it to the saved account."
    )
    usd_per_s: float | None = Field(
        None, gt=0, description="Price of a QPU second; None is your plan's, where it is known."
    )
    find_horizon_s: float = Field(
        300.0, ge=0, description="For this long a job that is not listed may exist all the same."
    )
