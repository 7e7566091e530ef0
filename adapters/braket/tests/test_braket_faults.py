"""What goes wrong at AWS: what the user sees, how many tasks were asked for and how many are paid.

Every test ends in the fixture's check that no tag was paid for twice.
"""

from __future__ import annotations

import math
import traceback

import aws_devices
import numpy as np
import pytest
from aws_double import SECRET, AwsDouble

from qsgd_braket.cloud.backend import BraketDevice
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import (
    AuthError,
    BackendError,
    BackendGoneError,
    JobFailedError,
    ResultCorruptError,
    TransientError,
)
from qsgd_core.jobs import JobHandle, JobState, Limit

ANGLES = np.random.default_rng(0).uniform(-math.pi, math.pi, (2, 2))
WORK = Workload((CircuitBatch(ansatz(2, 1), ANGLES),))


@pytest.fixture
def device(double: AwsDouble) -> BraketDevice:
    made = BraketDevice("braket:garnet", pause=lambda _: None)
    made.resolve()
    return made


def submit(device: BraketDevice, tag: str = "t") -> JobHandle:
    return device.submit(WORK, shots=20, tag=tag, limit=Limit())


def asked_and_paid(double: AwsDouble) -> tuple[int, int]:
    ledger = double.ledger()
    return ledger["asked"], ledger["paid"]


# --- creating a task ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, error, retryable, said",
    [
        ("AccessDeniedException", AuthError, False, "not authorized.*AmazonBraketFullAccess"),
        ("UnrecognizedClientException", AuthError, False, "aws configure"),
        ("ThrottlingException", TransientError, True, "Rate exceeded.*later"),
        ("ServiceQuotaExceededException", TransientError, True, "Service Quotas"),
        ("DeviceOfflineException", BackendGoneError, False, "Online in eu-north-1: .*garnet"),
        ("DeviceRetiredException", BackendGoneError, False, "without an account: braket:local"),
        ("ValidationException", BackendError, False, "ValidationException"),
    ],
)
def test_a_refused_task_is_asked_for_once_and_does_not_exist(
    double, device, kind, error, retryable, said
):
    double.fault("CreateQuantumTask", kind)
    with pytest.raises(error, match=said) as caught:
        submit(device)
    assert (caught.value.may_have_spent, caught.value.retryable) == (False, retryable)
    assert caught.value.provider_code == kind
    assert double.ledger()["requests"]["CreateQuantumTask"] == 1
    assert asked_and_paid(double) == (0, 0)


@pytest.mark.parametrize(
    "kind, exists",
    [
        ("InternalServiceException", 0),
        ("reset_before", 0),
        ("reset_after", 1),
        ("html_before", 0),
        ("html_after", 1),
    ],
)
def test_a_task_that_may_exist_is_asked_for_once_and_found_by_its_tag(double, device, kind, exists):
    double.fault("CreateQuantumTask", kind, times=9)
    with pytest.raises(TransientError, match="not known") as caught:
        submit(device)
    assert caught.value.may_have_spent
    assert double.ledger()["requests"]["CreateQuantumTask"] == 1
    found = device.find("t")
    assert len(found) == exists
    for handle in found:
        assert device.status(handle).state is JobState.DONE
        assert device.fetch(handle).parts[0].values.shape == (2, 20, 2)
    assert asked_and_paid(double) == (exists, exists)


def test_the_same_tag_twice_is_one_task(double, device):
    double.fault("CreateQuantumTask", "reset_after")
    with pytest.raises(TransientError):
        submit(device)
    again = submit(device)
    device.status(again)
    assert [h.job_id for h in device.find("t")] == [again.job_id]
    assert asked_and_paid(double) == (1, 1)


def test_a_list_that_lags_says_not_found_until_it_shows_the_task(double, device):
    double.settings(search_lag=2)
    double.fault("CreateQuantumTask", "reset_after")
    with pytest.raises(TransientError):
        submit(device)
    assert [len(device.find("t")) for _ in range(3)] == [0, 0, 1]
    assert device.capabilities.find_horizon_s > 0


def test_a_service_that_is_not_there_spends_nothing(double, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(TransientError, match="before anything was sent") as caught:
        BraketDevice("braket:garnet").resolve()
    assert not caught.value.may_have_spent


def test_a_set_that_the_service_finds_too_big_says_which_program(double, device):
    # The device changes between the look at it and the submission.
    found = aws_devices.catalogue()[aws_devices.GARNET]["deviceCapabilities"]
    found["action"][aws_devices.PROGRAM_SET]["maximumExecutables"] = 1
    double.device(aws_devices.GARNET, deviceCapabilities=found)
    with pytest.raises(BackendError, match=r"2 executables; 1 allowed.*First failure: .*too many"):
        submit(device)
    assert asked_and_paid(double) == (0, 0)


def test_a_bucket_that_cannot_be_found_stops_before_the_task(double, device, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ANOTHER0KEY")
    fresh = BraketDevice("braket:garnet", pause=lambda _: None)
    fresh._known, fresh.capabilities = device._known, device.capabilities
    with pytest.raises(AuthError, match="S3 bucket") as caught:
        submit(fresh)
    assert not caught.value.may_have_spent
    assert double.ledger()["requests"].get("CreateQuantumTask", 0) == 0


# --- the task -------------------------------------------------------------------------------------


def test_a_failed_task_gives_its_reason_and_costs_nothing(double, device):
    double.outcome("FAILED", reason="The fridge is warm.")
    handle = submit(device)
    status = device.status(handle)
    assert (status.state, status.reason) == (JobState.FAILED, "The fridge is warm.")
    assert status.billed.usd == 0.0
    with pytest.raises(JobFailedError, match="fridge") as caught:
        device.fetch(handle)
    assert not caught.value.may_have_spent
    assert JobHandle.from_json(caught.value.handle) == handle
    assert asked_and_paid(double) == (1, 0)


def test_a_task_that_failed_half_way_costs_what_it_ran(double, device):
    double.outcome("FAILED", reason="Power cut.", shots=10)
    handle = submit(device)
    status = device.status(handle)
    assert status.billed.usd == pytest.approx(double.ledger()["paid_usd"])
    assert status.billed.shots == 10
    with pytest.raises(JobFailedError) as caught:
        device.fetch(handle)
    assert caught.value.may_have_spent


def test_a_task_that_somebody_cancelled_is_an_error_and_no_result(double, device):
    double.outcome("CANCELLED", reason="By the console.")
    handle = submit(device)
    assert device.status(handle).state is JobState.CANCELLED
    with pytest.raises(JobFailedError, match="CANCELLED: By the console"):
        device.fetch(handle)


def test_a_set_of_which_some_circuits_failed_is_an_error_and_paid(double, device):
    double.outcome("COMPLETED", failures=1)
    handle = submit(device)
    device.status(handle)
    with pytest.raises(JobFailedError, match=r"1 of 2 circuits.*pulse was lost") as caught:
        device.fetch(handle)
    assert caught.value.may_have_spent
    assert asked_and_paid(double) == (1, 1)


@pytest.mark.parametrize(
    "kind, times, works",
    [
        ("ThrottlingException", 2, True),
        ("InternalServiceException", 2, True),
        ("reset_before", 2, True),
        ("ThrottlingException", 9, False),
        ("InternalServiceException", 9, False),
        ("reset_before", 9, False),
        ("html_before", 1, False),
    ],
)
def test_polling_survives_what_passes_and_reports_what_does_not(double, device, kind, times, works):
    handle = submit(device)
    double.fault("GetQuantumTask", kind, times=times)
    if works:
        assert device.status(handle).state is JobState.DONE
    else:
        with pytest.raises(TransientError) as caught:
            device.status(handle)
        assert caught.value.retryable
        assert caught.value.handle == handle.to_json()
    assert double.ledger()["requests"]["GetQuantumTask"] <= 3
    assert asked_and_paid(double)[0] == 1


def test_a_task_of_nobody_is_an_error(double, device):
    handle = submit(device)
    gone = JobHandle(handle.backend, handle.job_id[:-1] + "?", "t", 0.0, handle.extra)
    with pytest.raises(BackendError, match="not found"):
        device.status(gone)


# --- the result -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["NoSuchKey", "InternalError", "reset_before", "short"])
def test_a_result_that_is_late_once_or_twice_is_read(double, device, kind):
    handle = submit(device)
    device.status(handle)
    double.fault("GetObject", kind, times=2)
    assert device.fetch(handle).parts[0].values.shape == (2, 20, 2)


def test_a_result_that_is_not_there_yet_is_asked_for_again_and_given_up_at_last(double, device):
    handle = submit(device)
    device.status(handle)
    double.fault("GetObject", "NoSuchKey", times=99)
    with pytest.raises(TransientError, match="not there yet") as caught:
        device.fetch(handle)
    assert caught.value.may_have_spent
    assert double.ledger()["requests"]["GetObject"] == 3
    later = BraketDevice("braket:garnet", pause=lambda _: None, clock=lambda: 4e9)
    with pytest.raises(ResultCorruptError, match="lifecycle rule") as caught:
        later.fetch(handle)
    assert caught.value.may_have_spent
    assert asked_and_paid(double) == (1, 1)


def test_a_bucket_that_may_not_be_read_is_said_at_once(double, device):
    handle = submit(device)
    device.status(handle)
    double.fault("GetObject", "AccessDenied", times=99)
    with pytest.raises(AuthError, match=r"s3://amazon-braket-eu-north-1-123456789012") as caught:
        device.fetch(handle)
    assert caught.value.may_have_spent
    assert double.ledger()["requests"]["GetObject"] == 1


@pytest.mark.parametrize("kind", ["cut", "empty", "html_before"])
def test_a_result_that_is_cut_or_no_result_is_corrupt_and_paid(double, device, kind):
    handle = submit(device)
    device.status(handle)
    double.fault("GetObject", kind)
    with pytest.raises(ResultCorruptError, match="not JSON, or cut") as caught:
        device.fetch(handle)
    assert caught.value.may_have_spent
    assert caught.value.retryable  # it may still be being written: the courier reads it again
    later = BraketDevice("braket:garnet", pause=lambda _: None, clock=lambda: 4e9)
    double.fault("GetObject", kind)
    with pytest.raises(ResultCorruptError) as final:
        later.fetch(handle)
    assert not final.value.retryable
    # It is still there: asking again costs nothing.
    assert device.fetch(handle).parts[0].values.shape == (2, 20, 2)
    assert asked_and_paid(double) == (1, 1)


def test_a_result_with_a_layout_of_another_version_is_not_guessed(double, device):
    handle = submit(device)
    device.status(handle)
    odd = JobHandle(handle.backend, handle.job_id, "t", 0.0, {"layout": "v9:?"})
    with pytest.raises(ResultCorruptError, match="another version"):
        device.fetch(odd)


# --- searching ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ThrottlingException", "reset_before", "html_before"])
def test_a_search_that_fails_never_says_that_there_is_nothing(double, device, kind):
    submit(device)
    double.fault("SearchQuantumTasks", kind, times=9)
    with pytest.raises(TransientError):
        device.find("t")


def test_too_many_tasks_to_look_through_is_not_an_empty_list(double, device, monkeypatch):
    monkeypatch.setattr("qsgd_braket.cloud.service.MAX_PAGES", 1)
    double.settings(page=1)
    submit(device, "a")
    submit(device, "b")
    with pytest.raises(BackendError, match="cannot be told"):
        device.find("b")


# --- secrets --------------------------------------------------------------------------------------


def test_a_signature_error_quotes_nothing_of_what_was_signed(double, device):
    leak = f"The canonical request was x-amz-security-token:{SECRET}"
    double.fault("CreateQuantumTask", "UnrecognizedClientException", message=leak)
    with pytest.raises(AuthError) as caught:
        submit(device)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_no_error_quotes_an_access_key(double, device):
    key = "AKIAABCDEFGHIJKLMNOP"
    double.fault("CreateQuantumTask", "ValidationException", message=f"Key {key} is odd")
    with pytest.raises(BackendError, match="Key … is odd") as caught:
        submit(device)
    assert key not in str(caught.value)
