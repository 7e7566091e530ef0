"""The real client, real payloads and real transpilation against the loopback double."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from patience import PATIENCE_S

from qsgd_core.backend import Backend
from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Slot, Workload, ansatz
from qsgd_core.errors import BackendGoneError, CapabilityError, ConfigError
from qsgd_core.jobs import Bits, Cost, JobHandle, JobState, Limit
from qsgd_core.plugins.registry import Registry
from qsgd_core.settings import Settings
from qsgd_ibm.translate import require_isa

NO_LIMIT = Limit()
SIGMAS = 5.0


def work(rows: int = 4, *, n: int = 2, depth: int = 1, seed: int = 0) -> Workload:
    angles = np.random.default_rng(seed).uniform(-np.pi, np.pi, (rows, n))
    return Workload((CircuitBatch(ansatz(n, depth, "chain"), angles),))


def test_depth_one_measures_sin_of_the_angle_on_sixty_four_rows(backend, collect):
    theta = np.random.default_rng(1).uniform(-1, 1, (64, 4))
    circuit = ansatz(4, 1, "none")
    asked = Workload((CircuitBatch(circuit, np.pi * theta),))
    ibm = backend()
    result = collect(ibm, ibm.submit(asked, shots=1024, tag="sine", limit=NO_LIMIT))
    expected = np.sin(np.pi * theta)  # -⟨Z⟩ after H and Ry(πθ)
    sigma = np.sqrt((1 - expected**2) / 1024) + 1e-9
    z = (-result.expectations(asked)[0] - expected) / sigma
    assert np.abs(z).max() < SIGMAS
    assert 0.8 < z.std() < 1.2  # 256 values: real shot noise, not a copy of the formula


def test_row_and_bit_order_are_those_of_the_workload(backend, collect):
    flips = Circuit(3, tuple(Gate("rx", (i,), Slot(i)) for i in range(3)))
    rows = np.array([[(row >> i) & 1 for i in range(3)] for row in range(8)])
    asked = Workload((CircuitBatch(flips, np.pi * rows),))
    ibm = backend()
    result = collect(ibm, ibm.submit(asked, shots=7, tag="order", limit=NO_LIMIT))
    bits = result.parts[0]
    assert isinstance(bits, Bits)
    assert bits.values.dtype == np.uint8
    assert np.array_equal(bits.values, np.broadcast_to(rows[:, None, :], (8, 7, 3)))


def test_several_batches_are_one_job_and_come_back_in_order(backend, collect, double):
    wide, narrow = work(5, n=4, depth=2).batches[0], work(3, n=2).batches[0]
    fixed = CircuitBatch(Circuit(2, (Gate("x", (0,)),)), np.empty((3, 0)))
    dropped = CircuitBatch(ansatz(2, 1, "none", phases=True), np.full((2, 4), 0.5))
    asked = Workload((wide, fixed, narrow, dropped))
    ibm = backend()
    handle = ibm.submit(asked, shots=64, tag="batches", limit=NO_LIMIT)
    result = collect(ibm, handle)
    shapes = [part.values.shape for part in result.parts]
    assert shapes == [(5, 64, 4), (3, 64, 2), (3, 64, 2), (2, 64, 2)]
    assert np.array_equal(result.parts[1].values, np.broadcast_to([1, 0], (3, 64, 2)))
    ledger = double.ledger()
    assert (ledger["posts"], ledger["asked"], ledger["paid"]) == (1, 1, 1)
    served = ledger["jobs"][0]["served"]
    assert np.allclose(served[0], result.expectations(asked)[0])


def test_rows_without_parameters_each_run(backend, collect):
    plus = CircuitBatch(Circuit(1, (Gate("h", (0,)),)), np.empty((40, 0)))
    ibm = backend()
    handle = ibm.submit(Workload((plus,)), shots=16, tag="fixed", limit=NO_LIMIT)
    values = collect(ibm, handle).parts[0].values
    assert values.shape == (40, 16, 1)
    assert len({row.tobytes() for row in values}) > 20  # P(fewer) < 1e-9: rows are independent


def test_a_job_found_by_its_tag_in_another_process_is_as_good_as_its_handle(
    backend, fresh_backend, collect, double
):
    handle = backend().submit(work(), shots=32, tag="lost", limit=NO_LIMIT)
    other = fresh_backend()
    found = other.find("lost")
    assert [f.job_id for f in found] == [handle.job_id]
    assert found[0].extra == {}
    assert abs(found[0].submitted_at - handle.submitted_at) < 60
    again = collect(other, JobHandle.from_json(found[0].to_json()))
    first = collect(other, JobHandle.from_json(handle.to_json()))
    assert np.array_equal(again.parts[0].values, first.parts[0].values)
    assert backend().find("never-sent") == []
    assert double.asked_paid() == (1, 1)


def test_a_handle_holds_plain_json_and_no_secret(backend, double):
    handle = backend().submit(work(), shots=32, tag="plain", limit=NO_LIMIT)
    text = handle.to_json()
    assert double.environment["QISKIT_IBM_TOKEN"] not in text
    assert JobHandle.from_json(text) == handle
    assert set(handle.extra) == {"rows", "n_qubits", "shots", "layout", "stamp"}


def test_a_result_says_when_where_and_for_how_much(backend, collect):
    ibm = backend(usd_per_s=1.6)
    handle = ibm.submit(work(), shots=32, tag="facts", limit=NO_LIMIT)
    result = collect(ibm, handle)
    assert result.physical_qubits == tuple(handle.extra["layout"])
    assert result.calibration_stamp == handle.extra["stamp"]
    assert abs(result.executed_at - handle.submitted_at) < 60
    seconds = 2.0 + 4 * 32 * 300e-6  # what the double charges
    assert result.billed == Cost(
        usd=pytest.approx(1.6 * seconds), qpu_s=pytest.approx(seconds), shots=128
    )


def test_the_limit_travels_to_ibm_as_max_execution_time(backend, double):
    ibm = backend()
    quote = ibm.quote(work(), shots=32)
    ibm.submit(work(), shots=32, tag="limited", limit=Limit(qpu_s=4.9))
    ibm.submit(work(), shots=32, tag="unlimited", limit=NO_LIMIT)
    times = [job["max_execution_time"] for job in double.ledger()["jobs"]]
    assert times == [4, quote.worst.qpu_s]


def test_a_plan_in_the_price_table_has_its_price_with_source_and_date(fresh_backend, double):
    double.settings(plan="Pay-as-you-go", pricing="paygo")
    quote = fresh_backend().quote(work(), shots=32)
    assert quote.expected.usd == pytest.approx(1.60 * quote.expected.qpu_s)
    assert "Pay-As-You-Go" in quote.source
    assert quote.effective_date == "2026-05-25"


def test_a_quote_follows_ibms_time_model_and_leaves_unknown_prices_unknown(
    backend, fresh_backend, double
):
    asked = work(64, n=4, depth=2)
    quote = backend(rep_delay=250e-6).quote(asked, shots=256)
    circuit_s = (quote.expected.qpu_s - 2.0) / 16384 - 250e-6
    assert 1e-6 < circuit_s < 10e-6
    assert quote.worst.qpu_s == math.ceil(1.5 * quote.expected.qpu_s + 2.0)
    assert quote.expected.shots == 16384
    assert quote.expected.usd == 0.0  # the double's plan is free
    double.settings(plan="bespoke", pricing="subscription")
    assert fresh_backend().quote(asked, shots=256).worst.usd is None
    assert backend(usd_per_s=1.6).quote(asked, shots=256).worst.usd == pytest.approx(
        1.6 * quote.worst.qpu_s
    )
    assert double.ledger()["posts"] == 0


def test_the_layout_is_pinned_for_every_circuit_of_a_width(backend, collect):
    ibm = backend()
    layouts = []
    for depth in (1, 2):
        handle = ibm.submit(work(n=4, depth=depth), shots=8, tag=f"d{depth}", limit=NO_LIMIT)
        layouts.append(handle.extra["layout"])
    assert layouts[0] == layouts[1]
    assert list(ibm.calibration(work(n=4)).physical_qubits) == layouts[0]
    given = backend(initial_layout=(10, 11, 12, 13))
    handle = given.submit(work(n=4), shots=8, tag="given", limit=NO_LIMIT)
    assert handle.extra["layout"] == [10, 11, 12, 13]


def test_a_circuit_is_fitted_to_the_device_once_per_calibration(fresh_backend, double):
    now = [0.0]
    ibm = fresh_backend()
    ibm._clock = lambda: now[0]
    ibm.quote(work(), shots=8)
    ibm.quote(work(seed=1), shots=8)
    assert len(ibm._compiler._cache) == 1
    assert double.ledger()["requests"]["properties"] == 1
    now[0] = 3601.0
    ibm.quote(work(), shots=8)
    assert double.ledger()["requests"]["properties"] == 2


def test_a_layout_that_does_not_fit_is_refused_before_anything_is_sent(backend, double):
    with pytest.raises(CapabilityError, match=r"initial_layout=\[0, 500\] does not fit"):
        backend(initial_layout=(0, 500)).submit(work(), shots=8, tag="x", limit=NO_LIMIT)
    assert double.ledger()["posts"] == 0


def test_circuits_that_are_not_in_the_devices_gates_never_leave(backend):
    from qiskit import QuantumCircuit

    circuit = QuantumCircuit(156, 1)
    circuit.ry(0.3, 0)
    circuit.measure(0, 0)
    with pytest.raises(CapabilityError, match="instruction ry"):
        require_isa([circuit], backend()._current().target)


def test_the_calibration_is_the_devices_own(backend):
    snapshot = backend("ibm_brisbane").calibration(work(n=4))
    assert len(snapshot.physical_qubits) == len(snapshot.readout) == 4
    assert all(0 < p < 0.2 for pair in snapshot.readout for p in pair)
    pairs = snapshot.gate_error["ecr"]
    assert len(pairs) >= 3
    assert all(set(pair) <= set(snapshot.physical_qubits) for pair in pairs)
    assert all(0 < error < 0.1 for error in pairs.values())
    assert snapshot.stamp.startswith("2025-02-26T")
    assert snapshot.stamp.endswith("+00:00")


@pytest.mark.parametrize("mitigation", ["twirl", "readout", "dd"])
def test_mitigation_runs_end_to_end_with_the_shots_that_were_asked_for(
    backend, collect, mitigation
):
    theta = np.random.default_rng(3).uniform(-1, 1, (6, 3))
    asked = Workload((CircuitBatch(ansatz(3, 1, "none"), np.pi * theta),))
    ibm = backend(mitigation=mitigation)
    result = collect(ibm, ibm.submit(asked, shots=192, tag=mitigation, limit=NO_LIMIT))
    assert result.parts[0].values.shape == (6, 192, 3)
    expected = -np.sin(np.pi * theta)
    sigma = np.sqrt((1 - expected**2) / 192) + 1e-3
    assert (np.abs(result.expectations(asked)[0] - expected) < SIGMAS * sigma).all()


def test_twirling_refuses_shots_that_it_cannot_split(backend, double):
    with pytest.raises(ConfigError, match="257 has none"):
        backend(mitigation="twirl").submit(work(), shots=257, tag="odd", limit=NO_LIMIT)
    assert double.ledger()["posts"] == 0


def test_two_jobs_of_the_same_workload_differ(backend, collect):
    ibm = backend()
    one, two = (
        collect(ibm, ibm.submit(work(8), shots=64, tag=tag, limit=NO_LIMIT)).parts[0].values
        for tag in ("one", "two")
    )
    assert not np.array_equal(one, two)


def test_least_busy_is_looked_up_once_and_kept(backend, double):
    double.settings(
        devices={
            "ibm_brisbane": {"online": True, "queue_length": 9},
            "ibm_fez": {"online": True, "queue_length": 2},
            "ibm_torino": {"online": False, "queue_length": 0},
        }
    )
    ibm = backend("ibm:least_busy")
    assert ibm.resolve() == "ibm_fez"
    double.settings(
        devices={
            "ibm_brisbane": {"online": True, "queue_length": 0},
            "ibm_fez": {"online": True, "queue_length": 5},
        }
    )
    assert ibm.resolve() == "ibm_fez"
    assert backend("ibm:ibm_brisbane").resolve() == "ibm_brisbane"


def test_a_retired_device_is_named_as_such_with_what_to_use_instead(backend, double):
    double.settings(
        devices={
            "ibm_kingston": {"online": True, "queue_length": 5},
            "ibm_fez": {"online": True, "queue_length": 3},
        }
    )
    with pytest.raises(BackendGoneError) as caught:
        backend("ibm_brisbane").resolve()
    assert str(caught.value) == (
        "ibm_brisbane is not available to this account (instance double-instance, plan open). "
        "IBM has retired it. Available now: ibm_fez (156 q, 3 pending), ibm_kingston (156 q, 5 "
        "pending). Set QSGD_BACKEND=ibm_fez, or QSGD_BACKEND=ibm:least_busy, or "
        "QSGD_BACKEND=fake_brisbane to run the noise recorded of that device on this machine (no "
        "account, no QPU time). Jobs that already ran there can still be read: qsgd jobs fetch."
    )
    assert caught.value.exit_code == 2
    with pytest.raises(BackendGoneError, match="ibm_boston is not available") as caught:
        backend("ibm_boston").resolve()
    assert "retired" not in str(caught.value)


def test_jobs_of_a_device_that_was_retired_since_can_still_be_read(
    backend, fresh_backend, collect, double
):
    handle = backend("ibm_brisbane").submit(work(), shots=8, tag="old", limit=NO_LIMIT)
    double.settings(devices={"ibm_fez": {"online": True, "queue_length": 0}})
    assert collect(fresh_backend("ibm_brisbane"), handle).parts[0].values.shape == (4, 8, 2)


def test_six_jobs_in_a_minute_wait_for_ibms_limit_of_five(double):
    from qsgd_ibm.backend import IBMBackend

    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    ibm = IBMBackend("ibm_fez", clock=lambda: now[0], sleep=sleep)
    for i in range(7):
        now[0] += 1.0
        ibm.submit(work(1), shots=1, tag=f"job-{i}", limit=NO_LIMIT)
    assert slept == [55.0]
    assert double.ledger()["asked"] == 7


def test_cancelling_is_idempotent_and_leaves_a_finished_job_alone(backend, collect, double):
    ibm = backend()
    double.settings(hold=True)
    held = ibm.submit(work(), shots=8, tag="held", limit=NO_LIMIT)
    double.settings(hold=False)
    done = ibm.submit(work(), shots=8, tag="done", limit=NO_LIMIT)
    collect(ibm, done)
    for handle in (held, held, done, done):
        ibm.cancel(handle)
    assert ibm.status(held).state is JobState.CANCELLED
    assert ibm.status(done).state is JobState.DONE
    assert double.asked_paid() == (2, 1)


def test_with_environment_variables_only_a_stranger_finds_the_device(double):
    code = (
        "from qsgd_core.plugins.registry import default_registry as r;"
        "b = r().make_backend('ibm:least_busy'); print(b.resolve())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | double.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.stdout.strip() == "ibm_brisbane", ran.stderr


def test_listing_names_imports_no_sdk():
    code = (
        "import sys, json;"
        "from qsgd_core.plugins.registry import default_registry as r;"
        "mine = [s for s in r().backends() if s.distribution == 'qsgd-ibm'];"
        "shown = [e for s in mine for e in s.spec.examples];"
        "print(json.dumps([shown, [m for m in sys.modules if m.split('.')[0] in"
        " ('qiskit', 'qiskit_aer', 'qiskit_ibm_runtime', 'numpy', 'torch', 'requests')]]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown, imported = json.loads(ran.stdout)
    assert shown == ["ibm_fez", "ibm_kingston", "ibm:least_busy", "fake_brisbane", "fake_fez"]
    assert imported == []


def test_names_lead_to_the_right_kind():
    registry = Registry(Settings())
    assert isinstance(registry.make_backend("ibm_fez"), Backend)
    assert isinstance(registry.make_backend("ibm:least_busy", {"mitigation": "dd"}), Backend)
    assert registry.resolve_backend("fake_fez").spec.kind == "simulator"
    with pytest.raises(ConfigError, match="no option 'mitigate'"):
        registry.make_backend("ibm_fez", {"mitigate": "dd"})
