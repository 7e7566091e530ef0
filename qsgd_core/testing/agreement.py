"""Whether what was found agrees with the ideal: tolerances that follow from the shots."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qsgd_core.circuits import CircuitBatch
from qsgd_core.simulate import statevector

SIGMAS = 5.0
"""A single comparison fails by chance once in 1.7 million; the whole kit makes a few hundred."""
NOISE = 0.35
"""By how much ⟨Z⟩ of a noisy device may differ from the ideal on these small circuits."""
EXACT = 1e-6
"""By how much an exact value may be off: single precision passes, shot noise does not."""


def ideal(batch: CircuitBatch) -> NDArray[np.float64]:
    """⟨observables⟩ from the core's state vector, float64 (B, n_observables)."""
    angles = torch.from_numpy(batch.angles)
    values: NDArray[np.float64] = statevector.expectations(
        batch.circuit, angles, batch.observables
    ).numpy()
    return values


def assert_agrees(
    found: Sequence[NDArray[np.float64]],
    batches: Sequence[CircuitBatch],
    *,
    shots: int | None,
    noisy: bool,
) -> None:
    """Fail unless every expectation value agrees with the state vector.

    Args:
        found: float64 (B, n_observables) of each batch.
        batches: what was run.
        shots: per row, gives sigma = sqrt((1 - z²) / shots); None for exact values.
        noisy: allow :data:`NOISE` on top.
    """
    for index, (values, batch) in enumerate(zip(found, batches, strict=True)):
        expected = ideal(batch)
        assert values.shape == expected.shape
        assert np.isfinite(values).all(), f"batch {index} has values that are not finite"
        assert np.abs(values).max() <= 1 + EXACT, f"batch {index}: an expectation beyond ±1"
        allowed = EXACT + (NOISE if noisy else 0.0) + _shot_noise(expected, shots)
        off = np.abs(values - expected) - allowed
        if (off > 0).any():
            row, column = np.unravel_index(int(off.argmax()), off.shape)
            pytest.fail(
                f"batch {index}, row {row}, Z{batch.observables[column]}: found "
                f"{values[row, column]:+.4f}, the state vector gives {expected[row, column]:+.4f}; "
                f"{allowed[row, column]:.4f} is allowed "
                f"({'no shots' if shots is None else f'{shots} shots: 5 sigma'}"
                f"{', noisy' if noisy else ''}).\nThe circuit:\n"
                f"{batch.circuit.to_qasm3(batch.angles[row])}"
            )


def _shot_noise(expected: NDArray[np.float64], shots: int | None) -> NDArray[np.float64]:
    """5 sigma, with Bernstein's term for outcomes that are rare; 0 where only one can occur."""
    if shots is None:
        return np.zeros_like(expected)
    sigma = np.sqrt(np.clip(1 - expected**2, 0, None) / shots)
    rare = 2 * SIGMAS**2 / (3 * shots)
    return np.where(np.abs(expected) < 1 - 1e-9, SIGMAS * sigma + rare, 0.0)


def histogram(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Counts of each bit string, int64 (2**n,), of uint8 (shots, n)."""
    index = bits.astype(np.int64) @ (1 << np.arange(bits.shape[1]))
    return np.bincount(index, minlength=2 ** bits.shape[1])


def assert_independent(rows: Sequence[NDArray[np.uint8]], *, what: str) -> None:
    """Fail if rows of fair coins, each uint8 (shots, n), repeat or follow each other."""
    counts = [histogram(row) for row in rows]
    same = [
        (i, j)
        for i in range(len(rows))
        for j in range(i)
        if np.array_equal(rows[i], rows[j])
        # With three qubits, equal counts come up once in 10^7 pairs even at 100 shots.
        or (rows[i].shape[1] >= 3 and np.array_equal(counts[i], counts[j]))
    ]
    assert not same, f"{what}: rows {same} have the very same bits or counts"
    signs = np.stack([1.0 - 2.0 * row.astype(np.float64).ravel() for row in rows])
    signs -= signs.mean(axis=1, keepdims=True)
    spread = signs.std(axis=1)
    assert spread.min() > 0, f"{what}: a row of fair coins always falls the same way"
    correlation = (signs @ signs.T) / signs.shape[1] / np.outer(spread, spread)
    np.fill_diagonal(correlation, 0.0)
    allowed = SIGMAS / math.sqrt(signs.shape[1])
    worst = float(np.abs(correlation).max())
    assert worst <= allowed, (
        f"{what}: bits of two rows correlate by {worst:.3f}; {allowed:.3f} is 5 sigma"
    )
