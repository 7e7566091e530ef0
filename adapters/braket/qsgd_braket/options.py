"""What users may set, validated before use. All of it is plain JSON; none of it is a secret."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class DensityMatrixOptions(BaseModel):
    """Options of ``braket:dm``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    noise_model: dict[str, Any] | None = Field(
        None,
        description="A braket.circuits.noise_model.NoiseModel in its JSON form, "
        "as noise_model.to_dict() gives it. None: no noise.",
    )


class DeviceOptions(BaseModel):
    """Options of AWS devices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    s3_bucket: str | None = Field(
        None,
        min_length=3,
        description="Bucket for results; AMZN_BRAKET_OUT_S3_BUCKET or Braket's default otherwise.",
    )
    s3_prefix: str = Field("qsgd", min_length=1, description="Folder in that bucket.")
    region: str | None = Field(
        None,
        min_length=1,
        description="Region of an on-demand simulator; a QPU's region is in its ARN.",
    )
    price_per_task_usd: float | None = Field(
        None, ge=0, description="Fee of one task on a QPU, instead of the listed one."
    )
    price_per_shot_usd: float | None = Field(
        None, ge=0, description="Price of one shot on a QPU, instead of the device's own figure."
    )
    price_per_minute_usd: float | None = Field(
        None, ge=0, description="Price of a minute of an on-demand simulator, likewise."
    )
    find_horizon_s: float = Field(
        900.0, ge=0, description="For this long a task that is not listed may exist all the same."
    )
    """SearchQuantumTasks promises nothing about how soon a task shows up; nobody reported a longer
    lag than minutes."""
