"""Devices of a third-party PennyLane plugin, installed by pip, that knows nothing of QSGD."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from patience import PATIENCE_S

from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Slot, Workload, ansatz
from qsgd_core.errors import BackendError, CapabilityError, ConfigError, PluginLoadError
from qsgd_core.plugins.registry import default_registry
from qsgd_core.simulate import statevector

PACKAGE = Path(__file__).parent / "packages" / "acme"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
INSTALL = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder into which pip has installed the plugin."""
    target = tmp_path_factory.mktemp("site")
    subprocess.run([*PIP, *INSTALL, "--target", target, PACKAGE], check=True, timeout=PATIENCE_S)
    return target


@pytest.fixture(autouse=True)
def installed(site, monkeypatch) -> None:
    """The plugin importable here, and nothing of it left behind."""
    monkeypatch.syspath_prepend(site)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_device"]:
        del sys.modules[name]
    if constructor := sys.modules.get("pennylane.devices.device_constructor"):
        for name in [name for name in constructor.plugin_devices if name.startswith("acme.")]:
            del constructor.plugin_devices[name]


def make(name, **options):
    return default_registry().make_backend(f"pennylane:{name}", options)


def work(rows: int = 6, n_qubits: int = 3) -> Workload:
    angles = np.random.default_rng(0).uniform(-3, 3, (rows, n_qubits))
    return Workload((CircuitBatch(ansatz(n_qubits, 2), angles),))


def every_gate() -> Workload:
    gates = (
        *(Gate("h", (q,)) for q in range(3)),
        Gate("rx", (0,), Slot(0)),
        Gate("cz", (0, 1)),
        Gate("ry", (1,), Slot(1)),
        Gate("x", (2,)),
        Gate("cx", (2, 1)),
        Gate("rz", (1,), Slot(0)),
        Gate("rx", (1,), 0.4),
        Gate("h", (2,)),
    )
    angles = np.random.default_rng(1).uniform(-3, 3, (5, 2))
    return Workload((CircuitBatch(Circuit(3, gates), angles),))


def reference(workload: Workload) -> np.ndarray:
    (batch,) = workload.batches
    angles = torch.from_numpy(batch.angles)
    return statevector.expectations(batch.circuit, angles, batch.observables).numpy()


@pytest.mark.parametrize("name", ["acme.qubit", "acme.rxcz"])
@pytest.mark.parametrize("workload", [work(), every_gate()], ids=["ansatz", "every gate"])
def test_a_third_partys_device_runs_every_gate_exactly_and_in_shots(name, workload):
    simulator = make(name)
    (exact,) = simulator.run(workload, shots=None, seed=0).expectations(workload)
    np.testing.assert_allclose(exact, reference(workload), atol=1e-10)
    (means,) = simulator.run(workload, shots=1000, seed=0).expectations(workload)
    sigma = np.sqrt(np.maximum(1 - exact**2, 1 / 1000) / 1000)
    assert (np.abs(means - exact) <= 5 * sigma).all()


def test_all_rows_and_batches_reach_the_device_in_one_call():
    simulator = make("acme.qubit")
    calls = sys.modules["acme_device.devices"].Qubit.calls
    calls.clear()
    batches = work(rows=4).batches + work(rows=3, n_qubits=2).batches
    simulator.run(Workload(batches), shots=10, seed=0)
    # This device has no broadcasting: PennyLane makes a tape for each row.
    assert calls == [7]


def test_a_device_without_a_seed_says_so_and_does_not_repeat_itself():
    simulator = make("acme.qubit")
    assert not simulator.capabilities.seeded
    one, two = (simulator.run(work(), shots=200, seed=5).parts[0].values for _ in range(2))
    assert (one != two).any()


def test_a_device_that_always_starts_from_one_seed_is_kept_and_does_not_repeat_itself():
    simulator = make("acme.fixed")
    assert not simulator.capabilities.seeded
    one, two = (simulator.run(work(), shots=200, seed=5).parts[0].values for _ in range(2))
    assert (one != two).any()


def test_an_option_of_the_devices_own_is_handed_on():
    make("acme.qubit", flavour="vanilla")
    with pytest.raises(ConfigError, match="flavour='coffee': ValueError: no such flavour"):
        make("acme.qubit", flavour="coffee")


def test_a_noisy_device_is_taken_for_one_and_gives_no_exact_values():
    simulator = make("acme.noisy", flip=0.25)
    one = Workload((CircuitBatch(Circuit(1, (Gate("ry", (0,), np.pi),)), np.zeros((1, 0))),))
    z = simulator.run(one, shots=4000, seed=0).expectations(one)[0]
    assert abs(z[0, 0] - (-0.5)) < 5 * 2 * np.sqrt(0.25 * 0.75 / 4000)
    assert simulator.capabilities.noisy
    with pytest.raises(CapabilityError, match=r"off by 0\.4.*so noise.*shots=1024"):
        simulator.run(one, shots=None, seed=0)


def test_an_exact_request_that_would_be_answered_with_samples_is_refused():
    simulator = make("acme.sampler")
    assert simulator.capabilities.default_shots == 1024
    assert not simulator.capabilities.noisy
    with pytest.raises(CapabilityError, match=r"off by 0\.\d+.*so samples.*shots=1024"):
        simulator.run(work(), shots=None, seed=0)
    assert simulator.run(work(), shots=10, seed=0).parts[0].values.shape == (6, 10, 3)


def test_a_device_that_repeats_its_noise_is_refused_for_shots():
    simulator = make("acme.stuck")
    (exact,) = simulator.run(work(), shots=None, seed=0).expectations(work())
    np.testing.assert_allclose(exact, reference(work()), atol=1e-10)
    with pytest.raises(CapabilityError, match=r"same samples at each call.*Leave shots out"):
        simulator.run(work(), shots=10, seed=0)


def test_a_device_with_its_qubits_in_the_wrong_order_is_refused():
    with pytest.raises(CapabilityError, match=r"not those of the circuit.*no expectation values"):
        make("acme.swapped")


def test_a_plugin_that_cannot_be_imported_says_why():
    with pytest.raises(PluginLoadError, match=r"acme-device 2\.5\.0.*an_sdk_nobody_has") as caught:
        make("acme.broken")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert make("acme.qubit").name == "pennylane:acme.qubit"


def test_a_device_that_sends_jobs_is_refused_before_it_is_imported():
    with pytest.raises(CapabilityError, match="outside its ledger"):
        make("acme.qpu")
    assert "acme_device.service" not in sys.modules


def test_a_device_that_fails_while_running_is_a_backend_error():
    with pytest.raises(BackendError, match="6 rows of 3 qubits: RuntimeError: out of flux"):
        make("acme.fails").run(work(), shots=10, seed=0)
