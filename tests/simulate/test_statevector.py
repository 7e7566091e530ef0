"""The state vector against qiskit, and its shots against the law they are drawn from."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp, Statevector

from qsgd_core.circuits import GATES, Circuit, Gate, Slot, ansatz
from qsgd_core.errors import CapabilityError, ConfigError
from qsgd_core.simulate import statevector

SIGMAS = 5


def random_circuit(n: int, n_gates: int, rng: np.random.Generator, names=tuple(GATES)) -> Circuit:
    """Gates of the whole set on random qubits; half of the angles are slots."""
    gates, slots = [], 0
    names = [name for name in names if GATES[name][0] <= n]
    for _ in range(n_gates):
        name = str(rng.choice(names))
        qubits = tuple(int(q) for q in rng.choice(n, GATES[name][0], replace=False))
        angle = None
        if GATES[name][1]:
            angle = Slot(slots) if rng.random() < 0.5 else float(rng.normal(scale=3))
            slots += isinstance(angle, Slot)
        gates.append(Gate(name, qubits, angle))
    return Circuit(n, tuple(gates))


def to_qiskit(circuit: Circuit, angles: np.ndarray) -> QuantumCircuit:
    out = QuantumCircuit(circuit.n_qubits)
    for gate in circuit.gates:
        angle = angles[gate.angle.index] if isinstance(gate.angle, Slot) else gate.angle
        getattr(out, gate.name)(*(() if angle is None else (angle,)), *gate.qubits)
    return out


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("names", [tuple(GATES), ("h", "x", "ry", "cx", "cz")])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_amplitudes_and_probabilities_equal_qiskits(n, names, dtype, tolerance):
    rng = np.random.default_rng(n)
    for _ in range(5):
        circuit = random_circuit(n, 25, rng, names)
        angles = rng.normal(scale=2, size=(3, circuit.n_slots))
        given = torch.from_numpy(angles).to(dtype)
        amplitudes = statevector.amplitudes(circuit, given)
        probabilities = statevector.probabilities(circuit, given)
        assert amplitudes.is_complex()
        assert probabilities.dtype == dtype
        for row in range(3):
            expected = Statevector(to_qiskit(circuit, angles[row])).data
            assert np.abs(amplitudes[row].numpy() - expected).max() <= tolerance
            assert np.abs(probabilities[row].numpy() - np.abs(expected) ** 2).max() <= tolerance


def test_expectations_of_z_strings_equal_qiskits():
    rng = np.random.default_rng(1)
    circuit = random_circuit(4, 40, rng)
    angles = rng.normal(size=(2, circuit.n_slots))
    strings = [s for size in range(5) for s in itertools.combinations(range(4), size)]
    z = statevector.expectations(circuit, torch.from_numpy(angles), strings)
    assert z.shape == (2, 16)
    for row in range(2):
        state = Statevector(to_qiskit(circuit, angles[row]))
        for column, string in enumerate(strings):
            operator = SparsePauliOp.from_sparse_list([("Z" * len(string), string, 1)], 4)
            assert z[row, column].item() == pytest.approx(
                state.expectation_value(operator).real, abs=1e-13
            )


def test_qubit_j_is_bit_j_of_the_index_and_column_j_of_the_bits():
    circuit = Circuit(3, (Gate("x", (1,)),))
    angles = torch.empty(2, 0, dtype=torch.float64)
    assert statevector.probabilities(circuit, angles).argmax(1).tolist() == [0b010, 0b010]
    bits = statevector.sample(circuit, angles, shots=4, rng=np.random.default_rng(0))
    assert bits.dtype == np.uint8
    assert bits.shape == (2, 4, 3)
    assert (bits == [0, 1, 0]).all()


@pytest.fixture(scope="module")
def drawn():
    """16,384 shots of each of 6 rows of a correlated circuit, and the law they came from."""
    rng = np.random.default_rng(2)
    circuit = ansatz(4, 2, "chain", phases=True)
    angles = torch.from_numpy(rng.normal(size=(6, circuit.n_slots)))
    bits = statevector.sample(circuit, angles, shots=16384, rng=np.random.default_rng(3))
    return circuit, angles, bits


def test_means_and_pair_correlations_are_within_5_sigma(drawn):
    circuit, angles, bits = drawn
    strings = [(i,) for i in range(4)] + list(itertools.combinations(range(4), 2))
    exact = statevector.expectations(circuit, angles, strings).numpy()
    signs = 1.0 - 2.0 * bits
    found = np.stack([signs[:, :, list(s)].prod(2).mean(1) for s in strings], axis=1)
    sigma = np.sqrt((1 - exact**2) / bits.shape[1])
    assert (np.abs(found - exact) <= SIGMAS * sigma).all()
    # The pairs are correlated, so independent qubits would have failed above.
    products = np.stack([exact[:, i] * exact[:, j] for i, j in strings[4:]], axis=1)
    assert np.abs(exact[:, 4:] - products).max() > 0.3


def test_every_outcome_has_its_probability_within_5_sigma(drawn):
    circuit, angles, bits = drawn
    p = statevector.probabilities(circuit, angles).numpy()
    index = bits.astype(int) @ (1 << np.arange(4))
    found = np.stack([np.bincount(row, minlength=16) for row in index]) / bits.shape[1]
    assert (np.abs(found - p) <= SIGMAS * np.sqrt(p * (1 - p) / bits.shape[1])).all()


def test_shots_come_in_no_order_within_a_row(drawn):
    _, _, bits = drawn
    half = bits.shape[1] // 2
    signs = 1.0 - 2.0 * bits
    first, second = signs[:, :half].mean(1), signs[:, half:].mean(1)
    sigma = np.sqrt(2 * (1 - signs.mean(1) ** 2) / half)
    assert (np.abs(first - second) <= SIGMAS * sigma).all()


def test_variance_over_rows_is_the_binomial_one_and_rows_are_independent():
    rows, shots = 2000, 64
    circuit = ansatz(2, 1, "chain")
    angles = torch.tensor([[0.4, 0.9]], dtype=torch.float64).repeat(rows, 1)
    bits = statevector.sample(circuit, angles, shots=shots, rng=np.random.default_rng(4))
    exact = statevector.expectations(circuit, angles[:1], [(0,), (1,)])[0].numpy()
    signs = 1.0 - 2.0 * bits
    # The sample variance of R near-normal means has a relative sigma of √(2/R).
    variance = signs.mean(1).var(0, ddof=1)
    expected = (1 - exact**2) / shots
    assert (np.abs(variance / expected - 1) <= SIGMAS * np.sqrt(2 / rows)).all()
    # Shot k of row r against shot k of row r + 1: uncorrelated, sigma 1/√N.
    centred = (signs - exact) / np.sqrt(1 - exact**2)
    correlation = (centred[:-1] * centred[1:]).mean((0, 1))
    assert (np.abs(correlation) <= SIGMAS / np.sqrt((rows - 1) * shots)).all()


def test_bits_depend_on_the_seed_alone_not_on_how_rows_are_taken_in_turns(monkeypatch):
    circuit = ansatz(3, 2, "ring")
    angles = torch.from_numpy(np.random.default_rng(5).normal(size=(9, 3)))

    def draw(seed: int) -> np.ndarray:
        return statevector.sample(circuit, angles, shots=50, rng=np.random.default_rng(seed))

    whole = draw(6)
    exact = statevector.expectations(circuit, angles, [(0, 1)])
    assert not np.array_equal(whole, draw(7))
    monkeypatch.setattr(statevector, "MAX_AMPLITUDES", 100)
    assert np.array_equal(whole, draw(6))
    assert torch.equal(exact, statevector.expectations(circuit, angles, [(0, 1)]))


def test_impossible_outcomes_never_come_up():
    # A GHZ state gives only 000 and 111; single precision must not let others in.
    circuit = Circuit(3, (Gate("h", (0,)), Gate("cx", (0, 1)), Gate("cx", (1, 2))))
    angles = torch.empty(1, 0, dtype=torch.float32)
    bits = statevector.sample(circuit, angles, shots=20000, rng=np.random.default_rng(8))
    assert (bits == bits[:, :, :1]).all()
    assert 0.45 < bits.mean() < 0.55


def test_twenty_qubits_run_and_twenty_one_do_not():
    flip = tuple(Gate("x", (i,)) for i in (0, 19))
    angles = torch.empty(1, 0)
    z = statevector.expectations(Circuit(20, flip), angles, [(0,), (1,), (0, 19), (0, 1)])
    assert z.tolist() == [[-1.0, 1.0, 1.0, -1.0]]
    with pytest.raises(CapabilityError, match="goes to 20 qubits; the circuit has 21"):
        statevector.probabilities(Circuit(21, flip), angles)


def test_no_rows_give_no_values():
    circuit = ansatz(3, 2, "ring", phases=True)
    angles = torch.empty(0, circuit.n_slots)
    assert statevector.amplitudes(circuit, angles).shape == (0, 8)
    assert statevector.expectations(circuit, angles, [(0,)]).shape == (0, 1)
    bits = statevector.sample(circuit, angles, shots=5, rng=np.random.default_rng(0))
    assert bits.shape == (0, 5, 3)


@pytest.mark.parametrize("angles", [torch.zeros(2, 3), torch.zeros(4)])
def test_angles_of_the_wrong_shape_are_refused(angles):
    with pytest.raises(ConfigError, match=r"shape \(rows, 4\)"):
        statevector.amplitudes(ansatz(4, 1), angles)


def test_angles_of_the_wrong_dtype_are_refused():
    with pytest.raises(ConfigError, match=r"float32 or float64, not torch\.bfloat16"):
        statevector.amplitudes(ansatz(4, 1), torch.zeros(1, 4, dtype=torch.bfloat16))
