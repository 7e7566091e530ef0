"""The simulator: a workload in, one part per batch out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsgd_core.backend import Simulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import CircuitBatch, Workload
from qsgd_core.errors import BackendError
from qsgd_core.jobs import Bits, Expectations, Part, Result
from qsgd_core.seeds import derive_seed
from qsgd_example import vendor
from qsgd_example.translate import draw, expectations, program


class ExampleSimulator(Simulator):
    """Runs circuits on the vendor's state vector.

    Args:
        name: the name it was asked for by.
        options: none are taken.
    """

    def __init__(self, name: str, options: None = None) -> None:
        self.name = name
        # What is claimed here is what the conformance kit tests.
        self.capabilities = Capabilities(
            exact=True,
            sampled=True,
            seeded=True,
            max_qubits=10,
            max_executions=2**22,
        )

    def run(self, work: Workload, *, shots: int | None, seed: int) -> Result:
        """Bits of every batch, or expectation values when ``shots`` is None."""
        self.capabilities.require(self.name, work, shots=shots)
        parts: list[Part] = []
        for index, batch in enumerate(work.batches):
            rows = self._probabilities(batch)
            if shots is None:
                values = [expectations(row, batch.observables) for row in rows]
                parts.append(Expectations(np.stack(values)))
            else:
                # One generator per batch: its rows take turns at it, so they are independent.
                rng = np.random.default_rng(derive_seed(seed, "example", index))
                n = batch.circuit.n_qubits
                parts.append(Bits(np.stack([draw(row, n, shots, rng) for row in rows])))
        return Result(tuple(parts))

    def _probabilities(self, batch: CircuitBatch) -> list[NDArray[np.float64]]:
        try:
            return [
                vendor.probabilities(program(batch.circuit, row), batch.circuit.n_qubits)
                for row in batch.angles
            ]
        except vendor.VendorError as error:
            raise BackendError(f"{self.name!r} failed: {error}") from error
