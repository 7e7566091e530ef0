"""The simulators ``aer:METHOD[@gpu]``: all rows of all batches in one run of Aer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.result.models import ExperimentResult
from qiskit_aer import AerSimulator

from qsgd_aer import translate
from qsgd_aer.noise import AerNoise
from qsgd_aer.noise_files import load
from qsgd_aer.options import AerOptions
from qsgd_core.backend import Simulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import Circuit, CircuitBatch, Workload, ZString
from qsgd_core.errors import BackendError, CapabilityError
from qsgd_core.jobs import Bits, Expectations, Part, Result
from qsgd_core.seeds import derive_seed

ONE_THREAD_QUBITS = 12
"""Up to here one thread is faster than OpenMP's start, by far on a machine that has other work."""

MAX_EXECUTIONS = 2**26
"""Every bit is kept, one byte each: this bounds a call's memory to 64 MiB per qubit."""

_Structure = tuple[Circuit, tuple[ZString, ...] | None]


class Aer(Simulator):
    """One method of Aer, ideal or under a noise model.

    Raises:
        CapabilityError: a GPU is asked for and Aer sees none.
        ConfigError: the noise model cannot be found or read.
    """

    def __init__(self, name: str, options: AerOptions | None = None) -> None:
        self.name = name
        method, _, device = name.partition(":")[2].partition("@")
        self._require(device.upper() or "CPU")
        model = load(options.noise_model if options else None)
        self._noise = None if model is None else AerNoise(model)
        self._simulator = AerSimulator(
            method=method, device=device.upper() or "CPU", noise_model=model
        )
        self._prepared: dict[_Structure, QuantumCircuit] = {}
        # A pure state under noise is one random trajectory a shot, so its expectation values are
        # samples; and an error in the measurement is no part of a state.
        exact = self._noise is None or (
            method == "density_matrix" and not self._noise.in_measurement
        )
        limits = [self._simulator.configuration().n_qubits]
        if self._noise is not None and self._noise.n_qubits is not None:
            limits.append(self._noise.n_qubits)
        self.capabilities = Capabilities(
            exact=exact,
            sampled=True,
            seeded=True,
            noisy=self._noise is not None,
            max_qubits=min(limits),
            max_executions=MAX_EXECUTIONS,
            default_shots=None if exact else 1024,
        )

    def run(self, work: Workload, *, shots: int | None, seed: int) -> Result:
        """Bits of every row, or expectation values when ``shots`` is None; see the contract."""
        self.capabilities.require(self.name, work, shots=shots)
        runs = _Runs([], [])
        for batch in work.batches:
            runs.add(self._prepare(batch, measure=shots is not None), batch)
        results = self._run(runs, work.n_qubits, shots, seed)
        rng = np.random.default_rng(derive_seed(seed, "aer", "order"))
        parts: list[Part] = []
        start = 0
        for batch in work.batches:
            rows = results[start : start + batch.n_rows]
            start += batch.n_rows
            parts.append(
                _exact(rows, batch) if shots is None else _sampled(rows, batch, shots, rng)
            )
        return Result(tuple(parts))

    def _prepare(self, batch: CircuitBatch, *, measure: bool) -> QuantumCircuit:
        """The batch's circuit for Aer; made once per structure, and kept."""
        structure: _Structure = (batch.circuit, None if measure else batch.observables)
        if structure not in self._prepared:
            circuit = translate.to_qiskit(batch.circuit, measure=measure)
            places: Sequence[int] | None = None
            if self._noise is not None:
                circuit = self._noise.transpile(circuit, self.name)
                moved = circuit.layout is not None
                places = circuit.layout.final_index_layout() if moved else range(circuit.num_qubits)
            if not measure:
                circuit = translate.save_expectations(circuit, batch.observables, places=places)
            self._prepared[structure] = circuit
        return self._prepared[structure]

    def _run(
        self, runs: _Runs, n_qubits: int, shots: int | None, seed: int
    ) -> list[ExperimentResult]:
        """One result per row, in order."""
        try:
            result = self._simulator.run(
                runs.circuits,
                parameter_binds=runs.binds,
                shots=shots or 1,
                # Aer gives row i the seed s + 2113·i: hashed, no two calls come near each other.
                seed_simulator=derive_seed(seed, "aer"),
                max_parallel_threads=1 if n_qubits <= ONE_THREAD_QUBITS else 0,
                # Aer's own singular values are good to 1e-10, LAPACK's to 1e-15.
                mps_lapack=shots is None,
                # See translate.save_expectations: without noise there are no qubits to cut.
                enable_truncation=self._noise is not None,
            ).result()
        except Exception as error:  # Aer raises AerError, RuntimeError, TypeError and its own C++
            raise BackendError(
                f"Backend {self.name!r} failed: {type(error).__name__}: {error}"
            ) from error
        if not result.success:
            raise BackendError(
                f"Backend {self.name!r} failed: {result.status} "
                "Use fewer qubits, or 'aer:matrix_product_state', which needs less memory."
            )
        return list(result.results)

    def _require(self, device: str) -> None:
        # Of a simulator without a device in its name: one made for the GPU claims to have it.
        found = AerSimulator().available_devices()
        if device not in found:
            raise CapabilityError(
                f"Backend {self.name!r} cannot run here.",
                [
                    f"Aer sees these devices: {', '.join(found)}. A GPU needs Linux, CUDA and "
                    "Aer's GPU build: pip uninstall qiskit-aer && pip install qiskit-aer-gpu. "
                    f"Without a GPU: {self.name.partition('@')[0]!r}."
                ],
            )


@dataclass(frozen=True)
class _Runs:
    """What one run of Aer gets: circuits, and for each its table of parameter values."""

    circuits: list[QuantumCircuit]
    binds: list[dict[Parameter, list[float]]]

    def add(self, circuit: QuantumCircuit, batch: CircuitBatch) -> None:
        """One entry for all rows; without a parameter to tell the rows by, one for each."""
        times = 1 if circuit.parameters else batch.n_rows
        self.circuits.extend([circuit] * times)
        self.binds.extend([translate.binds(circuit, batch.angles)] * times)


def _exact(rows: list[ExperimentResult], batch: CircuitBatch) -> Expectations:
    values = np.empty((batch.n_rows, len(batch.observables)))
    for row, result in enumerate(rows):
        for index, string in enumerate(batch.observables):
            saved = getattr(result.data, translate.label(index))
            values[row, index] = translate.expectation(saved, string)
    return Expectations(values)


def _sampled(
    rows: list[ExperimentResult], batch: CircuitBatch, shots: int, rng: np.random.Generator
) -> Bits:
    counts = [row.data.counts for row in rows]
    return Bits(translate.bits(counts, n_qubits=batch.circuit.n_qubits, shots=shots, rng=rng))
