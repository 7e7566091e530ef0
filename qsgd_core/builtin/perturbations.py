"""The paper's two perturbations: the sine (Eq. 2) and the entangled circuit (Eq. 5).

Both are circuits with s_i = -⟨Z_i⟩, so any simulator or backend can measure them; both have a
closed form, which stands in on an ideal local simulator.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from qsgd_core.builtin.options import CircuitOptions
from qsgd_core.circuits import CircuitBatch, ansatz
from qsgd_core.errors import ConfigError
from qsgd_core.perturbation import Perturbation
from qsgd_core.simulate import chain
from qsgd_core.simulate.halfturns import sinpi

LONG_CHAIN = 8
"""Above this many qubits the chain's s is next to nothing at the block's far end."""


class Sine(Perturbation):
    """s_i = sin(π θ_i), Eq. 2: H, Ry(π θ_i), measure Z. One layer, whatever ``depth`` says."""

    def __init__(self, depth: int = 1, options: None = None) -> None:
        # Depth belongs to the circuit of Eq. 5; every run has one, and the sine needs none.
        pass

    def plan(
        self, theta: NDArray[np.float64], grad: NDArray[np.float64], *, step: int
    ) -> list[CircuitBatch]:
        """One batch: the depth-1 circuit without entangler."""
        n_blocks, n_qubits = theta.shape
        if n_blocks == 0:
            return []
        return [CircuitBatch(ansatz(n_qubits, 1, "none"), _radians(theta))]

    def decode(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """s = -⟨Z⟩."""
        return -z

    def closed_form(self, theta: torch.Tensor, grad: torch.Tensor, *, step: int) -> torch.Tensor:
        """sin(π θ), accurate for large θ and exactly 0 at integers."""
        return sinpi(theta)


class CircuitPerturbation(Perturbation):
    """s_i = -⟨Z_i⟩ of the paper's circuit, Eq. 5: see :func:`qsgd_core.circuits.ansatz`.

    With the chain or no entangler, s is computed in closed form on the ``exact`` simulator; the
    ring runs on its state vector.

    Args:
        depth: number of layers, at least 1.
        options: entangler and phases.

    Raises:
        ConfigError: a depth below 1, or given phases with another number of layers.
    """

    def __init__(self, depth: int, options: CircuitOptions | None = None) -> None:
        options = options or CircuitOptions()
        if depth < 1:
            raise ConfigError(f"depth must be at least 1, not {depth}.")
        if not isinstance(options.phases, str) and len(options.phases) != depth:
            raise ConfigError(
                f"The given phases have {len(options.phases)} rows, one per layer, and depth is "
                f"{depth}: give {depth} rows, or depth={len(options.phases)}."
            )
        self.depth = depth
        self.entangler = options.entangler
        self.phases = options.phases
        self._given: dict[tuple[torch.device, torch.dtype], torch.Tensor] = {}

    def plan(
        self, theta: NDArray[np.float64], grad: NDArray[np.float64], *, step: int
    ) -> list[CircuitBatch]:
        """One batch: Ry angles first, then the phases layer by layer unless they are zero."""
        n_blocks, n_qubits = theta.shape
        if n_blocks == 0:
            return []
        angles = _radians(theta)
        if self.phases != "zero":
            phases = self._phases(torch.from_numpy(np.ascontiguousarray(grad))).numpy()
            phases = np.broadcast_to(phases, (n_blocks, self.depth, n_qubits))
            angles = np.concatenate([angles, phases.reshape(n_blocks, -1)], axis=1)
        circuit = ansatz(n_qubits, self.depth, self.entangler, phases=self.phases != "zero")
        return [CircuitBatch(circuit, angles)]

    def decode(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """s = -⟨Z⟩."""
        return -z

    def closed_form(
        self, theta: torch.Tensor, grad: torch.Tensor, *, step: int
    ) -> torch.Tensor | None:
        """-⟨Z⟩ by :mod:`qsgd_core.simulate.chain`; None for the ring.

        Raises:
            CapabilityError: the chain with more than 6 layers or 256 qubits.
        """
        if self.entangler == "ring":
            return None
        phases = None if self.phases == "zero" else self._phases(grad)
        z = chain.expectations(theta, depth=self.depth, entangler=self.entangler, phases=phases)
        return z.neg_()

    def advice(self, n_qubits: int) -> str | None:
        """That s decays along a long chain."""
        if self.entangler != "chain" or n_qubits <= LONG_CHAIN:
            return None
        return (
            f"A chain of {n_qubits} qubits: each CNOT multiplies in the qubits before it, so s "
            "decays along the block and small weights at its far end get next to no term. Use "
            f"n_qubits={LONG_CHAIN} or less, or perturbation_options={{'entangler': 'none'}}."
        )

    def _phases(self, grad: torch.Tensor) -> torch.Tensor:
        """Rz angles, (depth, n) or (n_blocks, depth, n), like ``grad`` in dtype and device."""
        if self.phases == "gradient":
            peak = grad.abs().amax(-1, keepdim=True)
            phases = torch.where(peak > 0, grad / peak, 0.0) * torch.pi
            return phases.unsqueeze(-2).expand(-1, self.depth, -1)
        n_qubits = grad.shape[-1]
        given = len(self.phases[0])
        if n_qubits > given:
            raise ConfigError(
                f"The given phases have {given} columns and a block has {n_qubits} qubits: give "
                f"{n_qubits} columns, or n_qubits={given}."
            )
        # Copied to each device once: a copy at every step would synchronise it.
        key = (grad.device, grad.dtype)
        if key not in self._given:
            self._given[key] = torch.tensor(self.phases, dtype=grad.dtype, device=grad.device)
        return self._given[key][:, :n_qubits]


def _radians(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """π·θ wrapped into [-π, π] before π is multiplied in, so that a large θ stays accurate."""
    wrapped: NDArray[np.float64] = theta - 2.0 * np.rint(theta / 2.0)
    return wrapped * np.pi
