"""AWS devices through the unmodified clients and the loopback double: what works."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import time

import aws_devices
import numpy as np
import pytest
from aws_double import SECRET, AwsDouble

from qsgd_braket.cloud.backend import BraketDevice
from qsgd_braket.options import DeviceOptions
from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Workload, ansatz
from qsgd_core.errors import (
    AuthError,
    BackendError,
    BackendGoneError,
    CapabilityError,
    ConfigError,
    JobNotDoneError,
)
from qsgd_core.jobs import JobHandle, JobState, Limit

NO_LIMIT = Limit()


def backend(name: str = "braket:garnet", **options: object) -> BraketDevice:
    made = BraketDevice(name, DeviceOptions(**options), pause=lambda _: None)
    made.resolve()
    return made


def work(rows: int = 2, n: int = 2, seed: int = 0) -> Workload:
    angles = np.random.default_rng(seed).uniform(-math.pi, math.pi, (rows, n))
    return Workload((CircuitBatch(ansatz(n, 1), angles),))


def finished(device: BraketDevice, asked: Workload, shots: int = 20, tag: str = "t"):
    handle = device.submit(asked, shots=shots, tag=tag, limit=NO_LIMIT)
    assert device.status(handle).state is JobState.DONE
    return device.fetch(handle)


def flips(n: int, *qubits: int) -> CircuitBatch:
    """A batch of one row without angles that measures 1 on ``qubits`` and 0 elsewhere."""
    return CircuitBatch(Circuit(n, tuple(Gate("x", (q,)) for q in qubits)), np.empty((1, 0)))


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, arn",
    [
        ("braket:garnet", aws_devices.GARNET),
        ("braket:Forte 1", aws_devices.FORTE),
        ("braket:cepheus-1-108q", aws_devices.CEPHEUS),
        ("braket:sv1", aws_devices.SV1),
        ("braket:dm1", aws_devices.DM1),
        ("braket:novel-7", aws_devices.NOVEL),
        (aws_devices.GARNET, aws_devices.GARNET),
    ],
)
def test_a_name_is_resolved_to_the_live_device_in_its_own_region(double: AwsDouble, name, arn):
    assert BraketDevice(name).resolve() == arn


def test_a_device_that_the_sdk_knows_costs_one_request(double: AwsDouble):
    backend("braket:garnet")
    assert double.ledger()["requests"] == {"GetDevice": 1}


def test_a_retired_device_says_which_ones_are_there(double: AwsDouble):
    with pytest.raises(BackendGoneError, match=r"RETIRED\. Online in us-west-1: .*cepheus-1-108q"):
        BraketDevice("braket:ankaa-3").resolve()


def test_an_offline_device_is_refused_before_anything_is_reserved(double: AwsDouble):
    double.device(aws_devices.GARNET, deviceStatus="OFFLINE")
    with pytest.raises(BackendGoneError, match="OFFLINE"):
        BraketDevice("braket:garnet").resolve()
    assert double.ledger()["asked"] == 0


def test_an_unknown_name_gets_a_hint_and_the_list(double: AwsDouble):
    with pytest.raises(BackendGoneError, match=r"Did you mean braket:local\? Online: .*garnet"):
        BraketDevice("braket:lokal").resolve()


def test_without_credentials_the_error_says_how_to_give_them(no_aws, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(AuthError, match=r"NoCredentialsError.*aws configure"):
        BraketDevice("braket:garnet").resolve()
    with pytest.raises(AuthError, match="Did you mean braket:local"):
        BraketDevice("braket:locl").resolve()


def test_a_simulator_without_a_region_asks_for_one(no_aws):
    with pytest.raises(ConfigError, match="AWS_REGION=us-east-1"):
        BraketDevice("braket:sv1").resolve()


def test_the_region_of_a_simulator_is_the_user_s_to_choose(double: AwsDouble):
    device = backend("braket:sv1", region="us-west-2")
    handle = device.submit(work(), shots=5, tag="t", limit=NO_LIMIT)
    assert handle.job_id.startswith("arn:aws:braket:us-west-2:")


def test_credentials_never_go_over_plain_http_to_another_machine(no_aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://192.0.2.1:80")
    with pytest.raises(ConfigError, match="not https"):
        BraketDevice("braket:garnet").resolve()


def test_a_closed_window_is_said_before_anything_is_paid(double: AwsDouble, caplog):
    found = aws_devices.catalogue()[aws_devices.GARNET]["deviceCapabilities"]
    found["service"]["executionWindows"] = [
        {"executionDay": "Monday", "windowStartHour": "09:00", "windowEndHour": "10:00"}
    ]
    double.device(aws_devices.GARNET, deviceCapabilities=found)
    tuesday = 1780358400.0  # 2026-06-02 00:00 UTC
    device = BraketDevice("braket:garnet", clock=lambda: tuesday)
    with caplog.at_level(logging.INFO, "qsgd_braket"):
        device.resolve()
    assert "in 153.0 hours" in caplog.text
    assert "in 153.0 hours" in device.quote(work(), shots=10).source


# --- one task -------------------------------------------------------------------------------------


def test_depth_one_gives_the_sine_of_64_random_rows_at_5_sigma_in_one_task(double: AwsDouble):
    theta = np.random.default_rng(1).uniform(-1, 1, (64, 4))
    asked = Workload((CircuitBatch(ansatz(4, 1, "none"), math.pi * theta),))
    result = finished(backend(), asked, shots=256)
    exact = -np.sin(math.pi * theta)  # H then Ry(a): ⟨Z⟩ = -sin a
    sigma = np.sqrt((1 - exact**2) / 256)
    assert (np.abs(result.expectations(asked)[0] - exact) <= 5 * sigma + 1e-9).all()
    ledger = double.ledger()
    assert (ledger["asked"], ledger["paid"]) == (1, 1)
    assert ledger["tasks"][0]["executables"] == 64  # not 256: no observables
    assert result.billed.usd == pytest.approx(ledger["paid_usd"])
    assert result.billed.shots == 64 * 256


def test_the_action_is_one_binding_with_an_input_set_per_row(double: AwsDouble):
    asked = work(3, 2)
    device = backend()
    handle = device.submit(asked, shots=5, tag="t", limit=NO_LIMIT)
    action = double.order("action", arn=handle.job_id)
    (program,) = action["programs"]
    columns = [program["inputs"][f"p{k}"] for k in range(2)]
    assert columns == asked.batches[0].angles.T.tolist()
    assert program["source"].count("measure") == 2


@pytest.mark.parametrize("name", ["braket:garnet", "braket:sv1"])
def test_rows_batches_and_bits_keep_their_order(double: AwsDouble, name):
    rows = np.array([[math.pi / 2], [-math.pi / 2], [-math.pi / 2]])
    asked = Workload((flips(3, 1), CircuitBatch(ansatz(1, 1), rows), flips(4, 0, 3)))
    parts = finished(backend(name), asked).parts
    assert [p.values.shape for p in parts] == [(1, 20, 3), (3, 20, 1), (1, 20, 4)]
    assert (parts[0].values == [0, 1, 0]).all()
    assert parts[1].values[:, 0, 0].tolist() == [1, 0, 0]
    assert (parts[2].values == [1, 0, 0, 1]).all()


def test_batches_without_angles_are_one_program_per_row(double: AwsDouble):
    batch = CircuitBatch(Circuit(2, (Gate("x", (1,)),)), np.empty((3, 0)))
    (part,) = finished(backend(), Workload((batch,))).parts
    assert (part.values == [0, 1]).all()
    assert part.values.shape == (3, 20, 2)


def test_rows_on_an_on_demand_simulator_share_one_task(double: AwsDouble):
    result = finished(backend("braket:sv1"), work(2, 4), shots=64)
    assert result.parts[0].values.shape == (2, 64, 4)
    assert (result.parts[0].values[0] != result.parts[0].values[1]).any()
    ledger = double.ledger()
    assert ledger["asked"] == 1
    assert result.billed.usd == pytest.approx(0.00375)


def test_what_does_not_fit_one_task_is_refused_before_it_is_sent(double: AwsDouble):
    garnet, sv1, forte = (backend(f"braket:{n}") for n in ("garnet", "sv1", "forte-1"))
    for device, asked, shots, said in [
        (garnet, work(101), 10, "up to 100 rows"),
        (garnet, work(1, 21), 10, "up to 20 qubits"),
        (garnet, work(100), 10_001, "at most 1000000 executions"),
        (garnet, work(1), 20_001, "at most 20000 shots"),
        (sv1, work(6, 4), 10, "share a register of 20 qubits"),
        (forte, work(10), 10, r"at least 500 shots together.*shots=50"),
    ]:
        with pytest.raises(CapabilityError, match=said):
            device.quote(asked, shots=shots)
        with pytest.raises(CapabilityError, match=said):
            device.submit(asked, shots=shots, tag="t", limit=NO_LIMIT)
    assert double.ledger()["requests"].get("CreateQuantumTask", 0) == 0


@pytest.mark.parametrize("limit", [Limit(usd=0.3), Limit(shots=39)])
def test_a_task_above_its_limit_is_not_sent(double: AwsDouble, limit):
    with pytest.raises(BackendError, match="Nothing was sent") as caught:
        backend().submit(work(), shots=20, tag="t", limit=limit)
    assert not caught.value.may_have_spent
    assert double.ledger()["asked"] == 0


def test_a_task_exactly_at_its_limit_is_sent(double: AwsDouble):
    device = backend()
    worst = device.quote(work(), shots=20).worst
    device.submit(work(), shots=20, tag="t", limit=Limit(usd=worst.usd, shots=worst.shots))
    assert double.ledger()["asked"] == 1


def test_an_unknown_price_is_not_sent_under_a_money_limit(double: AwsDouble):
    found = aws_devices.catalogue()[aws_devices.NOVEL]["deviceCapabilities"]
    del found["service"]["deviceCost"]
    double.device(aws_devices.NOVEL, deviceCapabilities=found)
    with pytest.raises(BackendError, match=r"\$None"):
        backend(aws_devices.NOVEL).submit(work(), shots=20, tag="t", limit=Limit(usd=100.0))
    assert double.ledger()["asked"] == 0


def test_the_bucket_is_the_user_s_when_given(double: AwsDouble):
    device = backend(s3_bucket="amazon-braket-mine", s3_prefix="here")
    result = finished(device, work())
    ledger = double.ledger()
    assert result.parts[0].values.shape == (2, 20, 2)
    assert ledger["tasks"][0]["result"].startswith("/amazon-braket-mine/here/")
    assert "CreateBucket" not in ledger["requests"]


# --- handles --------------------------------------------------------------------------------------


def test_a_second_process_collects_from_the_json_of_a_handle(double: AwsDouble):
    handle = backend().submit(work(2, 3), shots=6, tag="t", limit=NO_LIMIT)
    code = (
        "import sys\n"
        "from qsgd_braket.cloud.backend import BraketDevice\n"
        "from qsgd_core.jobs import JobHandle\n"
        "handle = JobHandle.from_json(sys.argv[1])\n"
        "device = BraketDevice(handle.backend)\n"
        "print(device.status(handle).state, device.fetch(handle).parts[0].values.shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, handle.to_json()],
        check=True,
        env=double.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.stdout.strip() == "done (2, 6, 3)"
    assert handle.backend == aws_devices.GARNET


def test_a_handle_is_plain_json_without_a_secret(double: AwsDouble):
    device = backend()
    handle = device.submit(work(), shots=6, tag="t", limit=NO_LIMIT)
    assert JobHandle.from_json(handle.to_json()) == handle
    for text in (handle.to_json(), repr(device), repr(vars(device))):
        assert SECRET not in text
    assert json.loads(handle.to_json())["extra"] == {"layout": "set:2x2"}


def test_a_task_is_found_by_its_tag_on_any_page_and_can_be_read(double: AwsDouble):
    double.settings(page=1)
    device = backend()
    for tag in ("a", "b", "c"):
        device.submit(work(3, 2), shots=8, tag=tag, limit=NO_LIMIT)
    (found,) = BraketDevice("braket:garnet").find("c")
    device.status(found)
    assert device.fetch(found).parts[0].values.shape == (3, 8, 2)
    assert device.find("d") == []


def test_a_slow_queue_is_reported_and_nothing_is_waited_for(double: AwsDouble):
    double.settings(queued_polls=2)
    device = backend()
    handle = device.submit(work(), shots=6, tag="t", limit=NO_LIMIT)
    first = device.status(handle)
    assert (first.state, first.queue_position) == (JobState.QUEUED, 2)
    with pytest.raises(JobNotDoneError, match="QUEUED"):
        device.fetch(handle)
    assert device.status(handle).state is JobState.DONE


def test_cancelling_is_idempotent_and_costs_nothing_in_the_queue(double: AwsDouble):
    double.settings(queued_polls=9)
    device = backend()
    handle = device.submit(work(), shots=6, tag="t", limit=NO_LIMIT)
    device.cancel(handle)
    device.cancel(handle)
    status = device.status(handle)
    device.cancel(handle)
    assert status.state is JobState.CANCELLED
    assert (status.billed.usd, status.billed.shots) == (0.0, 0)
    assert double.ledger()["paid"] == 0


def test_cancelling_a_finished_task_leaves_it_alone(double: AwsDouble):
    device = backend()
    handle = device.submit(work(), shots=6, tag="t", limit=NO_LIMIT)
    device.status(handle)
    device.cancel(handle)
    assert device.fetch(handle).parts[0].values.shape == (2, 6, 2)


# --- the service's own limit ----------------------------------------------------------------------


def test_aws_itself_refuses_what_is_above_its_spending_limit(double: AwsDouble):
    device = backend()
    limit = device.guard(0.789, until=time.time() + 3600)
    (known,) = double.ledger()["limits"].values()
    assert (known["usd"], known["deviceArn"]) == (0.78, aws_devices.GARNET)
    device.submit(work(), shots=20, tag="a", limit=NO_LIMIT)
    device.submit(work(), shots=20, tag="b", limit=NO_LIMIT)
    with pytest.raises(BackendError, match="raise it or wait") as caught:
        device.submit(work(), shots=20, tag="c", limit=NO_LIMIT)
    assert not caught.value.may_have_spent
    assert double.ledger()["asked"] == 2
    device.unguard(limit)
    device.unguard(limit)
    device.submit(work(), shots=20, tag="c", limit=NO_LIMIT)
    assert double.ledger()["asked"] == 3


@pytest.mark.parametrize("usd, ahead", [(0.0, 3600.0), (1.0, -1.0)])
def test_a_spending_limit_that_makes_no_sense_is_refused(double: AwsDouble, usd, ahead):
    with pytest.raises(ConfigError, match="spending limit needs"):
        backend().guard(usd, until=time.time() + ahead)


def test_simulators_have_no_spending_limit_at_aws(double: AwsDouble):
    assert backend("braket:sv1").guard(1.0, until=time.time() + 3600) is None
