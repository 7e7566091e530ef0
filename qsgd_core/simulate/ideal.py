"""Exact ⟨Z-strings⟩ of a circuit in numpy: the built-in chain at any size, others as vectors.

Imports torch when it is used: a courier whose blocks are small has no need of it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Circuit, Entangler, ZString, ansatz
from qsgd_core.errors import CapabilityError

MAX_QUBITS = 14
"""Of a circuit that is no chain: 2**14 amplitudes a row."""


def check(circuit: Circuit, observables: tuple[ZString, ...]) -> None:
    """Whether :func:`ideal` can do it, without running anything.

    Raises:
        CapabilityError: neither a chain that is measured qubit by qubit nor a small circuit.
    """
    if circuit.n_qubits <= MAX_QUBITS or _chain(circuit, observables) is not None:
        return
    raise CapabilityError(
        f"Exact expectation values of a circuit of {circuit.n_qubits} qubits are not available.",
        (
            f"Above {MAX_QUBITS} qubits it must be the built-in ansatz with entangler 'chain' or "
            "'none', observed qubit by qubit.",
        ),
    )


def ideal(
    circuit: Circuit, angles: NDArray[np.float64], observables: tuple[ZString, ...]
) -> NDArray[np.float64]:
    """⟨observables⟩ without noise, float64 (B, n_observables).

    Args:
        circuit: the built-in chain, or up to :data:`MAX_QUBITS` qubits.
        angles: float64 (B, n_slots), radians.
        observables: Z-strings; single qubits for the chain.

    Raises:
        CapabilityError: see :func:`check`.
    """
    import torch

    from qsgd_core.simulate import chain, statevector

    check(circuit, observables)
    rows = torch.from_numpy(np.ascontiguousarray(angles))
    found = _chain(circuit, observables)
    if found is None:
        return statevector.expectations(circuit, rows, observables).numpy()
    depth, entangler, phased = found
    n = circuit.n_qubits
    phases = rows[:, n:].unflatten(-1, (depth, n)) if phased else None
    z = chain.expectations(rows[:, :n] / math.pi, depth=depth, entangler=entangler, phases=phases)
    return z.numpy()[:, [string[0] for string in observables]]


@lru_cache(maxsize=64)
def _chain(
    circuit: Circuit, observables: tuple[ZString, ...]
) -> tuple[int, Entangler, bool] | None:
    """(depth, entangler, whether it has phases) of a circuit with a closed form."""
    from qsgd_core.simulate import chain

    n = circuit.n_qubits
    depth = sum(gate.name == "ry" for gate in circuit.gates) // n
    if depth < 1 or any(len(string) != 1 for string in observables):
        return None
    phased = circuit.n_slots > n
    entanglers: tuple[Entangler, ...] = ("chain", "none")
    for entangler in entanglers:
        if chain.limits(n, depth=depth, entangler=entangler):
            continue
        if circuit == ansatz(n, depth, entangler, phases=phased):
            return depth, entangler, phased
    return None
