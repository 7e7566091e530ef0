"""The simulators ``exact`` and ``sampled``, and what the core's own provider registers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from patience import PATIENCE_S

from qsgd_core.builtin.simulators import ExactSimulator, SampledSimulator
from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Workload, ansatz
from qsgd_core.errors import CapabilityError
from qsgd_core.jobs import Bits, Expectations

SIGMAS = 5


def workload(rows: int = 3, seed: int = 0) -> Workload:
    """Two batches of different width, one with Z-strings."""
    rng = np.random.default_rng(seed)
    ring = ansatz(4, 2, "ring", phases=True)
    chain = ansatz(2, 1)
    return Workload(
        (
            CircuitBatch(ring, rng.normal(size=(rows, ring.n_slots))),
            CircuitBatch(chain, rng.normal(size=(rows, 2)), ((0, 1), (1,))),
        )
    )


def test_exact_gives_each_batchs_observables_in_float64():
    work = workload()
    result = ExactSimulator("exact", None).run(work, shots=None, seed=0)
    assert all(isinstance(part, Expectations) for part in result.parts)
    ring, chain = result.expectations(work)
    assert (ring.dtype, ring.shape, chain.shape) == (np.float64, (3, 4), (3, 2))
    # Depth 1 on two qubits by hand: before the CNOT the qubits are independent, z = -sin a;
    # the CNOT turns Z_1 into Z_0 Z_1 and Z_0 Z_1 into Z_1.
    z = -np.sin(work.batches[1].angles)
    np.testing.assert_allclose(chain, np.stack([z[:, 1], z.prod(1)], 1), atol=1e-14)


def test_exact_needs_no_seed_and_refuses_shots():
    work = workload()
    exact = ExactSimulator("exact", None)
    first, second = (exact.run(work, shots=None, seed=s).expectations(work) for s in (0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(CapabilityError, match="takes no shots; 100 were asked for"):
        exact.run(work, shots=100, seed=0)


def test_sampled_estimates_are_within_5_sigma_of_exact():
    work, shots = workload(rows=20), 4096
    exact = ExactSimulator("exact", None).run(work, shots=None, seed=0).expectations(work)
    result = SampledSimulator("sampled", None).run(work, shots=shots, seed=5)
    for part, batch, truth, found in zip(
        result.parts, work.batches, exact, result.expectations(work), strict=True
    ):
        assert isinstance(part, Bits)
        assert part.values.shape == (20, shots, batch.circuit.n_qubits)
        assert (np.abs(found - truth) <= SIGMAS * np.sqrt((1 - truth**2) / shots) + 1e-12).all()
        assert not np.array_equal(found, truth)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    work = workload()
    sampled = SampledSimulator("sampled", None)

    def bits(seed: int) -> list[np.ndarray]:
        return [part.values for part in sampled.run(work, shots=200, seed=seed).parts]

    for same, again, other in zip(bits(7), bits(7), bits(8), strict=True):
        assert np.array_equal(same, again)
        assert not np.array_equal(same, other)


def test_batches_rows_and_neighbouring_seeds_never_share_draws():
    # Fair coins: two streams agree in half of the shots, sigma 1/(2√N).
    shots = 40000
    coin = Circuit(1, (Gate("h", (0,)),))
    work = Workload((CircuitBatch(coin, np.zeros((2, 0))), CircuitBatch(coin, np.zeros((2, 0)))))
    sampled = SampledSimulator("sampled", None)
    streams = np.concatenate(
        [
            part.values[:, :, 0]
            for seed in (3, 4)
            for part in sampled.run(work, shots=shots, seed=seed).parts
        ]
    )
    assert len(streams) == 8
    for i in range(8):
        for j in range(i):
            agreement = (streams[i] == streams[j]).mean()
            assert abs(agreement - 0.5) <= SIGMAS * 0.5 / np.sqrt(shots)


def test_sampled_says_what_it_cannot_do():
    sampled = SampledSimulator("sampled", None)
    with pytest.raises(CapabilityError, match=r"Backend 'sampled'.*give shots"):
        sampled.run(workload(), shots=None, seed=0)
    with pytest.raises(CapabilityError, match="at least 1 shots a row; 0 asked for"):
        sampled.run(workload(), shots=0, seed=0)
    with pytest.raises(CapabilityError, match=r"at most 67108864 executions a call"):
        sampled.run(workload(), shots=10**9, seed=0)


@pytest.mark.parametrize("simulator, shots", [(ExactSimulator, None), (SampledSimulator, 10)])
def test_21_qubits_are_refused_with_the_limit(simulator, shots):
    wide = Workload((CircuitBatch(ansatz(21, 1), np.zeros((1, 21))),))
    with pytest.raises(CapabilityError, match="up to 20 qubits; 21 were asked for"):
        simulator("mine", None).run(wide, shots=shots, seed=0)


def test_the_two_differ_in_what_may_be_asked_of_them():
    exact, sampled = ExactSimulator.capabilities, SampledSimulator.capabilities
    assert (exact.exact, exact.sampled, exact.seeded, exact.closed_form) == (
        True,
        False,
        True,
        True,
    )
    assert (sampled.exact, sampled.sampled, sampled.seeded) == (False, True, True)
    assert not sampled.closed_form
    assert (exact.default_shots, sampled.default_shots) == (None, 1024)
    assert {exact.paid, sampled.paid, exact.noisy, sampled.noisy} == {False}


def test_the_cores_own_provider_registers_its_names_without_importing_torch():
    script = """
import sys
import pluggy
from qsgd_core import hookspecs
from qsgd_core.builtin import plugin
from qsgd_core.settings import load_settings

manager = pluggy.PluginManager(hookspecs.PROJECT)
manager.add_hookspecs(hookspecs.PerturbationProvider)
manager.register(plugin)
manager.check_pending()
for kind in ("backends", "perturbations", "tasks", "observers"):
    hook = getattr(manager.hook, "qsgd_register_" + kind)
    for spec in hook(settings=load_settings())[0]:
        print(kind, getattr(spec, "name", None) or spec.names[0], spec.factory)
print("heavy", sorted({"torch", "numpy", "sklearn"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout.splitlines() == [
        "backends exact qsgd_core.builtin.simulators:ExactSimulator",
        "backends sampled qsgd_core.builtin.simulators:SampledSimulator",
        "perturbations sine qsgd_core.builtin.perturbations:Sine",
        "perturbations circuit qsgd_core.builtin.perturbations:CircuitPerturbation",
        "tasks digits qsgd_core.builtin.digits:Digits",
        "observers tensorboard qsgd_core.builtin.tensorboard:TensorBoardObserver",
        "heavy []",
    ]
