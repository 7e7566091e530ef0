"""Stands for the vendor's SDK: a state vector in numpy. Replace it, and ``import`` the real one.

Basis state ``i`` has qubit j in bit j of ``i``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Program = list[tuple[str, tuple[int, ...], float]]
"""(gate, qubits, angle); the angle of a gate that has none is 0."""

_H = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
_X = np.array([[0, 1], [1, 0]])
_Y = np.array([[0, -1j], [1j, 0]])
_Z = np.diag([1, -1])


class VendorError(Exception):
    """What the SDK raises."""


def probabilities(program: Program, n_qubits: int) -> NDArray[np.float64]:
    """Probability of each basis state after the program: float64 (2**n_qubits,)."""
    state = np.zeros((2,) * n_qubits, dtype=np.complex128)
    state[(0,) * n_qubits] = 1
    for gate, qubits, angle in program:
        # Axis n-1-j is qubit j, so that it ends up in bit j of the flattened index.
        axes = [n_qubits - 1 - qubit for qubit in qubits]
        unitary = _unitary(gate, angle).reshape((2,) * (2 * len(axes)))
        legs = range(len(axes), 2 * len(axes))
        state = np.moveaxis(np.tensordot(unitary, state, (legs, axes)), range(len(axes)), axes)
    squared = np.abs(state.reshape(-1)) ** 2
    return np.asarray(squared / squared.sum(), dtype=np.float64)


def _unitary(gate: str, angle: float) -> NDArray[np.complex128]:
    if gate in ("rx", "ry", "rz"):
        pauli = {"rx": _X, "ry": _Y, "rz": _Z}[gate]
        return np.asarray(np.cos(angle / 2) * np.eye(2) - 1j * np.sin(angle / 2) * pauli)
    if gate in ("cx", "cz"):
        controlled = np.eye(4, dtype=np.complex128)
        controlled[2:, 2:] = _X if gate == "cx" else _Z
        return controlled
    if gate in ("h", "x"):
        return (_H if gate == "h" else _X).astype(np.complex128)
    raise VendorError(f"no gate {gate}")
