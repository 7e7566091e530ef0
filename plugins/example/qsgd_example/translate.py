"""From QSGD's circuits to the vendor's programs, and from probabilities to bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Circuit, Slot
from qsgd_example.vendor import Program


def program(circuit: Circuit, angles: NDArray[np.float64]) -> Program:
    """One row of a batch: float64 (n_slots,) radians put into the circuit's slots."""
    steps: Program = []
    for gate in circuit.gates:
        angle = angles[gate.angle.index] if isinstance(gate.angle, Slot) else gate.angle
        steps.append((gate.name, gate.qubits, float(angle or 0.0)))
    return steps


def draw(
    probabilities: NDArray[np.float64], n_qubits: int, shots: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Bits, uint8 (shots, n_qubits), column j is qubit j."""
    states = rng.choice(len(probabilities), size=shots, p=probabilities)
    columns = [(states >> qubit) & 1 for qubit in range(n_qubits)]
    return np.stack(columns, axis=1).astype(np.uint8)


def expectations(
    probabilities: NDArray[np.float64], observables: tuple[tuple[int, ...], ...]
) -> NDArray[np.float64]:
    """⟨Z-strings⟩ without shot noise, float64 (n_observables,)."""
    states = np.arange(len(probabilities))
    values = []
    for string in observables:
        signs = np.prod([1 - 2 * ((states >> qubit) & 1) for qubit in string], axis=0)
        values.append(probabilities @ signs)
    return np.array(values, dtype=np.float64)
