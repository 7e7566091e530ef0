"""Where the modulation s comes from: a closed form, a simulator's circuits, or a classical rule.

A source is given every bucket of a step at once, so that one step is one call of a simulator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from qsgd_core.circuits import Circuit, CircuitBatch, Workload
from qsgd_core.measure.counts import Count, at_step
from qsgd_core.measure.paid import ScheduledRunner
from qsgd_core.measure.runner import Runner, SimulatorRunner
from qsgd_core.optim.coordinates.selection import Bucket
from qsgd_core.optim.source.answers import Answers
from qsgd_core.perturbation import ClassicalPerturbation, Perturbation
from qsgd_core.seeds import RunSeed
from qsgd_core.sources import SourceName


@dataclass(frozen=True)
class Modulation:
    """s of each bucket's coordinates, (L,) in the bucket's dtype and on its device; its origin."""

    values: list[torch.Tensor]
    source: SourceName


class Source(Protocol):
    """Gives s for the blocks of a step."""

    cheap: bool
    """s costs no circuit, so it is not asked first (a wait for the device) whether g is 0 or not
    finite. ``every`` holds such an s like any other."""
    every: Count | None
    """Steps that use one s; None: each step gets its own."""
    shots: Count | None
    """Shots of a circuit, a simulator's own default among them; None where no circuit is sampled,
    and for the default of a queued backend, which is not known before it is asked."""

    def modulate(
        self,
        buckets: Sequence[Bucket],
        theta: Sequence[torch.Tensor],
        grad: Sequence[torch.Tensor],
        *,
        step: int,
    ) -> Modulation:
        """s for θ and g, each (L,) a bucket."""

    @property
    def paid(self) -> ScheduledRunner | None:
        """What sends paid jobs, if anything does."""

    def check(self, n_qubits: int) -> None:
        """Raise CapabilityError unless blocks of ``n_qubits`` can be done. Runs nothing."""

    def first_circuit(self, n_qubits: int) -> Circuit | None:
        """The circuit of a block of ``n_qubits``, for a look before anything runs."""

    def advice(self, n_qubits: int) -> str | None:
        """One sentence the user should know about blocks of this size."""


class ClosedForm:
    """The ideal circuit's formula, on the parameters' device; without one, its state vector."""

    cheap = True
    paid = None
    shots: Count | None = None

    def __init__(
        self,
        perturbation: Perturbation,
        runner: SimulatorRunner,
        *,
        answers: Answers,
        every: Count | None = None,
    ) -> None:
        self.perturbation = perturbation
        self.every = every
        self._answers = answers
        self._circuits = Circuits(perturbation, runner, answers=answers, shots=None)

    def modulate(
        self,
        buckets: Sequence[Bucket],
        theta: Sequence[torch.Tensor],
        grad: Sequence[torch.Tensor],
        *,
        step: int,
    ) -> Modulation:
        """See :class:`Source`."""
        values = []
        for bucket, t, g in zip(buckets, theta, grad, strict=True):
            parts = []
            for blocks in bucket.blocks:
                rows, slopes = blocks.take(t), blocks.take(g)
                part = self.perturbation.closed_form(rows, slopes, step=step)
                if part is None:
                    return self._circuits.modulate(buckets, theta, grad, step=step)
                parts.append(self._answers.checked(part, rows, slopes))
            values.append(bucket.scatter(parts))
        return Modulation(values, "exact")

    def check(self, n_qubits: int) -> None:
        """See :class:`Source`."""
        zeros = torch.zeros(1, n_qubits, dtype=torch.float64, device="cpu")
        if self.perturbation.closed_form(zeros, zeros, step=0) is None:
            self._circuits.check(n_qubits)

    def first_circuit(self, n_qubits: int) -> Circuit | None:
        """See :class:`Source`."""
        return self._circuits.first_circuit(n_qubits)

    def advice(self, n_qubits: int) -> str | None:
        """See :class:`Source`."""
        return self.perturbation.advice(n_qubits)


class Circuits:
    """The perturbation's circuits, all blocks of a step in one workload."""

    cheap = False

    def __init__(
        self,
        perturbation: Perturbation,
        runner: Runner,
        *,
        answers: Answers,
        shots: Count | None,
        every: Count | None = None,
    ) -> None:
        self.perturbation = perturbation
        self.runner = runner
        self._answers = answers
        self.shots = shots
        self.every = every
        self.paid = runner if isinstance(runner, ScheduledRunner) else None

    def modulate(
        self,
        buckets: Sequence[Bucket],
        theta: Sequence[torch.Tensor],
        grad: Sequence[torch.Tensor],
        *,
        step: int,
    ) -> Modulation:
        """See :class:`Source`."""
        plans: list[list[CircuitBatch]] = []
        for bucket, t, g in zip(buckets, theta, grad, strict=True):
            for blocks in bucket.blocks:
                plans.append(
                    self.perturbation.plan(_host(blocks.take(t)), _host(blocks.take(g)), step=step)
                )
        work = Workload(tuple(batch for plan in plans for batch in plan))
        shots = None if self.shots is None else at_step(self.shots, step, "shots")
        sample = self.runner.run(work, shots=shots, step=step)
        expectations = iter(sample.z)
        decoded = iter(
            [
                self.perturbation.decode(np.concatenate([next(expectations) for _ in plan]))
                for plan in plans
            ]
        )
        values = []
        for bucket, t in zip(buckets, theta, strict=True):
            parts = []
            for blocks in bucket.blocks:
                s = self._answers.decoded(next(decoded), (blocks.n_blocks, blocks.size))
                parts.append(torch.from_numpy(np.ascontiguousarray(s)).to(t))
            values.append(bucket.scatter(parts))
        return Modulation(values, sample.source)

    def check(self, n_qubits: int) -> None:
        """See :class:`Source`."""
        zeros = np.zeros((1, n_qubits))
        work = Workload(tuple(self.perturbation.plan(zeros, zeros, step=0)))
        shots = None if self.shots is None else at_step(self.shots, 0, "shots")
        self.runner.check(work, shots=shots)

    def first_circuit(self, n_qubits: int) -> Circuit | None:
        """See :class:`Source`."""
        zeros = np.zeros((1, n_qubits))
        return self.perturbation.plan(zeros, zeros, step=0)[0].circuit

    def advice(self, n_qubits: int) -> str | None:
        """See :class:`Source`."""
        return self.perturbation.advice(n_qubits)


class Classical:
    """A classical rule, parameter by parameter; ``reference`` measures what it is matched to."""

    paid = None

    def __init__(
        self,
        perturbation: ClassicalPerturbation,
        reference: Source | None,
        *,
        answers: Answers,
        seed: RunSeed,
        every: Count | None = None,
    ) -> None:
        self.perturbation = perturbation
        self.every = every
        self.reference = reference
        self.shots = None if reference is None else reference.shots
        self.seed = seed
        self._answers = answers
        self.cheap = reference is None or reference.cheap

    def modulate(
        self,
        buckets: Sequence[Bucket],
        theta: Sequence[torch.Tensor],
        grad: Sequence[torch.Tensor],
        *,
        step: int,
    ) -> Modulation:
        """See :class:`Source`."""
        matched = self.reference and self.reference.modulate(buckets, theta, grad, step=step)
        values = []
        for i, bucket in enumerate(buckets):
            parts = zip(
                bucket.members,
                theta[i].split(bucket.lengths),
                grad[i].split(bucket.lengths),
                matched.values[i].split(bucket.lengths) if matched else bucket.members,
                strict=True,
            )
            values.append(
                torch.cat(
                    [
                        self._answers.checked(
                            self.perturbation.modulation(
                                t,
                                g,
                                step=step,
                                name=member.name,
                                seed=self.seed.value,
                                reference=r if isinstance(r, torch.Tensor) else None,
                            ),
                            t,
                            g,
                        )
                        for member, t, g, r in parts
                    ]
                )
            )
        return Modulation(values, "random")

    def check(self, n_qubits: int) -> None:
        """See :class:`Source`."""
        if self.reference:
            self.reference.check(n_qubits)

    def first_circuit(self, n_qubits: int) -> Circuit | None:
        """See :class:`Source`."""
        return self.reference.first_circuit(n_qubits) if self.reference else None

    def advice(self, n_qubits: int) -> str | None:
        """See :class:`Source`."""
        return self.reference.advice(n_qubits) if self.reference else None


def _host(tensor: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(tensor.detach().to("cpu", torch.float64).numpy())
