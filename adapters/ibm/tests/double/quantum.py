"""What stands behind the double: recorded devices, and Aer to run real payloads."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ibm_quantum_schemas.common import CompressedTensorModel
from ibm_quantum_schemas.executor.version_2_0 import (
    ItemMetadataModel,
    MetadataModel,
    ParamsModel,
    QuantumProgramResultItemModel,
    QuantumProgramResultModel,
)
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel
from qiskit_ibm_runtime import fake_provider
from qiskit_ibm_runtime.fake_provider.executor.run_quantum_program import run_quantum_program
from qiskit_ibm_runtime.options_models.simulator import SimulatorOptions
from qiskit_ibm_runtime.quantum_program import QuantumProgram
from qiskit_ibm_runtime.quantum_program.converters.converters_2_0 import (
    passthrough_data_to_2_0,
    quantum_program_from_2_0,
)


@cache
def recorded(device: str) -> Any:
    """The recording of ``ibm_fez`` is FakeFez."""
    return getattr(fake_provider, f"Fake{device.removeprefix('ibm_').capitalize()}")()


@cache
def documents(device: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The device's configuration and properties as IBM sends them, under its own name."""
    fake = recorded(device)
    folder = Path(fake.dirname)
    configuration = json.loads((folder / fake.conf_filename).read_text())
    properties = json.loads((folder / fake.props_filename).read_text())
    return configuration | {"backend_name": device}, properties | {"backend_name": device}


@cache
def noise_of(device: str) -> NoiseModel:
    return NoiseModel.from_backend(recorded(device))


class Program:
    """A decoded payload of program ``executor``, schema v2.0.

    Raises:
        ValueError: it cannot be decoded.
    """

    def __init__(self, params: dict[str, Any]) -> None:
        self._program, _ = quantum_program_from_2_0(ParamsModel.model_validate(params))
        for item in self._program.items:
            if hasattr(item, "samplex"):
                item.samplex.finalize()

    @property
    def rows(self) -> list[int]:
        """Circuits of each item after broadcasting."""
        return [int(np.prod(item.shape, dtype=int)) for item in self._program.items]

    @property
    def shots(self) -> int:
        return int(self._program.shots)

    @property
    def executions(self) -> int:
        return sum(self.rows) * self.shots

    def run(self, *, device: str, seed: int, noise: bool) -> tuple[str, list[Any]]:
        """The result's text, and ⟨Z⟩ of every row and bit of every item."""
        model = noise_of(device) if noise else None
        simulator = AerSimulator(
            method="density_matrix" if noise else "statevector",
            noise_model=model,
            max_parallel_threads=1,
        )
        data, served = [], []
        for index, item in enumerate(self._program.items):
            # One program per item: the local mode would draw every item from the same seed.
            own = int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:4], "big")
            (result,) = run_quantum_program(
                simulator,
                QuantumProgram(self._program.shots, [item]),
                SimulatorOptions(seed_simulator=own, angle_decimals=12),
            )
            served.append(_expectations(result))
            results = {k: CompressedTensorModel.from_numpy(v) for k, v in result.items()}
            data.append(
                QuantumProgramResultItemModel(results=results, metadata=ItemMetadataModel())
            )
        text = QuantumProgramResultModel(
            data=data,
            metadata=MetadataModel(chunk_timing=[]),
            passthrough_data=passthrough_data_to_2_0(self._program.passthrough_data),
            semantic_role=self._program._semantic_role,
        ).model_dump_json()
        return text, served


def _expectations(item: Any) -> list[Any]:
    """Mean of (-1)^bit over shots (and randomisations, flips undone): one list a row."""
    name = next(key for key in item if not key.startswith("measurement_flips."))
    bits = np.asarray(item[name])
    if (flips := item.get(f"measurement_flips.{name}")) is not None:
        bits = bits ^ np.asarray(flips)
        means = (1 - 2 * bits.mean(axis=-2)).mean(axis=0)
    else:
        means = 1 - 2 * bits.mean(axis=-2)
    return np.atleast_2d(means).tolist()


def now() -> str:
    return datetime.now(UTC).isoformat()
