"""The three methods against the core's state vector, and what Aer gets wrong by itself."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from simulator_suite import (
    SimulatorTests,
    assert_within_5_sigma,
    make,
    reference,
    same_rows,
)

from qsgd_core import QSGD
from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Slot, Workload, ansatz
from qsgd_core.errors import BackendError, CapabilityError, ConfigError, UnknownBackendError
from qsgd_core.plugins.registry import default_registry

METHODS = ("aer:statevector", "aer:density_matrix", "aer:matrix_product_state")

LIGHT = """
import sys
from qsgd_core.plugins.registry import default_registry
specs = [found.spec for found in default_registry().backends()]
assert any(spec.prefix == "aer" for spec in specs), specs
sys.exit(", ".join({"qiskit", "qiskit_aer", "torch", "qsgd_aer.backend"} & set(sys.modules)) or 0)
"""


class TestAer(SimulatorTests):
    @pytest.fixture(params=METHODS)
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)


@pytest.mark.parametrize("name", METHODS)
def test_qubits_that_idle_do_not_shift_the_others(name):
    # Aer cuts idle qubits away, and then saves expectation values of the wrong ones.
    circuit = Circuit(5, (Gate("x", (3,)), Gate("ry", (4,), Slot(0)), Gate("cx", (3, 1))))
    batch = CircuitBatch(circuit, np.array([[0.4], [2.0]]), ((3,), (4,), (1,), (1, 4), (4, 3)))
    work = Workload((batch,))
    (found,) = make(name).run(work, shots=None, seed=0).expectations(work)
    np.testing.assert_allclose(found, reference(batch), atol=1e-12)


def test_matrix_product_states_stay_exact_for_deep_chains():
    angles = np.random.default_rng(0).uniform(-4, 4, (16, 10))
    batch = CircuitBatch(ansatz(10, 3), angles)
    work = Workload((batch,))
    (found,) = make("aer:matrix_product_state").run(work, shots=None, seed=0).expectations(work)
    # Aer's own singular values are good to 1e-10 only.
    np.testing.assert_allclose(found, reference(batch), rtol=0, atol=1e-12)


def test_one_simulator_called_twice_does_not_repeat_its_noise():
    work, simulator = Workload((same_rows(1),)), make("aer:statevector")
    one, two = (simulator.run(work, shots=100, seed=seed).parts[0].values for seed in (1, 2))
    assert (one != two).any()


def test_batches_and_neighbouring_seeds_share_no_draws():
    def outcomes(batches: int, rows: int, seed: int) -> list[bytes]:
        """A row's shots, sorted: Aer's draws, whatever order we put them in."""
        work = Workload((same_rows(rows),) * batches)
        parts = make("aer:statevector").run(work, shots=300, seed=seed).parts
        packed = [np.packbits(row, axis=1) for part in parts for row in part.values]
        return [np.sort(row, axis=0).tobytes() for row in packed]

    # Seed s, row 1 is seed s + 2113, row 0 to Aer itself.
    seen = outcomes(2, 3, 0) + outcomes(2, 3, 2113)
    assert len(set(seen)) == len(seen) == 12


def test_a_circuit_without_slots_runs_once_for_each_row():
    coin = CircuitBatch(Circuit(1, (Gate("h", (0,)),)), np.zeros((20, 0)))
    bits = make("aer:statevector").run(Workload((coin,)), shots=64, seed=0).parts[0].values
    assert bits.shape == (20, 64, 1)
    assert len({row.tobytes() for row in bits}) == 20


def test_any_part_of_a_rows_shots_is_a_fair_sample():
    shots = 4000
    work = Workload((same_rows(4),))
    bits = make("aer:statevector").run(work, shots=shots, seed=5).parts[0].values
    z = 1 - 2 * bits[:, : shots // 4].mean(axis=1)
    assert_within_5_sigma(z, reference(same_rows(4)), shots // 4)


@pytest.mark.parametrize("name", METHODS)
def test_depth_1_gives_the_sine_of_pi_theta(name):
    theta = np.random.default_rng(1).uniform(-1, 1, (64, 4))
    work = Workload((CircuitBatch(ansatz(4, 1), math.pi * theta),))
    independent = Workload((CircuitBatch(ansatz(4, 1, "none"), math.pi * theta),))
    # H then Ry(πθ) gives ⟨Z⟩ = -sin(πθ); the perturbation takes the sign.
    z = make(name).run(independent, shots=1024, seed=2).expectations(independent)[0]
    assert_within_5_sigma(-z, np.sin(math.pi * theta), 1024)
    z = make(name).run(work, shots=1024, seed=2).expectations(work)[0]
    assert_within_5_sigma(z, reference(work.batches[0]), 1024)


@pytest.mark.parametrize("name", METHODS)
def test_depth_2_agrees_with_the_backend_exact_for_64_blocks(name):
    theta = np.random.default_rng(2).uniform(-1, 1, (64, 4))
    work = Workload((CircuitBatch(ansatz(4, 2), math.pi * theta),))
    (exact,) = (
        default_registry().make_backend("exact").run(work, shots=None, seed=0).expectations(work)
    )
    z = make(name).run(work, shots=1024, seed=3).expectations(work)[0]
    assert_within_5_sigma(z, exact, 1024)


def test_more_than_12_qubits_run_too():
    batch = CircuitBatch(ansatz(14, 2), np.random.default_rng(0).uniform(-3, 3, (2, 14)))
    work = Workload((batch,))
    z = make("aer:statevector").run(work, shots=500, seed=0).expectations(work)[0]
    assert_within_5_sigma(z, reference(batch), 500)


def test_outcomes_of_63_qubits_keep_every_bit():
    ends = Circuit(63, (Gate("x", (0,)), Gate("x", (62,))))
    work = Workload((CircuitBatch(ends, np.zeros((1, 0))),))
    bits = make("aer:matrix_product_state").run(work, shots=3, seed=0).parts[0].values
    assert bits.sum(axis=(0, 1)).tolist() == [3, *[0] * 61, 3]


@pytest.mark.parametrize("name", METHODS)
def test_too_many_qubits_are_refused_with_the_number_that_fits(name):
    simulator = make(name)
    limit = simulator.capabilities.max_qubits
    work = Workload((CircuitBatch(ansatz(limit + 1, 1), np.zeros((1, limit + 1))),))
    with pytest.raises(CapabilityError, match=f"n_qubits={limit} or less"):
        simulator.run(work, shots=1, seed=0)


def test_a_run_that_aer_marks_as_failed_is_an_error_with_its_words():
    simulator = make("aer:statevector")
    simulator._simulator.set_options(max_memory_mb=1)
    work = Workload((CircuitBatch(ansatz(18, 1), np.zeros((1, 18))),))
    with pytest.raises(BackendError, match="Insufficient memory"):
        simulator.run(work, shots=1, seed=0)


def test_what_aer_raises_becomes_a_backend_error_with_its_cause():
    simulator = make("aer:statevector")
    simulator._simulator.set_options(device="GPU" if not has_gpu() else "Thrust")
    with pytest.raises(BackendError, match="not supported") as caught:
        simulator.run(Workload((same_rows(1),)), shots=1, seed=0)
    assert caught.value.__cause__ is not None


def has_gpu() -> bool:
    from qiskit_aer import AerSimulator

    return "GPU" in AerSimulator().available_devices()


@pytest.mark.parametrize("name", ["aer:statevector@gpu", "aer:density_matrix@gpu"])
def test_a_gpu_that_aer_does_not_see_is_refused_with_the_pip_line(name, monkeypatch):
    from qiskit_aer import AerSimulator

    # As Aer does: a simulator that was made for the GPU claims to have one.
    monkeypatch.setattr(
        AerSimulator,
        "available_devices",
        lambda self: ["GPU"] if "_gpu" in self.name else ("CPU",),
    )
    with pytest.raises(
        CapabilityError, match=r"devices: CPU.*pip install qiskit-aer-gpu"
    ) as caught:
        make(name)
    assert repr(name.partition("@")[0]) in str(caught.value)


@pytest.mark.parametrize("name", ["aer:matrix_product_state@gpu", "aer:state_vector", "aer:"])
def test_a_method_that_is_not_served_names_those_that_are(name):
    with pytest.raises(UnknownBackendError, match="aer:statevector, aer:density_matrix"):
        make(name)


def test_an_unknown_option_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'noise_model'"):
        make("aer:statevector", noise="x")


def test_shots_are_exact_by_default_and_capabilities_say_so():
    has = make("aer:statevector").capabilities
    assert has.exact
    assert has.sampled
    assert has.seeded
    assert not has.noisy
    assert not has.closed_form
    assert has.default_shots is None


def test_listing_names_loads_neither_aer_nor_torch():
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shots", [256, None])
def test_the_optimizer_trains_on_it(shots):
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 3)
    optimizer = QSGD(
        model.parameters(),
        lr=0.05,
        quantum_weight=0.5,
        perturbation="circuit",
        backend="aer:statevector",
        shots=shots,
    )
    x, losses = torch.randn(32, 6), []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert optimizer.qsgd_stats().effect_size > 0
