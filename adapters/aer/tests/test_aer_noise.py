"""A user's noise model: found in every form, and really there in the circuits that run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from qiskit_aer.noise import (
    NoiseModel,
    ReadoutError,
    amplitude_damping_error,
    depolarizing_error,
    pauli_error,
)

from qsgd_aer.noise import AerNoise
from qsgd_aer.noise_files import load
from qsgd_aer.translate import to_qiskit
from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Workload, ansatz
from qsgd_core.errors import CapabilityError, ConfigError
from qsgd_core.plugins.registry import default_registry

DAMPING = 0.08
METHODS = ("aer:density_matrix", "aer:statevector", "aer:matrix_product_state")


def device() -> NoiseModel:
    """A line of five qubits whose ecr exists in one direction only, and is the noisy gate."""
    model = NoiseModel(basis_gates=["ecr", "id", "rz", "sx", "x"])
    for qubit in range(5):
        model.add_quantum_error(amplitude_damping_error(DAMPING), ["sx", "x"], [qubit])
        if qubit:
            model.add_quantum_error(depolarizing_error(0.05, 2), ["ecr"], [qubit, qubit - 1])
    return model


def readout() -> NoiseModel:
    """Reads 1 for 0 with probability 0.1, and 0 for 1 with probability 0.3."""
    model = NoiseModel()
    model.add_all_qubit_readout_error(ReadoutError([[0.9, 0.1], [0.3, 0.7]]))
    return model


def make(name: str = "aer:density_matrix", **options: object):
    return default_registry().make_backend(name, options)


def flips(ones: int, n_qubits: int = 1) -> Workload:
    circuit = Circuit(n_qubits, tuple(Gate("x", (0,)) for _ in range(ones)))
    return Workload((CircuitBatch(circuit, np.zeros((1, 0))),))


def ring() -> Workload:
    angles = np.random.default_rng(0).uniform(-3, 3, (6, 4))
    return Workload((CircuitBatch(ansatz(4, 2, "ring"), angles),))


def operations(circuit) -> set[tuple[str, tuple[int, ...]]]:
    return {
        (step.operation.name, tuple(circuit.find_bit(bit).index for bit in step.qubits))
        for step in circuit.data
        if step.operation.name != "measure"
    }


@pytest.mark.parametrize("entangler", ["chain", "ring"])
def test_circuits_are_rewritten_into_the_models_gates_on_qubits_that_it_couples(entangler):
    noise = AerNoise(device())
    circuit = noise.transpile(to_qiskit(ansatz(4, 2, entangler), measure=True), "aer")
    found = operations(circuit)
    assert {name for name, _ in found} == {"ecr", "rz", "sx"} | (
        {name for name, _ in found} & {"x"}
    )
    pairs = {qubits for name, qubits in found if name == "ecr"}
    assert pairs <= {(q, q - 1) for q in range(1, 5)}
    again = noise.transpile(to_qiskit(ansatz(4, 2, entangler), measure=True), "aer")
    assert operations(again) == found


def test_the_untranspiled_circuit_would_run_without_any_error():
    before = to_qiskit(ansatz(4, 2), measure=True)
    noisy = AerNoise(device())
    assert not operations(before) & noisy.local
    assert operations(noisy.transpile(before, "aer")) & noisy.local


def test_a_model_for_our_own_gates_keeps_them():
    model = NoiseModel()
    model.add_all_qubit_quantum_error(depolarizing_error(0.02, 1), ["h", "ry"])
    model.add_all_qubit_quantum_error(depolarizing_error(0.05, 2), ["cx"])
    noise = AerNoise(model)
    circuit = noise.transpile(to_qiskit(ansatz(3, 2), measure=True), "aer")
    names = {name for name, _ in operations(circuit)}
    assert {"ry", "cx"} <= names <= {"h", "ry", "rz", "cx"}
    assert noise.coupling is None


@pytest.mark.parametrize("name", METHODS)
def test_the_errors_are_in_the_values(name):
    model = NoiseModel(basis_gates=["x", "sx", "rz", "cx"])
    model.add_all_qubit_quantum_error(amplitude_damping_error(DAMPING), ["x"])
    simulator = make(name, noise_model=model)
    # From |1⟩ a share DAMPING falls back to |0⟩: ⟨Z⟩ = -1 + 2·DAMPING.
    z = simulator.run(flips(1), shots=4000, seed=1).expectations(flips(1))[0]
    sigma = 2 * np.sqrt(DAMPING * (1 - DAMPING) / 4000)
    assert abs(z[0, 0] - (-1 + 2 * DAMPING)) < 5 * sigma
    assert simulator.capabilities.noisy


def test_a_readout_error_is_in_the_shots_and_exact_values_are_refused():
    simulator = make(noise_model=readout())
    z = simulator.run(flips(1), shots=4000, seed=1).expectations(flips(1))[0]
    assert abs(z[0, 0] - (-0.4)) < 5 * 2 * np.sqrt(0.3 * 0.7 / 4000)
    assert simulator.capabilities.default_shots == 1024
    with pytest.raises(CapabilityError, match="give shots"):
        simulator.run(flips(1), shots=None, seed=1)


@pytest.mark.parametrize("name", ["aer:statevector", "aer:matrix_product_state"])
def test_trajectories_are_not_passed_off_as_exact_values(name):
    simulator = make(name, noise_model=device())
    assert not simulator.capabilities.exact
    with pytest.raises(CapabilityError, match="give shots"):
        simulator.run(flips(1), shots=None, seed=1)


def test_exact_values_under_noise_follow_the_layout_and_agree_with_the_shots():
    # A ring on a line needs swaps: qubits end up elsewhere than they started.
    work, shots, simulator = ring(), 20000, make(noise_model=device())
    (exact,) = simulator.run(work, shots=None, seed=0).expectations(work)
    (sampled,) = simulator.run(work, shots=shots, seed=0).expectations(work)
    (ideal,) = make().run(work, shots=None, seed=0).expectations(work)
    assert (np.abs(sampled - exact) < 5 * np.sqrt((1 - exact**2) / shots)).all()
    assert np.abs(exact - ideal).max() > 0.05


def test_an_ideal_model_is_no_noise():
    simulator = make(noise_model=NoiseModel())
    assert simulator.capabilities.exact
    assert not simulator.capabilities.noisy


def test_a_circuit_wider_than_the_model_is_refused():
    with pytest.raises(CapabilityError, match="up to 5 qubits"):
        make(noise_model=device()).run(flips(1, n_qubits=6), shots=1, seed=0)


def test_a_model_whose_errors_the_circuit_would_miss_is_refused():
    # The device knows ecr on (1, 0), and its model was given cx as well, for which it has an error
    # on other qubits only: nothing couples qubits 0 and 1 but the ecr.
    model = NoiseModel(basis_gates=["rz", "sx", "ecr"])
    model.add_quantum_error(depolarizing_error(0.1, 2), ["ecr"], [1, 0])
    model.add_quantum_error(depolarizing_error(0.1, 2), ["cx"], [1, 2])
    with pytest.raises(CapabilityError, match=r"errors for cx, ecr.*carries none.*basis_gates"):
        make(noise_model=model).run(ring3(), shots=1, seed=0)


def ring3() -> Workload:
    return Workload((CircuitBatch(ansatz(3, 1, "ring"), np.zeros((1, 3))),))


def test_gates_that_do_not_suffice_are_refused():
    model = NoiseModel(basis_gates=["x"])
    model.add_all_qubit_quantum_error(pauli_error([("X", 0.1), ("I", 0.9)]), ["x"])
    with pytest.raises(CapabilityError, match="finds no such circuit"):
        make(noise_model=model).run(ring(), shots=1, seed=0)


SCRIPT = """
from qiskit_aer.noise import NoiseModel, ReadoutError

MODEL = NoiseModel()
MODEL.add_all_qubit_readout_error(ReadoutError([[0.9, 0.1], [0.3, 0.7]]))
TEXT = "no model"

def make():
    return MODEL

def fails():
    raise KeyError("calibration.csv")
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    path = tmp_path / "my_noise_of_today.py"
    path.write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    return path


@pytest.mark.parametrize("form", ["{}:make", "{}:MODEL", "my_noise_of_today:make"])
def test_a_model_is_found_in_a_script_or_module(script, form):
    assert load(form.format(script)) == readout()


@pytest.mark.parametrize("model", [device(), readout()], ids=["device", "readout"])
def test_a_model_comes_back_from_its_json(tmp_path, model):
    path = tmp_path / "noise.json"
    path.write_text(json.dumps(model.to_dict(serializable=True)))
    work = ring()
    one, two = (
        make(noise_model=noise).run(work, shots=500, seed=4).expectations(work)[0]
        for noise in (str(path), model)
    )
    np.testing.assert_array_equal(one, two)


def test_json_without_a_gate_list_still_gives_the_gates_with_errors(tmp_path):
    path = tmp_path / "noise.json"
    path.write_text(json.dumps(device().to_dict(serializable=True)))
    # Aer itself would transpile into cx here, which carries no error.
    assert "cx" in load(str(path)).basis_gates
    assert "cx" not in AerNoise(load(str(path))).basis


@pytest.mark.parametrize(
    "reference, told",
    [
        ("{folder}/none.json", "cannot be read: No such file"),
        ("{folder}/bad.json", "is not JSON"),
        ("{folder}/list.json", "not what NoiseModel.to_dict"),
        ("{script}:absent", "has no 'absent'"),
        ("{script}:TEXT", "is str, not a"),
        ("{script}:fails", "KeyError: 'calibration.csv'"),
        ("{folder}/none.py:make", "FileNotFoundError"),
        ("no_such_module_here:make", "No module named 'no_such_module_here'"),
        ("depolarizing", "a file whose name ends in .json"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_forms(script, tmp_path, reference, told):
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ConfigError, match=told) as caught:
        make(noise_model=reference.format(folder=tmp_path, script=script))
    assert "script.py:NAME" in str(caught.value)
