"""Running a workload for the engine: at once on a simulator, or scheduled on a backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qsgd_core.backend import Simulator
from qsgd_core.circuits import Workload
from qsgd_core.jobs import Expectations
from qsgd_core.seeds import derive_seed


@dataclass(frozen=True, eq=False)
class Sample:
    """⟨observables⟩ for a step, float64 (B, n_observables) a batch, and where they come from.

    ``source`` is measured, tracked, nominal, random, zero or exact.
    """

    z: list[NDArray[np.float64]]
    source: str


class Runner(Protocol):
    """Gives ⟨observables⟩ for a step."""

    def run(self, work: Workload, *, shots: int | None, step: int) -> Sample:
        """Those of ``work``, whose angles are this step's."""

    def check(self, work: Workload, *, shots: int | None) -> None:
        """Raise CapabilityError if it is known beforehand that ``work`` cannot run."""


class SimulatorRunner:
    """Here and now; the draws of a step come from (seed, step)."""

    def __init__(self, simulator: Simulator, *, seed: int) -> None:
        self.simulator = simulator
        self.seed = seed

    def run(self, work: Workload, *, shots: int | None, step: int) -> Sample:
        """See :class:`Runner`."""
        self.check(work, shots=shots)
        seed = derive_seed("shots", self.seed, step)
        result = self.simulator.run(work, shots=shots, seed=seed)
        exact = all(isinstance(part, Expectations) for part in result.parts)
        return Sample(result.expectations(work), "exact" if exact else "measured")

    def check(self, work: Workload, *, shots: int | None) -> None:
        """See :class:`Runner`."""
        self.simulator.capabilities.require(self.simulator.name, work, shots=shots)
