"""PennyLane's own devices against the core's state vector, and what goes wrong between them."""

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
    random_batch,
    reference,
    same_rows,
)

from qsgd_core import QSGD
from qsgd_core.circuits import GATES, Circuit, CircuitBatch, Gate, Workload, ansatz
from qsgd_core.errors import BackendError, CapabilityError, ConfigError, UnknownBackendError
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


class TestPennyLane(SimulatorTests):
    @pytest.fixture(params=DEVICES)
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)


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
