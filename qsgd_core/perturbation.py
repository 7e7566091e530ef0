"""What a perturbation is: pure functions from (θ, g) to the modulation s of each block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from qsgd_core.circuits import CircuitBatch, ZString


class Perturbation(ABC):
    """A modulation that is measured: circuits in, expectation values out.

    Pure: the same inputs give the same circuits; no I/O, no clock, no global randomness. The term
    added to the base optimizer's step is -lr·λ·s⊙g (paper, Eq. 1).
    """

    def observables(self, n_qubits: int) -> tuple[ZString, ...]:
        """What must be known of each row of a block of ``n_qubits``: Z_0 … Z_{n-1} by default."""
        return tuple((i,) for i in range(n_qubits))

    @abstractmethod
    def plan(
        self, theta: NDArray[np.float64], grad: NDArray[np.float64], *, step: int
    ) -> list[CircuitBatch]:
        """Circuits whose observables give s.

        Args:
            theta: float64 (n_blocks, n), the selected coordinates.
            grad: float64 (n_blocks, n), their gradient.
            step: number of steps taken before this one.

        Returns:
            Batches whose rows, joined in order, are the blocks in order: n_blocks rows in all,
            each with the observables of :meth:`observables`.
        """

    @abstractmethod
    def decode(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """From ⟨observables⟩ (n_blocks, n_observables) to s (n_blocks, n), in [-1, 1]."""

    def closed_form(
        self, theta: torch.Tensor, grad: torch.Tensor, *, step: int
    ) -> torch.Tensor | None:
        """s of the ideal circuit without running it, or None when there is no formula.

        Args:
            theta: float32 or float64 (n_blocks, n), on the parameters' device.
            grad: same shape, dtype and device.
            step: number of steps taken before this one.

        Returns:
            Same shape, dtype and device as ``theta``; must not synchronise the device.
        """
        return None

    def advice(self, n_qubits: int) -> str | None:
        """What a user of blocks of ``n_qubits`` should know, in one or two sentences, or None.

        Whoever runs the perturbation asks once per block size and warns with the answer.
        """
        return None


class ClassicalPerturbation(ABC):
    """A modulation that no circuit is needed for: a control, or a rule of one's own.

    Attributes:
        match: perturbation, by name or itself, whose modulation is handed over as ``reference``;
            None when none is needed.
    """

    match: str | Perturbation | None = None

    @abstractmethod
    def modulation(
        self,
        theta: torch.Tensor,
        grad: torch.Tensor,
        *,
        step: int,
        name: str,
        seed: int,
        reference: torch.Tensor | None,
    ) -> torch.Tensor:
        """s of the selected coordinates of one parameter.

        Args:
            theta: float32 or float64 (m,), the parameter's selected coordinates in logical order.
            grad: same shape, dtype and device.
            step: number of steps taken before this one.
            name: the parameter's name.
            seed: the run's seed; draw from (seed, step, name) and from nothing else.
            reference: s of the matched perturbation, same shape; None when :attr:`match` is None.

        Returns:
            Same shape, dtype and device as ``theta``, entries in [-1, 1].
        """
