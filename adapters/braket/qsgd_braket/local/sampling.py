"""From probabilities of basis states to measured bits or expectation values. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qsgd_core.circuits import ZString


def sample(
    probabilities: NDArray[np.float64], *, shots: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Bit strings with the joint law of one row.

    One uniform number is drawn per shot and inverted through the cumulative distribution.

    Args:
        probabilities: float64 (2**n,); qubit 0 is the most significant bit, as everywhere in
            Braket.
        shots: at least 1.
        rng: drawn from ``shots`` times.

    Returns:
        uint8 (shots, n), 0 or 1; column j is qubit j.
    """
    n = _qubits(probabilities)
    cumulative = np.cumsum(probabilities)
    # side="right": the first state whose cumulative probability exceeds the draw, so that a state
    # of probability 0 never comes up; divided by the last, so that rounding loses no draw.
    index = np.searchsorted(cumulative / cumulative[-1], rng.random(shots), side="right")
    return ((index[:, None] >> np.arange(n - 1, -1, -1)) & 1).astype(np.uint8)


def expectations(
    probabilities: NDArray[np.float64], observables: tuple[ZString, ...]
) -> NDArray[np.float64]:
    """⟨Z-string⟩ of each observable of one row: float64 (n_observables,).

    Args:
        probabilities: as for :func:`sample`.
        observables: which strings.
    """
    tensor = probabilities.reshape((2,) * _qubits(probabilities))
    values = []
    for string in observables:
        marginal = tensor.sum(axis=tuple(set(range(tensor.ndim)) - set(string)))
        for _ in string:
            marginal = marginal[0] - marginal[1]
        values.append(float(marginal))
    return np.array(values, dtype=np.float64)


def _qubits(probabilities: NDArray[np.float64]) -> int:
    return len(probabilities).bit_length() - 1
