"""What every simulator that an adapter wraps is held to: the core's state vector, and our order.

An adapter's tests derive from :class:`SimulatorTests`; their fixture ``name`` gives the backends.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qsgd_core.circuits import GATES, Circuit, CircuitBatch, Gate, Slot, Workload, ansatz
from qsgd_core.plugins.registry import default_registry
from qsgd_core.simulate import statevector


def make(name: str, **options: Any) -> Any:
    """The backend of that name."""
    return default_registry().make_backend(name, options)


def random_circuit(rng: np.random.Generator, n_qubits: int, n_gates: int) -> Circuit:
    """Every gate of the set, some angles fixed, some slots used twice."""
    gates, slots = [], 0
    for name in (*GATES, *rng.choice(list(GATES), n_gates - len(GATES))):
        arity, angles = GATES[name]
        qubits = tuple(int(q) for q in rng.choice(n_qubits, arity, replace=False))
        angle: float | Slot | None = None
        if angles:
            kind = rng.integers(3) if slots else 0
            angle = [Slot(slots), Slot(int(rng.integers(max(slots, 1)))), float(rng.normal())][kind]
            slots += kind == 0
        gates.append(Gate(str(name), qubits, angle))
    return Circuit(n_qubits, tuple(gates))


def random_batch(seed: int, n_qubits: int = 4, rows: int = 5) -> CircuitBatch:
    """Rows of a random circuit, at random angles."""
    rng = np.random.default_rng(seed)
    circuit = random_circuit(rng, n_qubits, 30)
    observables = (*((q,) for q in range(n_qubits)), (0, n_qubits - 1), tuple(range(n_qubits)))
    return CircuitBatch(circuit, rng.uniform(-4, 4, (rows, circuit.n_slots)), observables)


def reference(batch: CircuitBatch) -> NDArray[np.float64]:
    """⟨observables⟩ by the state vector, (B, n_obs)."""
    angles = torch.from_numpy(batch.angles)
    return statevector.expectations(batch.circuit, angles, batch.observables).numpy()


def assert_within_5_sigma(
    found: NDArray[np.float64], exact: NDArray[np.float64], shots: int
) -> None:
    """sigma of a mean of ``shots`` values ±1; not below that of one deviating shot."""
    sigma = np.sqrt(np.maximum(1 - np.square(exact), 1 / shots) / shots)
    assert (np.abs(found - exact) <= 5 * sigma).all()


def same_rows(rows: int, seed: int = 0) -> CircuitBatch:
    """Rows that are all alike, with outcomes spread over all 16 states."""
    row = np.random.default_rng(seed).uniform(0.3, 1.2, 4)
    return CircuitBatch(ansatz(4, 2), np.tile(row, (rows, 1)))


class SimulatorTests:
    """The tests; a class of an adapter's own makes them its."""

    @pytest.mark.parametrize("seed", range(3))
    def test_random_circuits_agree_exactly_and_in_shots(self, name, seed):
        batch, simulator = random_batch(seed), make(name)
        work = Workload((batch,))
        (exact,) = simulator.run(work, shots=None, seed=seed).expectations(work)
        assert type(exact) is np.ndarray
        assert exact.dtype == np.float64
        np.testing.assert_allclose(exact, reference(batch), rtol=0, atol=1e-10)
        result = simulator.run(work, shots=2000, seed=seed)
        assert result.parts[0].values.shape == (batch.n_rows, 2000, 4)
        assert result.parts[0].values.dtype == np.uint8
        assert_within_5_sigma(result.expectations(work)[0], reference(batch), 2000)

    @pytest.mark.parametrize("shots", [1, 5])
    def test_bit_j_is_qubit_j_and_rows_keep_their_order(self, name, shots):
        flips = Circuit(3, tuple(Gate("ry", (q,), Slot(q)) for q in range(3)))
        rows = [[(row >> qubit) & 1 for qubit in range(3)] for row in range(8)]
        work = Workload((CircuitBatch(flips, math.pi * np.array(rows)),))
        bits = make(name).run(work, shots=shots, seed=0).parts[0].values
        assert bits.shape == (8, shots, 3)
        assert (bits == np.array(rows)[:, None, :]).all()
        (exact,) = make(name).run(work, shots=None, seed=0).expectations(work)
        np.testing.assert_allclose(exact, 1 - 2 * np.array(rows), atol=1e-12)

    def test_batches_of_different_structure_come_back_in_order(self, name):
        flip = CircuitBatch(Circuit(2, (Gate("x", (1,)),)), np.zeros((3, 0)))
        batches = (random_batch(1), flip, random_batch(2, n_qubits=3, rows=1), flip)
        work, simulator = Workload(batches), make(name)
        exact = simulator.run(work, shots=None, seed=1).expectations(work)
        sampled = simulator.run(work, shots=2000, seed=1).expectations(work)
        for batch, values, means in zip(batches, exact, sampled, strict=True):
            np.testing.assert_allclose(values, reference(batch), atol=1e-10)
            assert_within_5_sigma(means, reference(batch), 2000)

    def test_the_same_seed_gives_the_same_bits_and_another_one_others(self, name):
        work = Workload((same_rows(3),))
        one, again, other = (
            make(name).run(work, shots=100, seed=seed).parts[0].values for seed in (7, 7, 8)
        )
        assert (one == again).all()
        assert (one != other).any(axis=(1, 2)).all()

    def test_identical_rows_and_batches_are_independent(self, name):
        shots, rows = 100, 200
        work = Workload((same_rows(rows), same_rows(rows)))
        first, second = make(name).run(work, shots=shots, seed=3).expectations(work)
        expected = (1 - reference(same_rows(1))[0] ** 2) / shots
        # The variance over m rows has a relative sigma of sqrt(2 / (m - 1)); a difference of two
        # independent rows has twice the variance of one.
        for z, scale in ((first, 1), (second, 1), (first - second, 2)):
            ratio = z.var(axis=0, ddof=1) / expected / scale
            assert (np.abs(ratio - 1) < 5 * math.sqrt(2 / (rows - 1))).all()
