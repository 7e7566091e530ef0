"""How wrong what was used turned out to be, by a result that it had not learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Verdict:
    """One result's judgement; each is the mean over the measured blocks' observables.

    Attributes:
        e_sq: (used - measured)² less the shot noise in it: an unbiased estimate of E², so it may
            be below 0.
        twin_sq: the same for the free twin; None where there is none.
        noise: variance of the measurement, (1 - y²)/(N - 1).
    """

    e_sq: float
    twin_sq: float | None
    noise: float


def judge(
    measured: Sequence[NDArray[np.float64]],
    used: Sequence[NDArray[np.float64]],
    free: Sequence[NDArray[np.float64]] | None,
    rows: Sequence[NDArray[np.intp]],
    *,
    shots: int,
) -> Verdict:
    """Compare a result with what was used when it was asked for, and with the free twin.

    Args:
        measured: float64 (B, n_observables) per batch, means of ±1 over ``shots``.
        used: same shapes.
        free: the nominal twin's prediction at the same angles.
        rows: those of each batch that were measured.
        shots: per row. With a single shot its noise cannot be told from the error, and counts as
            such.
    """
    y = _flat(measured, rows)
    noise = float(np.mean((1.0 - y**2) / max(shots - 1, 1)))

    def error_sq(z: Sequence[NDArray[np.float64]]) -> float:
        return float(np.mean((y - _flat(z, rows)) ** 2)) - noise

    return Verdict(error_sq(used), None if free is None else error_sq(free), noise)


def _flat(
    parts: Sequence[NDArray[np.float64]], rows: Sequence[NDArray[np.intp]]
) -> NDArray[np.float64]:
    return np.concatenate([p[index].ravel() for p, index in zip(parts, rows, strict=True)])
