"""From a :class:`~qsgd_core.circuits.Circuit` to a Qiskit circuit, and from counts to bits.

Qubit j is Qiskit's qubit j; it is measured into classical bit j, which is bit j of a count's key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp

# Gives QuantumCircuit its save_expectation_value.
from qiskit_aer import library as _library  # noqa: F401

from qsgd_core.circuits import Circuit, Slot, ZString
from qsgd_core.errors import ResultCorruptError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def to_qiskit(circuit: Circuit, *, measure: bool) -> QuantumCircuit:
    """The circuit with parameters ``p0`` … for its slots, measured into bits 0 … n-1 or not."""
    n = circuit.n_qubits
    translated = QuantumCircuit(n, n) if measure else QuantumCircuit(n)
    slots = [Parameter(f"p{index}") for index in range(circuit.n_slots)]
    for gate in circuit.gates:
        angle = slots[gate.angle.index] if isinstance(gate.angle, Slot) else gate.angle
        arguments = () if angle is None else (angle,)
        getattr(translated, gate.name)(*arguments, *gate.qubits)
    if measure:
        translated.measure(range(n), range(n))
    return translated


def save_expectations(
    circuit: QuantumCircuit, observables: Sequence[ZString], *, places: Sequence[int] | None
) -> QuantumCircuit:
    """A copy of ``circuit`` that ends by saving what :func:`expectation` reads.

    Args:
        circuit: without measurements.
        observables: products of Z.
        places: for each of our qubits, the qubit of ``circuit`` that it has become among others
            that idle; None if there are no others.
    """
    saving = circuit.copy()
    for index, string in enumerate(observables):
        if places is not None:
            # Where Aer cuts idle qubits away (on a device of 127 it must), it saves expectation
            # values of the wrong qubits (qiskit-aer issue 2442); probabilities come out right.
            qubits = [places[qubit] for qubit in string or (0,)]
            saving.save_probabilities(qubits, label=label(index))
        else:
            operator = SparsePauliOp("Z" * len(string) or "I")
            saving.save_expectation_value(operator, string or (0,), label=label(index))
    return saving


def expectation(saved: float | NDArray[np.float64], string: ZString) -> float:
    """The value of an observable from what was saved for it: itself, or its probabilities."""
    if not isinstance(saved, np.ndarray):
        return float(saved)
    signs = np.ones(1)
    for _ in string:
        signs = np.concatenate((signs, -signs))
    return float(signs @ saved) if string else 1.0


def label(index: int) -> str:
    """Under which name the value of observable ``index`` is saved."""
    return f"observable{index}"


def binds(circuit: QuantumCircuit, angles: NDArray[np.float64]) -> dict[Parameter, list[float]]:
    """One value per row for every parameter, as ``AerSimulator.run`` takes them."""
    columns = {f"p{index}": column for index, column in enumerate(angles.T.tolist())}
    return {parameter: columns[parameter.name] for parameter in circuit.parameters}


def bits(
    counts: Sequence[dict[str, int]], *, n_qubits: int, shots: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Shots from the counts of each row, in an order that ``rng`` draws.

    Aer counts outcomes faster than it lists them. The order in which they came is lost with that,
    and none is better than any other; shuffled, any part of a row's shots is a fair sample.

    Args:
        counts: per row, outcome in hexadecimal -> times seen.
        n_qubits: up to 63.
        shots: per row.
        rng: drawn from once per row and shot.

    Returns:
        uint8 (rows, shots, n_qubits).

    Raises:
        ResultCorruptError: the counts do not add up to ``shots``.
    """
    for row, seen in enumerate(counts):
        if (found := sum(seen.values())) != shots:
            raise ResultCorruptError(f"Aer gave {found} shots for row {row}; {shots} asked for.")
    outcomes = np.array([int(key, 16) for seen in counts for key in seen], dtype=np.int64)
    times = [count for seen in counts for count in seen.values()]
    states = np.repeat(outcomes, times).reshape(len(counts), shots)
    states = rng.permuted(states, axis=1)
    values = np.empty((len(counts), shots, n_qubits), dtype=np.uint8)
    for qubit in range(n_qubits):
        values[:, :, qubit] = (states >> qubit) & 1
    return values
