"""From circuits to PennyLane tapes and back: gates, observables, samples, expectation values.

Qubit j is wire j, and column j of the samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from operator import matmul
from typing import TYPE_CHECKING, Any

import numpy as np
import pennylane as qml
from pennylane.tape import QuantumScript

from qsgd_core.circuits import GATES, Circuit, CircuitBatch, Gate, Slot, ZString
from qsgd_core.errors import ResultCorruptError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = {
    "h": "Hadamard",
    "x": "PauliX",
    "rx": "RX",
    "ry": "RY",
    "rz": "RZ",
    "cx": "CNOT",
    "cz": "CZ",
}
"""Our gates -> PennyLane's."""


def native_gates(device: qml.devices.Device) -> frozenset[str]:
    """Which of our gates the device has; all where it does not say."""
    declared = getattr(device, "capabilities", None)
    operations = getattr(declared, "operations", None)
    if operations is None:
        # The facade in front of a device of the old interface.
        operations = getattr(getattr(device, "target_device", None), "operations", None)
    if operations is None:
        return frozenset(GATES)
    return frozenset(gate for gate, name in NAMES.items() if name in operations)


def possible_gates(native: frozenset[str]) -> frozenset[str]:
    """Which of our gates can be written in ``native`` ones."""
    fits = {}
    for name, (arity, angles) in GATES.items():
        gate = Gate(name, tuple(range(arity)), 0.1 if angles else None)
        fits[name] = rewrite(gate, native) is not None
    return frozenset(name for name, fit in fits.items() if fit)


def rewrite(
    gate: Gate, native: frozenset[str], tried: frozenset[str] = frozenset()
) -> list[Gate] | None:
    """``gate`` in native gates, up to a global phase; None where that cannot be.

    PennyLane itself gives up on a rotation or CNOT that a device does not list.
    """
    if gate.name in native:
        return [gate]
    if gate.name in tried:
        return None
    written = []
    for part in _in_other_gates(gate):
        rewritten = rewrite(part, native, tried | {gate.name})
        if rewritten is None:
            return None
        written += rewritten
    return written


def _in_other_gates(gate: Gate) -> list[Gate]:
    last, angle, half = gate.qubits[-1:], gate.angle, math.pi / 2
    match gate.name:
        case "h":
            return [Gate("rz", last, math.pi), Gate("ry", last, half)]
        case "x":
            return [Gate("rx", last, math.pi)]
        case "rx":
            return [Gate("h", last), Gate("rz", last, angle), Gate("h", last)]
        case "ry":
            return [Gate("rz", last, -half), Gate("rx", last, angle), Gate("rz", last, half)]
        case "rz":
            return [Gate("h", last), Gate("rx", last, angle), Gate("h", last)]
        case _:
            other = Gate("cz" if gate.name == "cx" else "cx", gate.qubits)
            return [Gate("h", last), other, Gate("h", last)]


def tapes(
    batch: CircuitBatch, *, shots: int | None, native: frozenset[str], rows_per_tape: int
) -> Iterator[QuantumScript]:
    """Tapes that together run all rows in order, as few as fit: rows are a tape's broadcast axis.

    A circuit without slots has nothing to broadcast, and one tape for each row.
    """
    circuit = batch.circuit
    gates = [new for gate in circuit.gates for new in rewrite(gate, native) or ()]
    step = rows_per_tape if circuit.n_slots else 1
    if shots is None:
        measured = [qml.expval(_observable(string)) for string in batch.observables]
    else:
        measured = [qml.sample(wires=range(circuit.n_qubits))]
    for start in range(0, batch.n_rows, step):
        columns = batch.angles[start : start + step].T
        operations = [_operation(gate, columns) for gate in gates]
        # Shots belong on the tape: on the device, qml.execute passes over them.
        yield QuantumScript(operations, measured, shots=shots)


def bits(results: list[Any], circuit: Circuit, *, rows: int, shots: int) -> NDArray[np.uint8]:
    """The samples of a batch's tapes as uint8 (rows, shots, n).

    Raises:
        ResultCorruptError: the device gave something else.
    """
    flat = np.concatenate([np.asarray(result).reshape(-1) for result in results])
    expected = (rows, shots, circuit.n_qubits)
    if flat.size != math.prod(expected) or not ((flat == 0) | (flat == 1)).all():
        raise ResultCorruptError(
            f"The device gave {flat.size} samples for (rows, shots, qubits) = {expected}, or "
            "samples other than 0 and 1."
        )
    return flat.astype(np.uint8).reshape(expected)


def expectations(results: list[Any], batch: CircuitBatch) -> NDArray[np.float64]:
    """The expectation values of a batch's tapes as float64 (rows, n_observables).

    Raises:
        ResultCorruptError: the device gave something else.
    """
    n = len(batch.observables)
    parts = [np.asarray(result, dtype=np.float64).reshape(n, -1) for result in results]
    values = np.concatenate(parts, axis=1).T
    if values.shape != (batch.n_rows, n) or not np.isfinite(values).all():
        raise ResultCorruptError(
            f"The device gave expectation values of shape {values.shape}, not all finite perhaps, "
            f"for (rows, observables) = {(batch.n_rows, n)}."
        )
    return np.ascontiguousarray(values)


def _operation(gate: Gate, columns: NDArray[np.float64]) -> qml.operation.Operator:
    operator = getattr(qml, NAMES[gate.name])
    if gate.angle is None:
        return operator(wires=gate.qubits)
    angle = columns[gate.angle.index] if isinstance(gate.angle, Slot) else gate.angle
    return operator(angle, wires=gate.qubits)


def _observable(string: ZString) -> qml.operation.Operator:
    return reduce(matmul, [qml.Z(qubit) for qubit in string]) if string else qml.Identity(0)
