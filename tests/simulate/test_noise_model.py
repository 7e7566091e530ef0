"""The compiled noisy circuit against a dense density matrix that shares no code with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsgd_core.circuits import GATES, Circuit, Gate, Slot, ansatz
from qsgd_core.errors import CapabilityError, ConfigError
from qsgd_core.simulate import ideal, noise, statevector
from qsgd_core.simulate.noise import NoisyCircuit, average_gate_error, depolarising_of

PAULIS = {
    "i": np.eye(2, dtype=complex),
    "x": np.array([[0, 1], [1, 0]], dtype=complex),
    "y": np.array([[0, -1j], [1j, 0]]),
    "z": np.diag([1.0 + 0j, -1]),
}
PROJECTORS = (np.diag([1.0 + 0j, 0]), np.diag([0.0 + 0j, 1]))


def on(operators, n):
    """Kronecker product with qubit 0 as the lowest bit."""
    full = np.eye(1)
    for qubit in reversed(range(n)):
        full = np.kron(full, operators.get(qubit, PAULIS["i"]))
    return full


def unitary(gate, n, angle):
    if gate.name in ("cx", "cz"):
        control, target = gate.qubits
        flipped = on({control: PROJECTORS[1], target: PAULIS[gate.name[1]]}, n)
        return on({control: PROJECTORS[0]}, n) + flipped
    if gate.name == "h":
        return on({gate.qubits[0]: (PAULIS["x"] + PAULIS["z"]) / math.sqrt(2)}, n)
    if gate.name == "x":
        return on({gate.qubits[0]: PAULIS["x"]}, n)
    turn = math.cos(angle / 2) * PAULIS["i"] - 1j * math.sin(angle / 2) * PAULIS[gate.name[1]]
    return on({gate.qubits[0]: turn}, n)


def dense(circuit, angles, parameters, observables):
    """⟨observables⟩ of one row by density matrix, Kraus operators and confusion matrices."""
    n = circuit.n_qubits
    rho = np.zeros((2**n, 2**n), dtype=complex)
    rho[0, 0] = 1
    for gate in circuit.gates:
        angle = angles[gate.angle.index] if isinstance(gate.angle, Slot) else gate.angle
        if gate.name in ("rx", "ry"):
            offset, gain = parameters[gate.qubits[0], :2]
            angle = angle * (1 + gain) + offset
        u = unitary(gate, n, angle)
        rho = u @ rho @ u.conj().T
        if len(gate.qubits) == 2:
            for qubit in gate.qubits:
                p = parameters[qubit, 2]
                mixed = sum(on({qubit: a}, n) @ rho @ on({qubit: a}, n) for a in PAULIS.values())
                rho = (1 - p) * rho + p / 4 * mixed
    probabilities = np.real(np.diag(rho))
    for qubit in range(n):
        e01, e10 = parameters[qubit, 3:]
        confusion = np.array([[1 - e01, e10], [e01, 1 - e10]])
        probabilities = np.real(on({qubit: confusion}, n)) @ probabilities
    signs = [1 - 2 * (np.arange(2**n) >> q & 1) for q in range(n)]
    return [
        float(probabilities @ math.prod([signs[q] for q in string], start=np.ones(2**n)))
        for string in observables
    ]


@st.composite
def circuits(draw, most_qubits=4):
    n = draw(st.integers(1, most_qubits))
    names = [name for name, (arity, _) in GATES.items() if arity <= n]
    gates, slots = [], 0
    for _ in range(draw(st.integers(1, 20))):
        name = draw(st.sampled_from(names))
        qubits = tuple(draw(st.permutations(range(n)))[: GATES[name][0]])
        angle = None
        if GATES[name][1]:
            choice = draw(st.integers(-1, slots))
            angle = draw(st.floats(-7, 7)) if choice < 0 else Slot(choice)
            slots = max(slots, choice + 1)
        gates.append(Gate(name, qubits, angle))
    strings = st.lists(st.integers(0, n - 1), max_size=n, unique=True).map(tuple)
    observables = tuple(draw(st.lists(strings, min_size=1, max_size=4)))
    return Circuit(n, tuple(gates)), observables


def noisy(rng, shape):
    return np.stack(
        [rng.normal(size=shape) * 0.1, rng.normal(size=shape) * 0.05]
        + [rng.random(shape) * 0.3 for _ in range(3)],
        axis=-1,
    )


@settings(max_examples=60)
@given(circuits(), st.integers(0, 2**32 - 1))
def test_any_circuit_agrees_with_a_density_matrix(drawn, seed):
    circuit, observables = drawn
    rng = np.random.default_rng(seed)
    angles = rng.normal(size=(3, circuit.n_slots)) * 2
    each = noisy(rng, (3, circuit.n_qubits))
    model = NoisyCircuit(circuit, observables)
    rows = [dense(circuit, a, p, observables) for a, p in zip(angles, each, strict=True)]
    np.testing.assert_allclose(model(angles, each), rows, atol=1e-10)
    alike = [dense(circuit, a, each[0], observables) for a in angles]
    np.testing.assert_allclose(model(angles, each[0]), alike, atol=1e-10)


@pytest.mark.parametrize("entangler", ["none", "chain", "ring"])
@pytest.mark.parametrize("phases", [False, True])
def test_without_noise_six_qubits_are_the_state_vector_s(entangler, phases):
    import torch

    circuit = ansatz(6, 2, entangler, phases=phases)
    observables = ((0,), (5,), (1, 4), (0, 1, 2, 3, 4, 5))
    angles = np.random.default_rng(3).normal(size=(7, circuit.n_slots))
    exact = statevector.expectations(circuit, torch.from_numpy(angles), observables).numpy()
    found = NoisyCircuit(circuit, observables)(angles, np.zeros((6, 5)))
    np.testing.assert_allclose(found, exact, atol=1e-12)


def test_rows_taken_in_turns_are_the_same_to_the_bit(monkeypatch):
    circuit = ansatz(3, 2, "ring", phases=True)
    rng = np.random.default_rng(0)
    angles, each = rng.normal(size=(11, circuit.n_slots)), noisy(rng, (11, 3))
    model = NoisyCircuit(circuit, ((0,), (1, 2)))
    at_once = model(angles, each), model(angles, each[0])
    monkeypatch.setattr(noise, "MAX_ELEMENTS", 1)
    np.testing.assert_array_equal(model(angles, each), at_once[0])
    np.testing.assert_allclose(model(angles, each[0]), at_once[1], atol=1e-15)


def test_equal_circuits_are_compiled_once():
    assert noise.compiled(ansatz(2, 2), ((0,),)) is noise.compiled(ansatz(2, 2), ((0,),))


def test_a_product_layer_costs_one_row_per_value_not_one_per_string():
    # H and one layer of Ry on 4 qubits reach 81 Pauli strings; 4 observables see far fewer.
    assert NoisyCircuit(ansatz(4, 2, "ring"), tuple((i,) for i in range(4)))._n_rows < 100


@pytest.mark.parametrize("angles, parameters", [((2, 3), (4, 5)), ((2, 4), (3, 5)), ((4,), (4, 5))])
def test_shapes_that_do_not_fit_are_named(angles, parameters):
    model = NoisyCircuit(ansatz(4, 1), ((0,),))
    with pytest.raises(ConfigError, match=r"needs \(B, 4\) and \(4, 5\)"):
        model(np.zeros(angles), np.zeros(parameters))


def test_seven_qubits_are_refused():
    with pytest.raises(CapabilityError, match=r"up to 6 qubits; this one has 7\..*n_qubits=6"):
        NoisyCircuit(ansatz(7, 1), ((0,),))


# --- figures of merit ----------------------------------------------------------------------------


@given(st.floats(0, 0.5))
def test_gate_error_and_depolarising_are_each_other_s_inverse(p):
    assert depolarising_of(average_gate_error(p)) == pytest.approx(p, abs=1e-12)


def test_average_gate_error_is_the_mean_over_random_states():
    # Mean fidelity of |ψ⟩ after two depolarising channels, over Haar-random two-qubit states.
    p = 0.1
    rng = np.random.default_rng(7)
    states = rng.normal(size=(4000, 4)) + 1j * rng.normal(size=(4000, 4))
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    weights = {name: p / 4 + (1 - p) * (name == "i") for name in PAULIS}
    fidelity = sum(
        weights[a]
        * weights[b]
        * np.abs(np.einsum("si,ij,sj->s", states.conj(), on({0: m, 1: k}, 2), states)) ** 2
        for a, m in PAULIS.items()
        for b, k in PAULIS.items()
    )
    error = 1 - fidelity
    five_sigma = 5 * error.std() / math.sqrt(len(error))
    assert abs(error.mean() - average_gate_error(p)) < five_sigma < 0.003


# --- exact values of wider circuits ---------------------------------------------------------------


@pytest.mark.parametrize("phases", [False, True])
@pytest.mark.parametrize("entangler", ["none", "chain", "ring"])
def test_exact_values_are_the_same_by_formula_and_by_state_vector(entangler, phases):
    import torch

    circuit = ansatz(8, 2, entangler, phases=phases)
    observables = ((3,), (0,), (7,))
    angles = np.random.default_rng(1).normal(size=(5, circuit.n_slots)) * 3
    exact = statevector.expectations(circuit, torch.from_numpy(angles), observables).numpy()
    np.testing.assert_allclose(ideal.ideal(circuit, angles, observables), exact, atol=1e-12)


def test_a_chain_of_a_hundred_qubits_has_exact_values():
    circuit = ansatz(100, 2)
    z = ideal.ideal(circuit, np.full((2, 100), 0.1), ((0,), (99,)))
    assert z.shape == (2, 2)
    assert np.abs(z).max() <= 1


@pytest.mark.parametrize(
    "circuit, observables",
    [
        (ansatz(15, 2, "ring"), ((0,),)),
        (ansatz(15, 2, "chain"), ((0, 1),)),
        (Circuit(15, (*ansatz(15, 2).gates, Gate("h", (0,)))), ((0,),)),
        (Circuit(15, (Gate("h", (0,)),)), ((0,),)),
    ],
)
def test_a_wide_circuit_that_is_no_chain_has_none(circuit, observables):
    with pytest.raises(CapabilityError, match="15 qubits are not available"):
        ideal.check(circuit, observables)
