"""The simulators ``braket:local`` and ``braket:dm``, on the SDK's LocalSimulator.

The SDK's own shots cannot be seeded and are formatted as text bit by bit. So each row asks for its
probabilities, which is the same simulation, and the shots are drawn here: seeded, with the same
law, in about a third of the time.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from braket.devices import LocalSimulator
from braket.ir.openqasm import Program

from qsgd_braket import translate
from qsgd_braket.local.sampling import expectations, sample
from qsgd_braket.options import DensityMatrixOptions
from qsgd_core.backend import Simulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.errors import BackendError, ConfigError
from qsgd_core.jobs import Bits, Expectations, Part, Result
from qsgd_core.seeds import derive_seed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from qsgd_core.circuits import CircuitBatch, Workload

DELEGATES = {"braket:local": "braket_sv", "braket:dm": "braket_dm"}


class BraketLocal(Simulator):
    """Braket's state vector, or its density matrix with the user's noise.

    Args:
        name: a key of :data:`DELEGATES`.
        options: for ``braket:dm``.

    Raises:
        ConfigError: a noise model that cannot be read.
    """

    def __init__(self, name: str, options: DensityMatrixOptions | None = None) -> None:
        self.name = name
        self._device = LocalSimulator(DELEGATES[name])
        data = None if options is None else options.noise_model
        self._noise = None if data is None else _noise(data)
        self.capabilities = Capabilities(
            exact=True,
            sampled=True,
            seeded=True,
            noisy=self._noise is not None,
            max_qubits=int(self._device.properties.paradigm.qubitCount),
            # Every bit is kept, one byte each: this bounds a call's memory to 64 MiB per qubit.
            max_executions=2**26,
        )

    def run(self, work: Workload, *, shots: int | None, seed: int) -> Result:
        """Every row of every batch; each batch has a generator of its own, derived from ``seed``.

        Raises:
            CapabilityError: the workload does not fit.
            BackendError: the SDK failed.
        """
        self.capabilities.require(self.name, work, shots=shots)
        return Result(
            tuple(
                self._part(batch, shots, derive_seed(seed, "batch", index))
                for index, batch in enumerate(work.batches)
            )
        )

    def _part(self, batch: CircuitBatch, shots: int | None, seed: int) -> Part:
        if shots is None:
            rows = [expectations(p, batch.observables) for p in self._probabilities(batch)]
            return Expectations(np.stack(rows))
        rng = np.random.default_rng(seed)
        bits = np.empty((batch.n_rows, shots, batch.circuit.n_qubits), dtype=np.uint8)
        for row, p in enumerate(self._probabilities(batch)):
            bits[row] = sample(p, shots=shots, rng=rng)
        return Bits(bits)

    def _probabilities(self, batch: CircuitBatch) -> Iterator[NDArray[np.float64]]:
        """float64 (2**n,) of each row in order; one row at a time is held."""
        source = translate.probabilities(batch.circuit, self._noise)
        for angles in batch.angles.tolist():
            inputs = {f"p{k}": angle for k, angle in enumerate(angles)}
            try:
                with warnings.catch_warnings():
                    # braket:dm without noise is what was asked for.
                    warnings.filterwarnings("ignore", message="You are running a noise-free")
                    task = self._device.run(Program(source=source, inputs=inputs or None), shots=0)
                values = task.result().values[0]
            except Exception as error:  # whatever the SDK raises is its failure, not a crash
                raise BackendError(
                    f"{self.name} failed: {type(error).__name__}: {error}. The circuit was:\n"
                    f"{source}"
                ) from error
            yield np.asarray(values, dtype=np.float64)


def _noise(data: dict[str, object]) -> translate.Noise:
    try:
        return translate.Noise(data)
    except Exception as error:  # the SDK checks nothing: any error means that it is no noise model
        raise ConfigError(
            f"The option noise_model of braket:dm cannot be read ({type(error).__name__}: {error})."
            " Give what NoiseModel.to_dict() of the Braket SDK returns, as JSON."
        ) from error
