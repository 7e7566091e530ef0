"""The simulators ``exact`` and ``sampled``, on the core's own state vector."""

from __future__ import annotations

import numpy as np
import torch

from qsgd_core.backend import Simulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import Workload
from qsgd_core.jobs import Bits, Expectations, Result
from qsgd_core.seeds import derive_seed
from qsgd_core.simulate import statevector


class ExactSimulator(Simulator):
    """Expectation values of any circuit without shot noise, in float64 on the CPU.

    The engine takes a perturbation's closed form in its place wherever there is one.
    """

    capabilities = Capabilities(
        exact=True,
        sampled=False,
        seeded=True,
        closed_form=True,
        max_qubits=statevector.MAX_QUBITS,
    )

    def __init__(self, name: str = "exact", options: None = None) -> None:
        self.name = name

    def run(self, work: Workload, *, shots: int | None, seed: int) -> Result:
        """Expectations of every batch; nothing is drawn, so ``seed`` has no effect."""
        self.capabilities.require(self.name, work, shots=shots)
        parts = []
        for batch in work.batches:
            angles = torch.from_numpy(batch.angles)
            values = statevector.expectations(batch.circuit, angles, batch.observables)
            parts.append(Expectations(values.numpy()))
        return Result(tuple(parts))


class SampledSimulator(Simulator):
    """Shots drawn from the exact state vector with its joint law, seeded, on the CPU."""

    capabilities = Capabilities(
        exact=False,
        sampled=True,
        seeded=True,
        max_qubits=statevector.MAX_QUBITS,
        # Every bit is kept, one byte each: this bounds a call's memory to 64 MiB per qubit.
        max_executions=2**26,
        default_shots=1024,
    )

    def __init__(self, name: str = "sampled", options: None = None) -> None:
        self.name = name

    def run(self, work: Workload, *, shots: int | None, seed: int) -> Result:
        """Bits of every batch, each from a generator of its own, derived from ``seed``."""
        self.capabilities.require(self.name, work, shots=shots)
        assert shots is not None  # noqa: S101  (required above: this simulator is not exact)
        parts = []
        for index, batch in enumerate(work.batches):
            rng = np.random.default_rng(derive_seed(seed, "batch", index))
            angles = torch.from_numpy(batch.angles)
            parts.append(Bits(statevector.sample(batch.circuit, angles, shots=shots, rng=rng)))
        return Result(tuple(parts))
