"""``fake_*``: the recorded noise of a device, cut to the qubits that a circuit uses."""

from __future__ import annotations

import time

import numpy as np
import pytest

from qsgd_core.backend import Simulator
from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Workload, ansatz
from qsgd_core.errors import CapabilityError, UnknownBackendError
from qsgd_core.jobs import Bits
from qsgd_core.plugins.registry import Registry
from qsgd_core.settings import Settings
from qsgd_ibm.fake import translate
from qsgd_ibm.fake.backend import FakeDevice, recordings
from qsgd_ibm.options import FakeOptions

SIGMAS = 5.0


@pytest.fixture(scope="module")
def brisbane() -> FakeDevice:
    return FakeDevice("fake_brisbane")


def work(rows: int = 8, *, n: int = 4, depth: int = 2, seed: int = 0) -> Workload:
    angles = np.random.default_rng(seed).uniform(-np.pi, np.pi, (rows, n))
    return Workload((CircuitBatch(ansatz(n, depth), angles),))


def test_it_is_a_simulator_by_name():
    made = Registry(Settings()).make_backend("fake_manila", {"optimization_level": 1})
    assert isinstance(made, Simulator)
    assert made.capabilities.max_qubits == 5
    assert not made.capabilities.paid


def test_an_unknown_recording_gives_close_names_and_all_names():
    with pytest.raises(UnknownBackendError, match="Did you mean fake_brisbane") as caught:
        FakeDevice("fake_brisbain")
    assert "fake_kingston" in str(caught.value)
    assert len(recordings()) > 50


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(brisbane):
    first, again, other = (
        brisbane.run(work(), shots=64, seed=seed).parts[0].values for seed in (3, 3, 4)
    )
    assert first.shape == (8, 64, 4)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_identical_rows_batches_and_neighbouring_seeds_are_independent(brisbane):
    same = CircuitBatch(ansatz(2, 1), np.zeros((6, 2)))
    result = brisbane.run(Workload((same, same)), shots=64, seed=1)
    shifted = brisbane.run(
        Workload((same,)), shots=64, seed=1 + 2113
    )  # Aer: row i is seed + 2113 i
    rows = [row.tobytes() for part in (*result.parts, *shifted.parts) for row in part.values]
    assert len(set(rows)) == 18


def test_rows_without_parameters_each_run(brisbane):
    plus = CircuitBatch(Circuit(1, (Gate("h", (0,)),)), np.empty((5, 0)))
    values = brisbane.run(Workload((plus,)), shots=32, seed=1).parts[0].values
    assert values.shape == (5, 32, 1)
    assert len({row.tobytes() for row in values}) == 5


def test_bit_order_survives_the_layout(brisbane):
    batch = CircuitBatch(Circuit(3, (Gate("x", (1,)), Gate("h", (2,)))), np.empty((1, 0)))
    values = brisbane.run(Workload((batch,)), shots=400, seed=1).parts[0].values[0]
    means = values.mean(axis=0)
    assert means[0] < 0.1  # readout errors of the recording are below 3 %
    assert means[1] > 0.9
    assert abs(means[2] - 0.5) < SIGMAS * 0.5 / 20


def test_depth_one_is_the_sine_within_the_devices_readout_error(brisbane):
    theta = np.random.default_rng(2).uniform(-1, 1, (64, 4))
    asked = Workload((CircuitBatch(ansatz(4, 1, "none"), np.pi * theta),))
    result = brisbane.run(asked, shots=1024, seed=7)
    readout = np.array(brisbane.calibration(asked).readout)
    low = (1 - readout.sum(axis=1)) * np.sin(np.pi * theta)
    offset = readout[:, 1] - readout[:, 0]
    z = -result.expectations(asked)[0]
    sigma = np.sqrt((1 - low**2) / 1024)
    assert (np.abs(z - (low + offset)) < SIGMAS * sigma + 0.01).all()  # 0.01: single-qubit gates


def test_the_noise_is_there_and_on_the_devices_own_gates(brisbane):
    asked = work(16, depth=2)
    noisy = brisbane.run(asked, shots=4096, seed=5).expectations(asked)[0]
    ideal = Registry(Settings()).make_backend("exact").run(asked, shots=None, seed=0)
    shrink = np.polyfit(ideal.expectations(asked)[0].ravel(), noisy.ravel(), 1)[0]
    assert 0.85 < shrink < 0.99  # depolarised by six ECR at 0.7 % and readout at 2 %
    part = next(iter(brisbane._cuts.values()))
    assert "ecr" in part.circuit.count_ops() or len(part.qubits) < 4
    assert set(part.circuit.count_ops()) <= set(part.noise.basis_gates)


def test_what_does_not_fit_is_refused(brisbane):
    with pytest.raises(CapabilityError, match="give shots"):
        brisbane.run(work(), shots=None, seed=0)
    with pytest.raises(CapabilityError, match="up to 10 qubits"):
        brisbane.run(work(1, n=11), shots=1, seed=0)


def test_the_cut_noise_model_is_the_full_one_renumbered():
    """On a five-qubit device, where the full model is quick to build."""
    from qiskit_aer.noise import NoiseModel

    device = recordings()["fake_manila"]()
    qubits = (1, 2, 3)
    full = NoiseModel.from_backend(device).to_dict(serializable=True)["errors"]
    part = translate.noise_of(device.target, qubits).to_dict(serializable=True)["errors"]

    def keyed(errors, renumber):
        return {
            (tuple(e["operations"]), tuple(renumber(q) for q in e["gate_qubits"][0])): {
                k: v for k, v in e.items() if k not in ("gate_qubits", "id")
            }
            for e in errors
            if set(e["gate_qubits"][0]) <= (set(qubits) if renumber is not int else {0, 1, 2})
        }

    expected, found = keyed(full, qubits.index), keyed(part, int)
    assert expected.keys() == found.keys()
    assert len(found) > 12
    for key, error in expected.items():
        assert np.allclose(error["probabilities"], found[key]["probabilities"], atol=1e-12), key


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fake_brisbane", "fake_fez"])
def test_the_cut_device_agrees_with_the_full_one_and_is_ten_times_faster(name):
    """Against IBM's own local mode on the whole recorded device, at the same layout."""
    from qiskit_ibm_runtime.executor_sampler import Sampler

    from qsgd_ibm.translate import bits, pubs

    device = FakeDevice(name, FakeOptions())
    asked = work(16)
    device.run(asked, shots=1, seed=0)
    isa = device._isa(asked.batches[0])

    started = time.process_time()
    mine = device.run(asked, shots=2048, seed=1)
    mine_s = time.process_time() - started
    started = time.process_time()
    entries = pubs(isa, asked.batches[0], {})
    theirs_raw = Sampler(mode=device._device).run(entries, shots=2048).result()
    theirs_s = time.process_time() - started

    theirs = bits(list(theirs_raw), rows=16, shots=2048, n_qubits=4)
    z_mine = mine.expectations(asked)[0]
    z_theirs = theirs.expectations(asked.batches[0].observables)
    sigma = np.sqrt((1 - z_mine**2 + 1 - z_theirs**2) / 2048) + 1e-9
    assert (np.abs(z_mine - z_theirs) < SIGMAS * sigma).all()
    assert mine_s * 10 < theirs_s
    assert isinstance(mine.parts[0], Bits)
