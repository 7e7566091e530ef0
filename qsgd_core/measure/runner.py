"""Running a workload for the engine: at once on a simulator, or scheduled on a backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qsgd_core.backend import Simulator
from qsgd_core.circuits import Workload
from qsgd_core.errors import BackendError, QSGDError, ResultCorruptError
from qsgd_core.isolate import blame, is_core, name_of
from qsgd_core.jobs import Bits, Expectations, Result
from qsgd_core.seeds import RunSeed, derive_seed
from qsgd_core.sources import SourceName


@dataclass(frozen=True, eq=False)
class Sample:
    """⟨observables⟩ for a step, float64 (B, n_observables) a batch, and where they come from."""

    z: list[NDArray[np.float64]]
    source: SourceName


class Runner(Protocol):
    """Gives ⟨observables⟩ for a step."""

    def run(self, work: Workload, *, shots: int | None, step: int) -> Sample:
        """Those of ``work``, whose angles are this step's."""

    def check(self, work: Workload, *, shots: int | None) -> None:
        """Raise CapabilityError if it is known beforehand that ``work`` cannot run."""


class SimulatorRunner:
    """Here and now; the draws of a step come from (seed, step).

    Args:
        simulator: runs the circuits; what it gives is checked before it is used.
        seed: of the run.
        provider: who serves it, for messages: ``qsgd-aer 0.1``.
    """

    def __init__(self, simulator: Simulator, *, seed: RunSeed, provider: str) -> None:
        self.simulator = simulator
        self.seed = seed
        self.name = getattr(simulator, "name", None) or name_of(simulator)
        self._who = f"Backend {self.name!r} of {provider}"

    def run(self, work: Workload, *, shots: int | None, step: int) -> Sample:
        """See :class:`Runner`.

        Raises:
            BackendError: the simulator raised, or gave something that cannot be its result.
        """
        self.check(work, shots=shots)
        result = self._result(work, shots, derive_seed("shots", self.seed.value, step))
        z = result.expectations(work, of=self._who)
        exact = all(isinstance(part, Expectations) for part in result.parts)
        return Sample(z, "exact" if exact else "measured")

    def check(self, work: Workload, *, shots: int | None) -> None:
        """See :class:`Runner`."""
        self.simulator.capabilities.require(self.name, work, shots=shots)

    def _result(self, work: Workload, shots: int | None, seed: int) -> Result:
        if is_core(self.simulator):  # it draws from no global generator
            return self.simulator.run(work, shots=shots, seed=seed)
        with blame(BackendError, f"{self._who} failed", passing=(QSGDError,), seed=seed):
            result = self.simulator.run(work, shots=shots, seed=seed)
        if not isinstance(result, Result):
            raise ResultCorruptError(
                f"{self._who} gave a {type(result).__name__}, not a qsgd_core Result."
            )
        for part in result.parts:
            if isinstance(part, Bits) and np.ndim(part.values) == 3:
                found: int | None = part.values.shape[1]
            elif isinstance(part, Expectations):
                found = None
            else:
                continue  # of another shape: see Result.expectations
            if found != shots:
                raise ResultCorruptError(
                    f"{self._who} was asked for {_said(shots)} and gave {_said(found)}."
                )
        return result


def _said(shots: int | None) -> str:
    return "expectation values" if shots is None else f"{shots} shots a row"
