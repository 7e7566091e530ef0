"""The device's errors over time: drawn around their typical sizes, drifting, recalibrated once.

This is the generator of the truth. What the device publishes about itself is in :mod:`.device`;
nothing there or in the scheduler reads this.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qsgd_core.seeds import derive_seed
from scheduler_parts.physics import Errors

Floats = NDArray[np.float64]

CORRELATION = 0.35
"""Correlation time of the drift, in runs."""
DRIFT = 0.5
"""Stationary standard deviation of the drift, in units of the spread between devices."""

# name -> (mean, standard deviation between qubits)
RESEARCH = {
    "offset": (0.0, 0.03),
    "gain": (0.0, 0.01),
    "twist": (0.0, 0.05),
    "depolarising": (0.012, 0.004),
    "e01": (0.012, 0.006),
    "e10": (0.024, 0.006),
    "coupling": (0.0, 0.0),
    "leak": (0.0, 0.0),
}
"""The hardware of the research file; its twin's family lacks ``gain`` and ``twist``."""

OUTSIDE = RESEARCH | {
    "gain": (0.0, 0.03),
    "twist": (0.0, 0.1),
    "coupling": (0.0, 0.1),
    "leak": (0.02, 0.01),
}
"""Three times the gain errors, twice the coherent Z, and crosstalk in gates and in reading."""

PROBABILITIES = ("depolarising", "e01", "e10", "leak")


def errors_over_time(
    sizes: dict[str, tuple[float, float]], *, steps: int, n_qubits: int, seed: int
) -> Errors:
    """The errors at every step: (n_qubits, steps) each; all are drawn anew at half time."""
    half = steps // 2
    drawn = {}
    for name, (mean, sd) in sizes.items():
        rng = np.random.default_rng(derive_seed("errors", name, seed))
        units = [_drifting(rng, length, steps, n_qubits) for length in (half, steps - half)]
        values = mean + sd * np.concatenate(units, axis=1)
        drawn[name] = np.clip(values, 0.0, 0.5) if name in PROBABILITIES else values
    return Errors(**drawn)


def _drifting(rng: np.random.Generator, length: int, steps: int, n_qubits: int) -> Floats:
    """One calibration's life: a draw, and an Ornstein-Uhlenbeck drift that starts at 0."""
    decay = np.exp(-1.0 / (CORRELATION * steps))
    kicks = rng.normal(0.0, DRIFT * np.sqrt(1 - decay**2), (n_qubits, length))
    drift = np.zeros((n_qubits, length))
    for i in range(1, length):
        drift[:, i] = decay * drift[:, i - 1] + kicks[:, i]
    return rng.normal(0.0, 1.0, (n_qubits, 1)) + drift
