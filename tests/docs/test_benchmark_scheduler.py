"""``benchmarks/scheduler.py`` keeps its contract for scripts, and its device is what it says."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qsgd_core.circuits import GATES, Circuit, Gate, Slot
from qsgd_core.simulate import statevector
from qsgd_core.simulate.noise import PARAMETERS, NoisyCircuit

ROOT = Path(__file__).parents[2]
CELLS = {"fast_ibm600", "raw_ibm600", "fast_rigetti100", "raw_rigetti100"}
POLICIES = {"tracked", "hold", "hold_tuned", "twin", "ideal"}


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """One device, 40 steps: far too short to show anything but the form."""
    command = [sys.executable, "benchmarks/scheduler.py", "--json", "--seeds=1", "--steps=40"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_every_cell_has_error_and_skill_of_every_policy(report: dict[str, Any]) -> None:
    for name in ("cells", "outside_family"):
        assert set(report[name]) == CELLS
        for cell in report[name].values():
            assert set(cell["E"]) == set(cell["skill"]) == POLICIES
            assert all(value > 0 for value in cell["E"].values())


@pytest.mark.slow
def test_skill_is_error_beside_the_free_twins(report: dict[str, Any]) -> None:
    for cell in report["cells"].values():
        assert cell["skill"]["twin"] == 0
        for policy, value in cell["skill"].items():
            assert value == pytest.approx(1 - (cell["E"][policy] / cell["E"]["twin"]) ** 2)


@pytest.mark.slow
def test_the_noisy_twin_is_closer_to_the_device_than_the_ideal_circuit(
    report: dict[str, Any],
) -> None:
    for cell in report["cells"].values():
        assert cell["E"]["twin"] < cell["E"]["ideal"]


@pytest.mark.slow
def test_nothing_is_overspent_and_the_ledger_is_the_providers_truth(
    report: dict[str, Any],
) -> None:
    assert report["jobs"] > 0
    assert report["overspend"] == 0
    assert report["misbooked"] == 0
    assert report["seeds"] == 1
    assert report["delay200_over_delay40"] > 0


N_QUBITS, N_ROWS = 4, 50
SINGLE = tuple((q,) for q in range(N_QUBITS))


@pytest.fixture
def physics(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("scheduler_parts.physics")


def random_circuit(rng: np.random.Generator) -> tuple[Circuit, np.ndarray[Any, np.dtype[Any]]]:
    """Sixty gates of every kind, and angles for fifty rows."""
    gates: list[Gate] = []
    slots = 0
    for name in [*GATES, *rng.choice(list(GATES), 53)]:
        arity, angles = GATES[str(name)]
        qubits = tuple(int(q) for q in rng.permutation(N_QUBITS)[:arity])
        gates.append(Gate(str(name), qubits, Slot(slots) if angles else None))
        slots += angles
    return Circuit(N_QUBITS, tuple(gates)), rng.normal(size=(N_ROWS, slots))


def errors_of(physics: Any, **given: Any) -> Any:
    """The given errors, and none of the others."""
    names = [f.name for f in dataclasses.fields(physics.Errors)]
    zero = np.zeros((N_QUBITS, N_ROWS))
    return physics.Errors(**{name: given.get(name, zero) for name in names})


def test_the_device_without_errors_is_the_ideal_circuit(physics: Any) -> None:
    circuit, angles = random_circuit(np.random.default_rng(0))
    ideal = statevector.expectations(circuit, torch.from_numpy(angles), SINGLE)
    found = physics.expectations(circuit, angles, errors_of(physics))
    np.testing.assert_allclose(found, ideal, atol=1e-12)


def test_device_and_twin_agree_on_the_errors_that_both_know(physics: Any) -> None:
    """They have no code in common: each is the other's test."""
    rng = np.random.default_rng(1)
    circuit, angles = random_circuit(rng)
    given = {name: rng.random((N_QUBITS, N_ROWS)) * 0.05 for name in PARAMETERS}
    twin = NoisyCircuit(circuit, SINGLE)(angles, np.stack([given[p].T for p in PARAMETERS], axis=2))
    found = physics.expectations(circuit, angles, errors_of(physics, **given))
    np.testing.assert_allclose(found, twin, atol=1e-12)


def test_shots_have_the_expectations_that_are_taken_for_the_truth(physics: Any) -> None:
    rng = np.random.default_rng(2)
    circuit, angles = random_circuit(rng)
    names = [f.name for f in dataclasses.fields(physics.Errors)]
    errors = errors_of(physics, **{n: rng.random((N_QUBITS, N_ROWS)) * 0.1 for n in names})
    truth = physics.expectations(circuit, angles, errors)
    shots = 4000
    bits = physics.sample(circuit, angles, errors, shots=shots, rng=rng)
    off = (1 - 2 * bits.mean(axis=1) - truth) / np.sqrt((1 - truth**2) / shots)
    assert np.abs(off).max() < 4.5  # sigma, of 200 values: one seed in a thousand
    assert 0.8 < off.std() < 1.2
