"""Simulators that are wrong in one way each; BROKEN says which test of the kit must notice.

Run by tests/test_conformance_simulators.py through the kit's own runner.
"""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import replace

import numpy as np
import pytest

from qsgd_core.backend import Simulator
from qsgd_core.builtin.simulators import ExactSimulator, SampledSimulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Slot, Workload
from qsgd_core.jobs import Bits, Expectations, Result
from qsgd_core.seeds import derive_seed
from qsgd_core.testing import SimulatorConformance


class Good(Simulator):
    """Right in every way, with every limit declared; the others change one thing."""

    capabilities = Capabilities(
        exact=True,
        sampled=True,
        seeded=True,
        max_qubits=6,
        max_rows=100,
        max_total_qubits=200,
        min_shots=2,
        max_shots=50_000,
        max_executions=200_000,
    )

    def __init__(self, name: str = "sampled") -> None:
        self.name = name  # a name that is served, so that its plugin can be looked at

    def run(self, work, *, shots, seed):
        self.capabilities.require(self.name, work, shots=shots)
        work = self.before(work)
        if shots is None:
            return ExactSimulator().run(work, shots=None, seed=0)
        result = SampledSimulator().run(work, shots=shots, seed=seed)
        return Result(tuple(Bits(self.after(part.values)) for part in result.parts))

    def before(self, work):
        return work

    def after(self, bits):
        return bits


def rewired(work: Workload, rewire) -> Workload:
    """The workload with each gate replaced by the gates that ``rewire`` gives for it."""
    return Workload(
        tuple(
            CircuitBatch(
                Circuit(
                    b.circuit.n_qubits,
                    tuple(g for i, gate in enumerate(b.circuit.gates) for g in rewire(i, gate)),
                ),
                b.angles,
                b.observables,
            )
            for b in work.batches
        )
    )


class RowsReversed(Good):
    def after(self, bits):
        return bits[::-1]


class BitsReversed(Good):
    def after(self, bits):
        return bits[:, :, ::-1]


class BitsFlipped(Good):
    def after(self, bits):
        return 1 - bits


class ShotsIgnored(Good):
    def run(self, work, *, shots, seed):
        self.capabilities.require(self.name, work, shots=shots)
        return super().run(work, shots=shots and 1024, seed=seed)


class OneShotLess(Good):
    def after(self, bits):
        return bits[:, 1:]


class SameNoiseEachCall(Good):
    def run(self, work, *, shots, seed):
        return super().run(work, shots=shots, seed=1)


class SameSeedForEachBatch(Good):
    def run(self, work, *, shots, seed):
        self.capabilities.require(self.name, work, shots=shots)
        runs = [
            super(SameSeedForEachBatch, self).run(Workload((b,)), shots=shots, seed=seed)
            for b in work.batches
        ]
        return Result(tuple(run.parts[0] for run in runs))


class SameSeedForEachRow(Good):
    def run(self, work, *, shots, seed):
        if shots is None:
            return super().run(work, shots=shots, seed=seed)
        self.capabilities.require(self.name, work, shots=shots)
        parts = []
        for b in work.batches:
            rows = [CircuitBatch(b.circuit, row[None], b.observables) for row in b.angles]
            runs = [
                super(SameSeedForEachRow, self).run(Workload((r,)), shots=shots, seed=seed)
                for r in rows
            ]
            parts.append(Bits(np.concatenate([run.parts[0].values for run in runs])))
        return Result(tuple(parts))


class SameCountsShuffled(SameSeedForEachRow):
    """As Aer would with equal seeds: the same counts for every row, in another order."""

    def run(self, work, *, shots, seed):
        result = super().run(work, shots=shots, seed=seed)
        if shots is None:
            return result
        rng = np.random.default_rng(seed)
        return Result(
            tuple(
                Bits(rng.permuted(p.values, axis=1))
                if p.values.shape[2] == 1
                else Bits(np.stack([rng.permutation(row) for row in p.values]))
                for p in result.parts
            )
        )


class EqualRowsRunOnce(Good):
    def run(self, work, *, shots, seed):
        result = super().run(work, shots=shots, seed=seed)
        if shots is None:
            return result
        return Result(
            tuple(
                Bits(p.values[np.unique(b.angles, axis=0, return_inverse=True)[1].ravel()])
                if b.angles.size and len(np.unique(b.angles, axis=0)) < b.n_rows
                else p
                for p, b in zip(result.parts, work.batches, strict=True)
            )
        )


class SignOfRy(Good):
    """Slots keep their place; the angle's sign is undone by conjugating with X."""

    gate = "ry"

    def before(self, work):
        def rewire(i, gate):
            if gate.name != self.gate:
                return [gate]
            flip = Gate("h", gate.qubits) if self.gate == "ry" else Gate("ry", gate.qubits, np.pi)
            return [flip, gate, replace_back(flip)]

        return rewired(work, rewire)


def replace_back(gate: Gate) -> Gate:
    """The inverse."""
    return gate if gate.angle is None else replace(gate, angle=-gate.angle)


class SignOfRz(SignOfRy):
    gate = "rz"


class SignOfRx(SignOfRy):
    gate = "rx"


class CxBackwards(Good):
    def before(self, work):
        return rewired(
            work, lambda i, g: [replace(g, qubits=g.qubits[::-1]) if g.name == "cx" else g]
        )


class CzIsCx(Good):
    def before(self, work):
        return rewired(work, lambda i, g: [replace(g, name="cx") if g.name == "cz" else g])


class NoHadamard(Good):
    def before(self, work):
        return rewired(work, lambda i, g: [] if g.name == "h" else [g])


class NoX(Good):
    def before(self, work):
        return rewired(work, lambda i, g: [] if g.name == "x" else [g])


class FixedAnglesLost(Good):
    def before(self, work):
        return rewired(
            work, lambda i, g: [replace(g, angle=0.0) if isinstance(g.angle, float) else g]
        )


class GatesBackwards(Good):
    def before(self, work):
        return Workload(
            tuple(
                CircuitBatch(
                    Circuit(b.circuit.n_qubits, b.circuit.gates[::-1]), b.angles, b.observables
                )
                for b in work.batches
            )
        )


class SlotsSortedAsText(Good):
    def before(self, work):
        batches = []
        for b in work.batches:
            order = sorted(range(b.circuit.n_slots), key=str)
            batches.append(CircuitBatch(b.circuit, b.angles[:, order], b.observables))
        return Workload(tuple(batches))


class SlotsInOrderOfUse(Good):
    def before(self, work):
        batches = []
        for b in work.batches:
            used = [g.angle.index for g in b.circuit.gates if isinstance(g.angle, Slot)]
            order = np.argsort(np.argsort(list(dict.fromkeys(used))))
            batches.append(CircuitBatch(b.circuit, b.angles[:, order], b.observables))
        return Workload(tuple(batches))


class SlotsBoundOnce(Good):
    """A slot that occurs again gets no angle."""

    def before(self, work):
        seen = {}

        def rewire(i, gate):
            if i == 0:
                seen.clear()
            if not isinstance(gate.angle, Slot) or seen.setdefault(gate.angle.index, i) == i:
                return [gate]
            return [replace(gate, angle=0.0)]

        return rewired(work, rewire)


class WrongDtype(Good):
    def after(self, bits):
        return bits.astype(np.int64)


class SignsForBits(Good):
    def after(self, bits):
        return (1 - 2 * bits.astype(np.int8)).astype(np.uint8)


class AxesSwapped(Good):
    def after(self, bits):
        return bits.swapaxes(1, 2)


class MeansForBits(Good):
    def run(self, work, *, shots, seed):
        result = super().run(work, shots=shots, seed=seed)
        return Result(tuple(Expectations(v) for v in result.expectations(work)))


class BatchesReversed(Good):
    def run(self, work, *, shots, seed):
        return Result(super().run(work, shots=shots, seed=seed).parts[::-1])


class FirstBatchOnly(Good):
    def run(self, work, *, shots, seed):
        return Result(super().run(work, shots=shots, seed=seed).parts[:1])


class BatchesJoined(Good):
    """One array for everything: wrong as soon as structures differ."""

    def run(self, work, *, shots, seed):
        self.capabilities.require(self.name, work, shots=shots)
        first = work.batches[0]
        same = [
            CircuitBatch(first.circuit, b.angles, b.observables)
            if b.circuit.n_slots == first.circuit.n_slots
            and b.circuit.n_qubits == first.circuit.n_qubits
            else b
            for b in work.batches
        ]
        return super().run(Workload(tuple(same)), shots=shots, seed=seed)


class QubitsDrawnOneByOne(Good):
    def after(self, bits):
        return np.random.default_rng(0).permuted(bits, axis=1)


class NotSeeded(Good):
    def run(self, work, *, shots, seed):
        return super().run(work, shots=shots, seed=int.from_bytes(os.urandom(7), "big"))


class CountsItsCalls(Good):
    calls = 0

    def run(self, work, *, shots, seed):
        type(self).calls += 1
        return super().run(work, shots=shots, seed=derive_seed(seed, self.calls))


class Depolarised(Good):
    """Ten percent noise that nobody declared."""

    def run(self, work, *, shots, seed):
        result = super().run(work, shots=shots, seed=seed)
        if shots is None:
            return Result(tuple(Expectations(0.9 * p.values) for p in result.parts))
        rng = np.random.default_rng(seed)
        return Result(
            tuple(
                Bits(
                    np.where(
                        rng.random(p.values.shape) < 0.1,
                        rng.integers(0, 2, p.values.shape, dtype=np.uint8),
                        p.values,
                    )
                )
                for p in result.parts
            )
        )


class ExactBySampling(Good):
    def run(self, work, *, shots, seed):
        if shots is not None:
            return super().run(work, shots=shots, seed=seed)
        sampled = SampledSimulator().run(work, shots=1024, seed=seed)
        return Result(tuple(Expectations(v) for v in sampled.expectations(work)))


class ExactInSinglePrecision(Good):
    def run(self, work, *, shots, seed):
        result = super().run(work, shots=shots, seed=seed)
        if shots is not None:
            return result
        return Result(tuple(Expectations(p.values.astype(np.float32)) for p in result.parts))


class ExactForgetsObservables(Good):
    def before(self, work):
        return Workload(tuple(CircuitBatch(b.circuit, b.angles) for b in work.batches))


class LimitsNotChecked(Good):
    def run(self, work, *, shots, seed):
        work = self.before(work)
        if shots is None:
            return ExactSimulator().run(work, shots=None, seed=0)
        return Result(tuple(SampledSimulator().run(work, shots=max(1, shots), seed=seed).parts))


class RefusesWithValueError(Good):
    def run(self, work, *, shots, seed):
        if self.capabilities.missing(work, shots=shots):
            raise ValueError("too large")
        return super().run(work, shots=shots, seed=seed)


class AnswersExactlyAskedForShots(Good):
    capabilities = replace(Good.capabilities, sampled=False)

    def run(self, work, *, shots, seed):
        return ExactSimulator().run(work, shots=None, seed=0)


class ClaimsNothing(Good):
    capabilities = replace(Good.capabilities, sampled=False, exact=False)


class ChangesTheAngles(Good):
    def before(self, work):
        for batch in work.batches:
            batch.angles[...] = np.remainder(batch.angles, 2 * np.pi) + 0.0
            batch.angles[...] += 2 * np.pi
        return work


class LogsTheToken(Good):
    def run(self, work, *, shots, seed):
        logging.getLogger("vendor").info("headers: %s", os.environ["QISKIT_IBM_TOKEN"])
        return super().run(work, shots=shots, seed=seed)


class ShowsTheToken(Good):
    def __repr__(self):
        return f"ShowsTheToken(key={os.environ['AWS_SECRET_ACCESS_KEY']})"


class CallsHome(Good):
    def run(self, work, *, shots, seed):
        socket.create_connection(("127.0.0.1", 9), timeout=1)
        return super().run(work, shots=shots, seed=seed)


class NotInstalled(Good):
    def __init__(self):
        super().__init__("a_name_that_nobody_serves")


class NoisyAndReversed(Depolarised):
    capabilities = replace(Good.capabilities, noisy=True, exact=False)

    def after(self, bits):
        return bits[:, :, ::-1]


class NothingButNoise(Good):
    capabilities = replace(Good.capabilities, noisy=True, exact=False, seeded=False)

    def after(self, bits):
        return np.random.default_rng(0).integers(0, 2, bits.shape, dtype=np.uint8)


BROKEN = {
    RowsReversed: "test_rows_keep_their_order",
    BitsReversed: "test_column_j_is_qubit_j",
    BitsFlipped: "test_column_j_is_qubit_j",
    ShotsIgnored: "test_the_number_of_shots_is_exactly_what_was_asked_for",
    OneShotLess: "test_any_allowed_number_of_shots_is_kept_to[333]",
    SameNoiseEachCall: "test_two_calls_differ",
    SameSeedForEachBatch: "test_identical_rows_are_independent",
    SameSeedForEachRow: "test_identical_rows_are_independent",
    SameCountsShuffled: "test_identical_rows_are_independent",
    EqualRowsRunOnce: "test_identical_rows_are_independent",
    SignOfRy: "test_a_gate_agrees_with_the_state_vector[ry]",
    SignOfRz: "test_a_gate_agrees_with_the_state_vector[rz]",
    SignOfRx: "test_a_gate_agrees_with_the_state_vector[rx]",
    CxBackwards: "test_a_gate_agrees_with_the_state_vector[cx]",
    CzIsCx: "test_a_gate_agrees_with_the_state_vector[cz]",
    NoHadamard: "test_a_gate_agrees_with_the_state_vector[h]",
    NoX: "test_a_gate_agrees_with_the_state_vector[x]",
    FixedAnglesLost: "test_all_claimed_gates_agree_in_one_circuit",
    GatesBackwards: "test_all_claimed_gates_agree_in_one_circuit",
    SlotsSortedAsText: "test_slots_keep_their_columns",
    SlotsInOrderOfUse: "test_slots_keep_their_columns",
    SlotsBoundOnce: "test_the_papers_circuit_agrees",
    WrongDtype: "test_bits_have_the_right_shape_and_type",
    SignsForBits: "test_bits_have_the_right_shape_and_type",
    AxesSwapped: "test_bits_have_the_right_shape_and_type",
    MeansForBits: "test_bits_have_the_right_shape_and_type",
    BatchesReversed: "test_every_batch_gets_its_part_in_order",
    FirstBatchOnly: "test_every_batch_gets_its_part_in_order",
    BatchesJoined: "test_column_j_is_qubit_j",
    QubitsDrawnOneByOne: "test_columns_of_one_shot_belong_together",
    NotSeeded: "test_the_same_seed_gives_the_same_bits",
    CountsItsCalls: "test_the_same_seed_gives_the_same_bits",
    Depolarised: "test_column_j_is_qubit_j",
    ExactBySampling: "test_exact_values_are_exact[ansatz]",
    ExactInSinglePrecision: "test_exact_values_are_exact[order]",
    ExactForgetsObservables: "test_exact_values_are_exact[joint]",
    LimitsNotChecked: "test_a_limit_is_refused_before_anything_runs[max_shots]",
    RefusesWithValueError: "test_a_limit_is_refused_before_anything_runs[max_qubits]",
    AnswersExactlyAskedForShots: "test_what_it_cannot_do_is_refused",
    ClaimsNothing: "test_it_says_what_it_is",
    ChangesTheAngles: "test_the_workload_is_left_as_it_was",
    LogsTheToken: "test_no_secret_is_printed",
    ShowsTheToken: "test_no_secret_is_printed",
    CallsHome: "test_rows_keep_their_order",
    NotInstalled: "test_its_plugin_stays_light",
    NoisyAndReversed: "test_column_j_is_qubit_j",
    NothingButNoise: "test_rows_keep_their_order",
}
"""Wrong simulator -> the test that must fail."""


def suite(kind: type[Simulator]) -> type[SimulatorConformance]:
    """The one subclass and the one fixture."""

    @pytest.fixture(scope="class")
    @classmethod
    def simulator(cls):
        return kind()

    return type(kind.__name__, (SimulatorConformance,), {"simulator": simulator})


for _kind in (Good, *BROKEN):
    globals()[f"Test{_kind.__name__}"] = suite(_kind)
