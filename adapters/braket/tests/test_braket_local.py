"""braket:local and braket:dm against the core's own state vector, and by law."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from braket.circuits import Gate as BraketGate
from braket.circuits import Noise
from braket.circuits.noise_model import (
    GateCriteria,
    MeasureCriteria,
    NoiseModel,
    ObservableCriteria,
)
from braket.devices import LocalSimulator
from braket.ir.openqasm import Program
from braket.program_sets import CircuitBinding, ProgramSet

from qsgd_braket import translate
from qsgd_braket.local import backend as local
from qsgd_braket.local.backend import BraketLocal
from qsgd_braket.local.sampling import expectations, sample
from qsgd_braket.options import DensityMatrixOptions
from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Slot, Workload, ansatz
from qsgd_core.errors import BackendError, CapabilityError
from qsgd_core.simulate import statevector

BOTH = ["braket:local", "braket:dm"]
EVERY_GATE = Circuit(
    3,
    (
        Gate("h", (0,)),
        Gate("x", (1,)),
        Gate("rx", (2,), Slot(0)),
        Gate("ry", (1,), 1.2345678901234567e-3),
        Gate("ry", (0,), Slot(1)),
        Gate("rz", (0,), -math.pi),
        Gate("cx", (0, 2)),
        Gate("h", (0,)),
        Gate("cz", (2, 1)),
        Gate("rx", (1,), Slot(1)),
    ),
)


def angles(rows: int, slots: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-math.pi, math.pi, (rows, slots))


def ideal(batch: CircuitBatch) -> np.ndarray:
    values = statevector.expectations(
        batch.circuit, torch.from_numpy(batch.angles), batch.observables
    )
    return values.numpy()


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    "circuit",
    [EVERY_GATE, ansatz(4, 2), ansatz(3, 2, "ring", phases=True), ansatz(1, 1, "none")],
    ids=["every gate", "chain", "ring with phases", "one qubit"],
)
def test_without_shots_it_is_the_exact_state_vector(name, circuit):
    strings = (*((i,) for i in range(circuit.n_qubits)), tuple(range(circuit.n_qubits)))
    batch = CircuitBatch(circuit, angles(3, circuit.n_slots), strings)
    result = BraketLocal(name).run(Workload((batch,)), shots=None, seed=0)
    assert np.abs(result.parts[0].values - ideal(batch)).max() < 1e-12


def test_row_order_and_bit_order_are_kept_also_for_qubits_without_a_gate():
    # Row r flips qubit r: the only bit that is 1. Qubits without a gate of their own do not exist
    # for Braket unless they are given one.
    batches = tuple(
        CircuitBatch(Circuit(4, (Gate("x", (q,)),)), np.empty((1, 0))) for q in (2, 0, 3, 1)
    )
    result = BraketLocal("braket:local").run(Workload(batches), shots=7, seed=3)
    found = [part.values[0].all(axis=0).tolist() for part in result.parts]
    assert found == [[q == j for j in range(4)] for q in (2, 0, 3, 1)]
    rows = CircuitBatch(ansatz(1, 1), np.array([[math.pi / 2], [-math.pi / 2]] * 3))
    bits = BraketLocal("braket:local").run(Workload((rows,)), shots=9, seed=3).parts[0].values
    assert (bits[:, :, 0].T == [1, 0] * 3).all()


@pytest.mark.parametrize("name", BOTH)
def test_shots_have_the_mean_and_the_joint_law_of_the_circuit_at_5_sigma(name):
    shots = 2000
    batch = CircuitBatch(ansatz(3, 2), angles(8, 3), ((0,), (1,), (2,), (0, 1), (0, 1, 2)))
    part = BraketLocal(name).run(Workload((batch,)), shots=shots, seed=5).parts[0]
    exact = ideal(batch)
    sigma = np.sqrt((1 - exact**2) / shots)
    assert part.values.shape == (8, shots, 3)
    assert part.values.dtype == np.uint8
    assert (np.abs(part.expectations(batch.observables) - exact) <= 5 * sigma + 1e-9).all()


def test_depth_one_gives_the_sine_of_64_random_rows_at_5_sigma():
    theta = np.random.default_rng(1).uniform(-1, 1, (64, 4))
    batch = CircuitBatch(ansatz(4, 1, "none"), math.pi * theta)
    part = BraketLocal("braket:local").run(Workload((batch,)), shots=1024, seed=9).parts[0]
    exact = -np.sin(math.pi * theta)  # H then Ry(a): ⟨Z⟩ = -sin a
    sigma = np.sqrt((1 - exact**2) / 1024)
    assert (np.abs(part.expectations(batch.observables) - exact) <= 5 * sigma + 1e-9).all()


@pytest.mark.parametrize("name", BOTH)
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(name):
    work = Workload((CircuitBatch(ansatz(2, 1), angles(2, 2)),) * 2)
    simulator = BraketLocal(name)
    first, again, other = (simulator.run(work, shots=64, seed=s).parts for s in (7, 7, 8))
    assert (first[0].values == again[0].values).all()
    assert (first[0].values != other[0].values).any()
    # Identical batches and identical rows of one call are independent of each other.
    assert (first[0].values != first[1].values).any()
    twins = CircuitBatch(ansatz(2, 1), np.zeros((2, 2)))
    bits = simulator.run(Workload((twins,)), shots=64, seed=7).parts[0].values
    assert (bits[0] != bits[1]).any()


def test_the_first_qubit_is_the_most_significant_bit_of_a_probability():
    p = np.zeros(8)
    p[0b110] = 1.0
    assert sample(p, shots=2, rng=np.random.default_rng(0)).tolist() == [[1, 1, 0]] * 2
    assert expectations(p, ((0,), (1,), (2,), (0, 2), ())).tolist() == [-1, -1, 1, -1, 1]


def test_a_state_of_probability_zero_never_comes_up_and_rounding_loses_no_shot():
    class Extremes:
        def random(self, n):
            return np.array([0.0, 1 - 2**-53])

    p = np.array([0.0, 0.3, 0.7 - 1e-9, 0.0])
    assert sample(p, shots=2, rng=Extremes()).tolist() == [[0, 1], [1, 0]]


# --- noise ----------------------------------------------------------------------------------------


def noisy(model: NoiseModel) -> BraketLocal:
    return BraketLocal("braket:dm", DensityMatrixOptions(noise_model=model.to_dict()))


def test_noise_of_gates_and_of_both_kinds_of_readout_is_applied():
    # One qubit, |1⟩ by x, then bit flips: <Z> = -(1-2p) for each flip with probability p.
    work = Workload((CircuitBatch(Circuit(1, (Gate("x", (0,)),)), np.empty((1, 0))),))
    gate, observed, measured = 0.05, 0.1, 0.2
    model = (
        NoiseModel()
        .add_noise(Noise.BitFlip(gate), GateCriteria(BraketGate.X))
        .add_noise(Noise.BitFlip(observed), ObservableCriteria())
        .add_noise(Noise.BitFlip(measured), MeasureCriteria())
    )
    simulator = noisy(model)
    value = simulator.run(work, shots=None, seed=0).parts[0].values[0, 0]
    assert value == pytest.approx(-math.prod(1 - 2 * p for p in (gate, observed, measured)))
    bits = simulator.run(work, shots=4000, seed=0).parts[0]
    sigma = math.sqrt((1 - value**2) / 4000)
    assert abs(bits.expectations(((0,),))[0, 0] - value) < 5 * sigma
    assert simulator.capabilities.noisy
    assert not BraketLocal("braket:dm").capabilities.noisy


def test_the_noise_is_the_sdk_s_own_for_a_measured_circuit():
    model = (
        NoiseModel()
        .add_noise(Noise.Depolarizing(0.1), GateCriteria(BraketGate.Ry))
        .add_noise(Noise.TwoQubitDepolarizing(0.2), GateCriteria(BraketGate.CNot))
    )
    batch = CircuitBatch(ansatz(2, 2), angles(1, 2))
    source = translate.measured((batch.circuit,))
    inputs = {f"p{k}": float(a) for k, a in enumerate(batch.angles[0])}
    built = translate._gates((batch.circuit,))
    reference = LocalSimulator("braket_dm", noise_model=model)
    for qubit in range(2):
        built.expectation(translate.bk.Observable.Z(), qubit)
    exact = reference.run(built, shots=0, inputs=inputs).result().values
    ours = noisy(model).run(Workload((batch,)), shots=None, seed=0).parts[0].values[0]
    assert ours == pytest.approx(exact, abs=1e-12)
    assert abs(ours - ideal(batch)[0]).max() > 0.01
    assert "depolarizing" not in source


# --- limits and failures --------------------------------------------------------------------------


def test_a_workload_beyond_the_limits_is_refused_before_it_runs():
    simulator = BraketLocal("braket:dm")
    most = simulator.capabilities.max_qubits
    wide = Workload((CircuitBatch(ansatz(most + 1, 1), np.zeros((1, most + 1))),))
    with pytest.raises(CapabilityError, match=f"up to {most} qubits"):
        simulator.run(wide, shots=1, seed=0)


def test_what_the_sdk_raises_is_a_backend_error_with_the_cause(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("out of antlers")

    simulator = BraketLocal("braket:local")
    monkeypatch.setattr(simulator._device, "run", fail)
    with pytest.raises(BackendError, match="out of antlers") as caught:
        simulator.run(Workload((CircuitBatch(ansatz(1, 1), np.zeros((1, 1))),)), shots=1, seed=0)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_structure_is_translated_once_for_all_rows_and_calls():
    translate.probabilities.cache_clear()
    work = Workload((CircuitBatch(ansatz(2, 1), angles(5, 2)),))
    simulator = BraketLocal("braket:local")
    simulator.run(work, shots=2, seed=0)
    simulator.run(work, shots=2, seed=1)
    info = translate.probabilities.cache_info()
    assert (info.misses, info.hits) == (1, 1)


@pytest.mark.slow
def test_64_rows_of_1024_shots_cost_no_more_than_the_bare_sdk_call():
    batch = CircuitBatch(ansatz(4, 2), angles(64, 4))
    source = translate.measured((batch.circuit,))
    bare, simulator = LocalSimulator(), BraketLocal("braket:local")

    def sdk() -> None:
        sets = ProgramSet(CircuitBinding(source, translate.inputs(batch.angles)))
        bare.run(sets, shots=64 * 1024).result()

    def ours() -> None:
        simulator.run(Workload((batch,)), shots=1024, seed=0)

    times = {sdk: [], ours: []}
    for call in (sdk, ours) * 3:
        start = time.process_time()
        call()
        times[call].append(time.process_time() - start)
    assert min(times[ours]) <= 1.1 * min(times[sdk])


def test_programs_are_what_the_sdk_reads():
    batch = CircuitBatch(ansatz(2, 1), angles(3, 2))
    program = Program.parse_raw(translate.program((batch,)))
    assert len(program.inputs) == 6
    result = LocalSimulator().run(program, shots=5).result()
    assert result.measurements.shape == (5, 6)
    assert local.DELEGATES.keys() == {"braket:local", "braket:dm"}
