"""Options of the built-in perturbations, as they come from a user: validated before use."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, field_validator

from qsgd_core.circuits import Entangler

Matrix: TypeAlias = tuple[tuple[float, ...], ...]


class CircuitOptions(BaseModel):
    """Options of the perturbation ``circuit``.

    Attributes:
        entangler: the CNOTs of each layer: ``none``, ``chain`` or ``ring``.
        phases: Rz angles φ: ``zero``; ``gradient`` for π·g_i / max|g| over the block, the same in
            every layer; or radians of shape (depth, at least n_qubits), as nested lists, an array
            or a tensor.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    entangler: Entangler = "chain"
    phases: Literal["zero", "gradient"] | Matrix = "zero"

    @field_validator("phases", mode="before")
    @classmethod
    def _plain(cls, value: object) -> object:
        # numpy arrays and torch tensors alike.
        to_list = getattr(value, "tolist", None)
        return to_list() if callable(to_list) else value

    @field_validator("phases")
    @classmethod
    def _rectangular(cls, value: str | Matrix) -> str | Matrix:
        if isinstance(value, str):
            return value
        if not value or len({len(row) for row in value}) != 1 or not value[0]:
            raise ValueError("phases need the same number of columns in each row, at least one")
        if not all(math.isfinite(phase) for row in value for phase in row):
            raise ValueError("phases must be finite numbers of radians")
        return value
