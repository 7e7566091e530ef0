"""Circuits of QSGD as Braket's OpenQASM, and a workload as one program or one program set.

Qubit j stays qubit j. A slot k of the circuit becomes the input ``pk``; angles travel as inputs, so
that a structure is translated once and its text is the same for all rows.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import braket.circuits as bk
from braket.circuits.measure import Measure
from braket.circuits.noise_model import MeasureCriteria, NoiseModel
from braket.circuits.serialization import IRType
from braket.ir.openqasm import Program
from braket.program_sets import CircuitBinding, ProgramSet

from qsgd_core.circuits import Circuit, CircuitBatch, Slot

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

METHODS = {"cx": "cnot"}
"""Gates whose name in Braket is another one; h, x, rx, ry, rz and cz are called the same."""


@lru_cache(maxsize=64)
def measured(circuits: tuple[Circuit, ...]) -> str:
    """OpenQASM 3 of the circuits side by side, every qubit measured in order.

    Args:
        circuits: the first takes the first qubits and inputs, and so on.
    """
    return _text(_gates(circuits))


@lru_cache(maxsize=64)
def probabilities(circuit: Circuit, noise: Noise | None = None) -> str:
    """OpenQASM 3 of the circuit that asks for the probability of every basis state.

    Args:
        circuit: the structure.
        noise: what is added to it.
    """
    built = _gates((circuit,)) if noise is None else noise.applied(_gates((circuit,)))
    return _text(built.probability())


class Noise:
    """A noise model of Braket; compares by identity, so that it can be part of a cache key.

    Args:
        data: ``NoiseModel.to_dict()``.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it cannot be read.
    """

    def __init__(self, data: dict[str, object]) -> None:
        self._model = NoiseModel.from_dict(data)
        self._readout = NoiseModel(
            [i for i in self._model.instructions if isinstance(i.criteria, MeasureCriteria)]
        )

    def applied(self, circuit: bk.Circuit) -> bk.Circuit:
        """The noisy circuit, without measurements or result types.

        Every qubit counts as measured in Z: noise for observables and noise for measurements both
        apply. The SDK looks for each on circuits of the other kind and would drop one of them.
        """
        with_observables = circuit.copy()
        for qubit in sorted(circuit.qubits):
            with_observables.expectation(bk.Observable.Z(), qubit)
        noisy = _without_readout(self._model.apply(with_observables))
        if not self._readout.instructions:
            return noisy
        with warnings.catch_warnings():
            # It already has noise: its own, from the line above.
            warnings.filterwarnings("ignore", message="A noise model is being applied")
            return _without_readout(self._readout.apply(noisy.measure(sorted(circuit.qubits))))


def program(batches: Sequence[CircuitBatch]) -> str:
    """One OpenQASM program with every row of every batch side by side, as action JSON."""
    circuits = tuple(b.circuit for b in batches for _ in range(b.n_rows))
    angles = [a for b in batches for a in b.angles.ravel().tolist()]
    inputs = {f"p{k}": a for k, a in enumerate(angles)}
    return str(Program(source=measured(circuits), inputs=inputs or None).json())


def program_set(batches: Sequence[CircuitBatch]) -> str:
    """One program set with one binding per batch and one input set per row, as action JSON.

    A batch without angles becomes one program per row: a binding needs inputs.
    """
    programs: list[CircuitBinding | str] = []
    for batch in batches:
        source = measured((batch.circuit,))
        if batch.circuit.n_slots:
            programs.append(CircuitBinding(source, inputs(batch.angles)))
        else:
            programs += [source] * batch.n_rows
    return str(ProgramSet(programs).to_ir().json())


def inputs(angles: NDArray[np.float64]) -> dict[str, list[float]]:
    """``{"p0": [row 0, row 1, …], …}`` of float64 (B, n_slots)."""
    return {f"p{k}": column for k, column in enumerate(angles.T.tolist())}


def _gates(circuits: Sequence[Circuit]) -> bk.Circuit:
    built = bk.Circuit()
    qubits = slots = 0
    for circuit in circuits:
        used = {q for gate in circuit.gates for q in gate.qubits}
        for idle in sorted(set(range(circuit.n_qubits)) - used):
            built.i(qubits + idle)  # a qubit without a gate does not exist for Braket
        for gate in circuit.gates:
            angle = gate.angle
            if isinstance(angle, Slot):
                angle = bk.FreeParameter(f"p{slots + angle.index}")
            method = getattr(built, METHODS.get(gate.name, gate.name))
            method(*(qubits + q for q in gate.qubits), *([] if angle is None else [angle]))
        qubits += circuit.n_qubits
        slots += circuit.n_slots
    return built


def _without_readout(circuit: bk.Circuit) -> bk.Circuit:
    return bk.Circuit([i for i in circuit.instructions if not isinstance(i.operator, Measure)])


def _text(circuit: bk.Circuit) -> str:
    return str(circuit.to_ir(IRType.OPENQASM).source)
