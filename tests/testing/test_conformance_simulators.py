"""The kit passes right simulators; each wrong one fails in the test that names the fault."""

from __future__ import annotations

import contextlib
import runpy
from pathlib import Path

import numpy as np
import pytest

from qsgd_core.capabilities import ALL_GATES, Capabilities
from qsgd_core.circuits import GATES, Circuit, CircuitBatch, Workload
from qsgd_core.testing import measuring, probes
from qsgd_core.testing.agreement import assert_agrees, assert_independent, ideal
from qsgd_core.testing.limits import LIMITS, beyond
from qsgd_core.testing.runner import run, suite_file

BROKEN = Path(__file__).parents[1] / "conformance" / "broken_simulators.py"
SOURCE = BROKEN.read_text()
EXPECTED = {kind.__name__: test for kind, test in runpy.run_path(str(BROKEN))["BROKEN"].items()}


@pytest.fixture(scope="module")
def outcomes():
    """Suite -> tests that failed, of every wrong simulator, in one run of the kit."""
    with pytest.MonkeyPatch.context() as patch:
        # One process for each of fifty simulators would show the same plugin fifty times.
        patch.setattr(measuring, "heavy_imports", lambda *_: [])
        report = run(SOURCE)
    failed = {outcome.suite: set() for outcome in report.outcomes}
    for outcome in report.of("failed"):
        failed[outcome.suite].add(outcome.test)
    return failed


def test_a_right_simulator_passes_with_every_limit_declared(outcomes):
    assert outcomes["Good"] == set()


@pytest.mark.parametrize("kind, test", EXPECTED.items())
def test_a_wrong_simulator_fails_in_the_test_that_names_the_fault(outcomes, kind, test):
    assert test in outcomes[kind]


ALONE = {
    "SameNoiseEachCall": {"test_two_calls_differ"},
    "SameCountsShuffled": {"test_identical_rows_are_independent"},
    "WrongDtype": {"test_bits_have_the_right_shape_and_type"},
    "NotSeeded": {"test_the_same_seed_gives_the_same_bits"},
    "ExactForgetsObservables": {"test_exact_values_are_exact[joint]"},
    "LogsTheToken": {"test_no_secret_is_printed"},
    "NotInstalled": {"test_its_plugin_stays_light"},
}


@pytest.mark.parametrize("kind", ALONE)
def test_a_fault_that_touches_one_thing_fails_one_test(outcomes, kind):
    assert outcomes[kind] == ALONE[kind]


@pytest.mark.parametrize("name, least", [("exact", 20), ("sampled", 30)])
def test_the_built_in_simulators_conform(name, least):
    report = run(suite_file("simulator", name, options={}))
    assert report.of("failed") == []
    assert len(report.of("passed")) >= least
    assert all(outcome.reason for outcome in report.of("skipped"))
    assert report.cost_usd == 0


def test_more_shots_are_taken_when_asked_for():
    report = run(suite_file("simulator", "sampled", options={}, shots=5000))
    assert report.of("failed") == []


# --- the probes ----------------------------------------------------------------------------------

SETS = [ALL_GATES, frozenset({"h", "ry", "cx"}), frozenset({"rx", "rz", "cz"}), frozenset({"h"})]


@pytest.mark.parametrize("gates", SETS, ids=lambda gates: "+".join(sorted(gates)))
@pytest.mark.parametrize("n", [1, 2, 3, 30])
def test_probes_are_made_of_claimed_gates_and_fit(gates, n):
    has = Capabilities(gates=gates, max_qubits=n)
    built = 0
    for name in probes.NAMES:
        with contextlib.suppress(probes.UnclaimedError):
            batches = probes.build(name, has)
            assert has.missing(Workload(batches), shots=100) == ()
            built += 1
    assert built >= 2


def without(batch: CircuitBatch, name: str) -> CircuitBatch:
    gates = tuple(gate for gate in batch.circuit.gates if gate.name != name)
    return CircuitBatch(Circuit(batch.circuit.n_qubits, gates), batch.angles, batch.observables)


@pytest.mark.parametrize("gate", [g for g in GATES if GATES[g][1] == 0])
def test_leaving_a_gate_out_moves_its_probe_by_far_more_than_5_sigma(gate):
    for name in (f"gate {gate}", "together"):
        moved = 0.0
        for batch in probes.build(name, Capabilities()):
            moved = max(moved, np.abs(ideal(without(batch, gate)) - ideal(batch)).max())
        assert moved > 0.25  # 5 sigma at 512 shots is at most 0.22


@pytest.mark.parametrize("limit", LIMITS)
def test_beyond_a_limit_only_that_limit_is_broken(limit):
    has = Capabilities(
        gates=ALL_GATES - {"rx"},
        max_qubits=5,
        max_rows=50,
        max_total_qubits=60,
        min_shots=10,
        max_shots=900,
        max_executions=20_000,
    )
    work, shots = beyond(limit, has, shots=100)
    missing = has.missing(work, shots=shots)
    assert len(missing) == 1 or limit == "max_executions"
    assert missing
    with pytest.raises(probes.UnclaimedError):
        beyond(limit, Capabilities(), shots=100)


def test_probes_are_packed_into_jobs_that_fit():
    has = Capabilities(max_rows=4, max_total_qubits=12)
    jobs, left_out = probes.pack(has, shots=100)
    assert len(jobs) > 3
    assert all(has.missing(probes.workload(job), shots=100) == () for job in jobs)
    names = [name for job in jobs for name in job]
    assert sorted([*names, *left_out]) == sorted(probes.NAMES)
    assert set(left_out) == {"order", "columns"}
    assert "4 rows" in left_out["order"]


# --- the statistics ------------------------------------------------------------------------------


def coins(seed: int, shots: int, n: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, (shots, n), dtype=np.uint8)


@pytest.mark.parametrize("shots", [100, 1000])
def test_independent_rows_pass_and_dependent_ones_do_not(shots):
    assert_independent([coins(seed, shots) for seed in range(10)], what="rows")
    noise = np.random.default_rng(99).random((shots, 3)) < 0.1
    for other in (coins(1, shots), coins(1, shots)[::-1], coins(1, shots) ^ noise):
        with pytest.raises(AssertionError, match="rows"):
            assert_independent([coins(1, shots), other], what="rows")


def test_5_sigma_come_from_the_shots():
    (batch,) = probes.build("ansatz", Capabilities())
    z = ideal(batch)
    sigma = np.sqrt((1 - z**2) / 1000)
    assert_agrees([z + 5 * sigma], [batch], shots=1000, noisy=False)
    with pytest.raises(pytest.fail.Exception, match="1000 shots: 5 sigma"):
        assert_agrees([z + 5 * sigma + 0.018], [batch], shots=1000, noisy=False)
    assert_agrees([z + 0.3 * (z < 0)], [batch], shots=1000, noisy=True)
    with pytest.raises(pytest.fail.Exception):
        assert_agrees([-z], [batch], shots=1000, noisy=True)


def test_every_wrong_simulator_of_the_file_is_expected_to_fail():
    classes = [
        line.split("(")[0].removeprefix("class ")
        for line in SOURCE.splitlines()
        if line.startswith("class ")
    ]
    assert set(classes) - {"Good"} == set(EXPECTED)
