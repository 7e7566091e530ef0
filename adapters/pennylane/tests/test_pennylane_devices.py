"""PennyLane's own devices against the core's state vector, and what goes wrong between them."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from qsgd_core import QSGD
from qsgd_core.circuits import GATES, Circuit, CircuitBatch, Gate, Slot, Workload, ansatz
from qsgd_core.errors import BackendError, CapabilityError, ConfigError, UnknownBackendError
from qsgd_core.plugins.registry import default_registry
from qsgd_core.simulate import statevector
from qsgd_pennylane.translate import possible_gates, rewrite

DEVICES = ("pennylane:default.qubit", "pennylane:lightning.qubit", "pennylane:default.mixed")

LIGHT = """
import sys
from qsgd_core.plugins.registry import default_registry
specs = [found.spec for found in default_registry().backends()]
assert any(spec.prefix == "pennylane" for spec in specs), specs
heavy = {"pennylane", "torch", "qsgd_pennylane.backend"}
sys.exit(", ".join(heavy & set(sys.modules)) or 0)
"""


def make(name, **options):
    return default_registry().make_backend(name, options)


def random_circuit(rng, n_qubits: int, n_gates: int) -> Circuit:
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
    rng = np.random.default_rng(seed)
    circuit = random_circuit(rng, n_qubits, 30)
    observables = (*((q,) for q in range(n_qubits)), (0, n_qubits - 1), tuple(range(n_qubits)))
    return CircuitBatch(circuit, rng.uniform(-4, 4, (rows, circuit.n_slots)), observables)


def reference(batch: CircuitBatch) -> np.ndarray:
    angles = torch.from_numpy(batch.angles)
    return statevector.expectations(batch.circuit, angles, batch.observables).numpy()


def assert_within_5_sigma(found, exact, shots: int) -> None:
    """sigma of a mean of ``shots`` values ±1; not below that of one deviating shot."""
    sigma = np.sqrt(np.maximum(1 - np.square(exact), 1 / shots) / shots)
    assert (np.abs(found - exact) <= 5 * sigma).all()


def same_rows(rows: int, seed: int = 0) -> CircuitBatch:
    """Rows that are all alike, with outcomes spread over all 16 states."""
    row = np.random.default_rng(seed).uniform(0.3, 1.2, 4)
    return CircuitBatch(ansatz(4, 2), np.tile(row, (rows, 1)))


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("seed", range(3))
def test_random_circuits_agree_exactly_and_in_shots(name, seed):
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


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("shots", [1, 5])
def test_bit_j_is_qubit_j_and_rows_keep_their_order(name, shots):
    flips = Circuit(3, tuple(Gate("ry", (q,), Slot(q)) for q in range(3)))
    rows = [[(row >> qubit) & 1 for qubit in range(3)] for row in range(8)]
    work = Workload((CircuitBatch(flips, math.pi * np.array(rows)),))
    bits = make(name).run(work, shots=shots, seed=0).parts[0].values
    assert bits.shape == (8, shots, 3)
    assert (bits == np.array(rows)[:, None, :]).all()
    (exact,) = make(name).run(work, shots=None, seed=0).expectations(work)
    np.testing.assert_allclose(exact, 1 - 2 * np.array(rows), atol=1e-12)


@pytest.mark.parametrize("name", DEVICES)
def test_batches_of_different_structure_come_back_in_order(name):
    flip = CircuitBatch(Circuit(2, (Gate("x", (1,)),)), np.zeros((3, 0)))
    batches = (random_batch(1), flip, random_batch(2, n_qubits=3, rows=1), flip)
    work, simulator = Workload(batches), make(name)
    exact = simulator.run(work, shots=None, seed=1).expectations(work)
    sampled = simulator.run(work, shots=2000, seed=1).expectations(work)
    for batch, values, means in zip(batches, exact, sampled, strict=True):
        np.testing.assert_allclose(values, reference(batch), atol=1e-10)
        assert_within_5_sigma(means, reference(batch), 2000)


@pytest.mark.parametrize("name", DEVICES)
def test_the_same_seed_gives_the_same_bits_and_another_one_others(name):
    work = Workload((same_rows(3),))
    one, again, other = (
        make(name).run(work, shots=100, seed=seed).parts[0].values for seed in (7, 7, 8)
    )
    assert (one == again).all()
    assert (one != other).any(axis=(1, 2)).all()


@pytest.mark.parametrize("name", DEVICES)
def test_identical_rows_and_batches_are_independent(name):
    shots, rows = 100, 200
    work = Workload((same_rows(rows), same_rows(rows)))
    first, second = make(name).run(work, shots=shots, seed=3).expectations(work)
    expected = (1 - reference(same_rows(1))[0] ** 2) / shots
    # The variance over m rows has a relative sigma of sqrt(2 / (m - 1)); a difference of two
    # independent rows has twice the variance of one.
    for z, scale in ((first, 1), (second, 1), (first - second, 2)):
        ratio = z.var(axis=0, ddof=1) / expected / scale
        assert (np.abs(ratio - 1) < 5 * math.sqrt(2 / (rows - 1))).all()


def test_a_circuit_without_slots_runs_once_for_each_row():
    coin = CircuitBatch(Circuit(1, (Gate("h", (0,)),)), np.zeros((20, 0)))
    bits = make("pennylane:default.qubit").run(Workload((coin,)), shots=64, seed=0).parts[0].values
    assert bits.shape == (20, 64, 1)
    assert len({row.tobytes() for row in bits}) == 20


@pytest.mark.parametrize("name", DEVICES[:2])
def test_depth_1_gives_the_sine_of_pi_theta(name):
    theta = np.random.default_rng(1).uniform(-1, 1, (64, 4))
    work = Workload((CircuitBatch(ansatz(4, 1, "none"), math.pi * theta),))
    # H then Ry(πθ) gives ⟨Z⟩ = -sin(πθ); the perturbation takes the sign.
    z = make(name).run(work, shots=1024, seed=2).expectations(work)[0]
    assert_within_5_sigma(-z, np.sin(math.pi * theta), 1024)


@pytest.mark.parametrize("name", DEVICES[:2])
def test_depth_2_agrees_with_the_backend_exact_for_64_blocks(name):
    theta = np.random.default_rng(2).uniform(-1, 1, (64, 4))
    work = Workload((CircuitBatch(ansatz(4, 2), math.pi * theta),))
    (exact,) = make("exact").run(work, shots=None, seed=0).expectations(work)
    z = make(name).run(work, shots=1024, seed=3).expectations(work)[0]
    assert_within_5_sigma(z, exact, 1024)


def test_a_batch_too_big_for_one_tape_is_cut_and_put_together_again(monkeypatch):
    monkeypatch.setattr("qsgd_pennylane.backend.BROADCAST", 2**4 * 3)
    batch = random_batch(5, rows=8)
    work = Workload((batch,))
    (exact,) = make("pennylane:default.qubit").run(work, shots=None, seed=0).expectations(work)
    np.testing.assert_allclose(exact, reference(batch), atol=1e-10)


@pytest.mark.parametrize("name", DEVICES)
def test_too_many_qubits_are_refused_with_the_number_that_fits(name):
    simulator = make(name)
    limit = simulator.capabilities.max_qubits
    work = Workload((CircuitBatch(ansatz(limit + 1, 1), np.zeros((1, limit + 1))),))
    with pytest.raises(CapabilityError, match=f"n_qubits={limit} or less"):
        simulator.run(work, shots=1, seed=0)


@pytest.mark.parametrize("name", ["wires", "shots", "seed"])
def test_options_that_are_the_runs_own_are_refused(name):
    with pytest.raises(ConfigError, match=f"{name} cannot be given"):
        make("pennylane:default.qubit", **{name: 3})


def test_an_option_that_the_device_does_not_take_is_refused_in_its_own_words():
    with pytest.raises(ConfigError, match=r"bogus=1: TypeError.*unexpected keyword") as caught:
        make("pennylane:default.qubit", bogus=1)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "device, told",
    [
        ("default.qubits", "Did you mean 'pennylane:default.qubit'"),
        ("lightning.gpu", "pip install pennylane-lightning-gpu"),
        ("cirq.simulator", "pip install pennylane-cirq"),
        ("nothing.like.it", "Installed: .*default.qubit"),
    ],
)
def test_an_unknown_device_gets_close_matches_and_the_pip_line(device, told):
    with pytest.raises(UnknownBackendError, match=told):
        make(f"pennylane:{device}")


@pytest.mark.parametrize(
    "device, told",
    [
        ("qiskit.remote", "qsgd-ibm"),
        ("ionq.qpu", "qsgd-braket"),
        ("braket.aws.qubit", "qsgd-braket"),
        ("somebody.qpu", "No QSGD provider"),
    ],
)
def test_devices_that_can_cost_money_are_refused_with_what_to_use(device, told):
    with pytest.raises(CapabilityError, match=f"outside its ledger.*{told}"):
        make(f"pennylane:{device}")


def test_a_device_that_is_no_simulator_of_qubits_is_refused():
    with pytest.raises(CapabilityError, match="not those of the circuit"):
        make("pennylane:null.qubit")


def test_what_the_device_raises_becomes_a_backend_error_with_its_cause(monkeypatch):
    simulator = make("pennylane:default.qubit")

    def out_of_memory(*args, **kwargs):
        raise MemoryError("2 TiB")

    monkeypatch.setattr("pennylane.execute", out_of_memory)
    with pytest.raises(BackendError, match="3 rows of 4 qubits: MemoryError: 2 TiB") as caught:
        simulator.run(Workload((same_rows(3),)), shots=1, seed=0)
    assert isinstance(caught.value.__cause__, MemoryError)


@pytest.mark.parametrize(
    "native",
    [
        {"h", "ry", "rz", "cx"},
        {"rx", "rz", "cz"},
        {"ry", "rz", "cx"},
        {"h", "rz", "cz"},
        {"h", "rx", "cx"},
    ],
)
def test_every_gate_can_be_written_in_a_devices_own(native):
    assert possible_gates(frozenset(native)) == set(GATES)
    for name, (arity, angles) in GATES.items():
        # Between two random layers, so that a wrong sign or order shows.
        rng = np.random.default_rng(1)
        before = [Gate(r, (q,), float(rng.normal())) for r in ("ry", "rz") for q in range(2)]
        after = [Gate(r, (q,), float(rng.normal())) for r in ("rz", "ry") for q in range(2)]
        gate = Gate(name, (1, 0)[:arity], 0.7 if angles else None)
        written = rewrite(gate, frozenset(native))
        assert {new.name for new in written} <= native
        one, two = (
            CircuitBatch(Circuit(2, (*before, *middle, *after)), np.zeros((1, 0)))
            for middle in ([gate], written)
        )
        np.testing.assert_allclose(reference(one), reference(two), atol=1e-12)


def test_gates_that_cannot_be_written_are_left_out():
    assert possible_gates(frozenset({"ry", "cx"})) == {"ry", "cx"}


def test_listing_names_loads_neither_pennylane_nor_torch():
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
        backend="pennylane:default.qubit",
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
