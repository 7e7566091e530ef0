"""The research file's ansatz, as a third party would write it: a perturbation of its own."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Slot, entangler_pairs
from qsgd_core.perturbation import Perturbation


class Reupload(Perturbation):
    """Two layers of Ry(π·tanh(G·θ)), the same angles again, each followed by a ring of CNOTs.

    Args:
        gain: G; 1 moves about 0.0004 rad a step on the benchmark's trace, 4 about 0.0012.
    """

    LAYERS = 2

    def __init__(self, gain: float) -> None:
        self.gain = gain

    def plan(
        self, theta: NDArray[np.float64], grad: NDArray[np.float64], *, step: int
    ) -> list[CircuitBatch]:
        """One batch."""
        return [CircuitBatch(_circuit(theta.shape[1]), np.pi * np.tanh(self.gain * theta))]

    def decode(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """s = ⟨Z⟩."""
        return z


@cache
def _circuit(n_qubits: int) -> Circuit:
    layer = [Gate("ry", (i,), Slot(i)) for i in range(n_qubits)]
    layer += [Gate("cx", pair) for pair in entangler_pairs(n_qubits, "ring")]
    return Circuit(n_qubits, tuple(layer * Reupload.LAYERS))
