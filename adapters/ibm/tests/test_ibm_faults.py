"""For each fault: what the user sees, how many jobs were made, and how many were paid.

The double's error bodies are a reading of IBM's client, not a recording of IBM.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import requests
from qiskit_ibm_runtime.api.exceptions import RequestsApiError

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import (
    AuthError,
    BackendError,
    BackendGoneError,
    ConfigError,
    JobFailedError,
    JobNotDoneError,
    ResultCorruptError,
    TransientError,
)
from qsgd_core.jobs import JobHandle, JobState, Limit
from qsgd_ibm import transport
from qsgd_ibm.failures import refused

WORK = Workload((CircuitBatch(ansatz(2, 1), np.array([[0.1, 0.2], [0.3, 0.4]])),))
NO_LIMIT = Limit()
EVER = -1


def submit(ibm: Any, tag: str = "t", limit: Limit = NO_LIMIT) -> JobHandle:
    return ibm.submit(WORK, shots=8, tag=tag, limit=limit)


def fault(on: str, kind: str = "status", **more: Any) -> dict[str, Any]:
    return {"on": on, "kind": kind, **more}


# --- the job is refused: no job, nothing paid ----------------------------------------------------

REFUSED = {
    "400": (400, {}, BackendError, "IBM refused the job", False, "1234"),
    "403": (403, {}, AuthError, "403.*may lack access.*a gateway blocked", False, "1234"),
    "404": (404, {}, BackendGoneError, "does not know the device or program", False, "1234"),
    "409 usage": (
        409,
        {},
        BackendError,
        "IBM refused the job.*409.*No job was made",
        False,
        "1234",
    ),
    "429": (429, {}, TransientError, "takes no more jobs at the moment", True, "1234"),
    "429 retry": (429, {"Retry-After": "3600"}, TransientError, "takes no more jobs", True, "1234"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_submission_makes_no_job_and_is_sent_once(backend, double, case):
    status, headers, kind, message, retryable, code = REFUSED[case]
    body = {"errors": [{"code": 1234, "message": "because"}]}
    double.faults(fault("submit", status=status, headers=headers, body=body, times=EVER))
    with pytest.raises(kind, match=message) as caught:
        submit(backend())
    assert type(caught.value) is kind
    assert caught.value.may_have_spent is False
    assert caught.value.retryable is retryable
    assert caught.value.provider_code == code
    assert "because" in str(caught.value)
    assert caught.value.__cause__ is not None
    ledger = double.ledger()
    assert (ledger["posts"], ledger["asked"], ledger["paid"]) == (1, 0, 0)


# --- the answer is lost: the job may exist, and is found by its tag ------------------------------

LOST = {
    "401": (fault("submit", status=401), AuthError, 0),
    "408": (fault("submit", status=408), TransientError, 0),
    "500": (fault("submit", status=500), TransientError, 0),
    "503 with retry-after": (
        fault("submit", status=503, headers={"Retry-After": "1"}),
        TransientError,
        0,
    ),
    "reset before": (fault("submit", "reset"), TransientError, 0),
    "401 after": (fault("submit", status=401, after=True), AuthError, 1),
    "500 after": (fault("submit", status=500, after=True), TransientError, 1),
    "504 after": (fault("submit", status=504, after=True), TransientError, 1),
    "reset after": (fault("submit", "reset", after=True), TransientError, 1),
    "html after": (fault("submit", "html", after=True), TransientError, 1),
    "empty after": (fault("submit", "empty", after=True), TransientError, 1),
    "cut after": (fault("submit", "cut"), TransientError, 1),
}


@pytest.mark.parametrize("case", LOST)
def test_after_a_lost_answer_the_job_is_found_by_its_tag_and_paid_once(
    backend, collect, double, case
):
    shown, kind, made = LOST[case]
    double.faults(shown | {"times": EVER})
    ibm = backend()
    with pytest.raises(kind, match="The job may exist; it must be looked for") as caught:
        submit(ibm, "lost")
    assert caught.value.may_have_spent is True
    found = ibm.find("lost")
    assert len(found) == made
    ledger = double.ledger()
    assert (ledger["posts"], ledger["asked"]) == (1, made)
    double.faults()
    handle = found[0] if found else submit(ibm, "lost")
    assert collect(ibm, handle).parts[0].values.shape == (2, 8, 2)
    assert double.asked_paid() == (1, 1)


def test_an_answer_that_takes_too_long_is_given_up_and_the_job_found(backend, double, monkeypatch):
    monkeypatch.setattr(transport, "SUBMIT_READ_S", 0.2)
    double.faults(fault("submit", "stall", seconds=1.0))
    ibm = backend()
    with pytest.raises(TransientError, match="The job may exist") as caught:
        submit(ibm, "slow")
    assert caught.value.may_have_spent is True
    monkeypatch.setattr(transport, "READ_S", 5.0)
    found = wait_for(lambda: ibm.find("slow"))
    assert len(found) == 1
    assert double.asked_paid()[0] == 1


def wait_for(ask: Any) -> Any:
    """What ``ask`` gives as soon as it gives something; each ask is a request of its own."""
    for _ in range(2000):
        if answer := ask():
            return answer
    raise AssertionError("nothing came")


def test_a_service_that_cannot_be_reached_was_sent_nothing():
    session, layer = requests.Session(), transport.Transport()
    session.mount("http://", layer)
    with layer.one_post() as post, pytest.raises(requests.ConnectionError) as caught:
        session.post("http://127.0.0.1:9/api/v1/jobs", data="{}")  # the discard port: closed
    assert (post.sent, post.may_have_spent) == (False, False)
    error = refused(post, caught.value, doing="submitting job t", secret=None)
    assert isinstance(error, TransientError)
    assert str(error).startswith("IBM cannot be reached while submitting job t: ")
    assert str(error).endswith("Nothing was sent.")


def test_a_second_post_in_one_submission_is_refused_whoever_sends_it(backend, double):
    connection = backend()._connect()
    session = connection.service._active_api_client._session
    double.faults(fault("submit", status=400, times=EVER))
    with connection.transport.one_post():
        with pytest.raises(RequestsApiError, match="400"):
            session.post("/jobs", data="{}")
        with pytest.raises(BackendError, match="a second time; refused") as caught:
            session.post("/jobs", data="{}")
    assert caught.value.may_have_spent is True
    with pytest.raises(BackendError, match="a second time; refused"):
        session.post("/jobs", data="{}")  # outside a submission none is let through
    assert double.ledger()["posts"] == 1


def test_a_list_that_lags_shows_the_job_in_the_end(backend, double):
    double.settings(list_lag=2)
    double.faults(fault("submit", status=504, after=True))
    ibm = backend(find_horizon_s=60)
    with pytest.raises(TransientError):
        submit(ibm, "lagging")
    assert [len(ibm.find("lagging")) for _ in range(3)] == [0, 0, 1]
    assert ibm.capabilities.find_horizon_s == 60


@pytest.mark.parametrize(
    "shown",
    [
        fault("list", status=503),
        fault("list", "html"),
        fault("list", "cut"),
        fault("list", "reset"),
    ],
    ids=str,
)
def test_a_list_that_cannot_be_read_is_not_an_empty_list(backend, shown, double):
    ibm = backend()
    handle = submit(ibm, "there")
    double.faults(shown | {"times": EVER})
    with pytest.raises(TransientError):
        ibm.find("there")
    double.faults()
    assert [h.job_id for h in ibm.find("there")] == [handle.job_id]


# --- refused before anything is sent -------------------------------------------------------------


def test_usage_at_its_limit_is_refused_before_the_job_is_sent(backend, double):
    double.settings(usage_consumed_s=600.0)
    with pytest.raises(BackendError, match=r"has used 600\.0 s of 600\.0 s.*Nothing was sent") as c:
        submit(backend())
    assert c.value.provider_code == "usage_limit"
    assert double.ledger()["posts"] == 0


def test_less_time_left_than_the_job_takes_is_refused_with_the_numbers(backend, double):
    double.settings(usage_consumed_s=599.0)
    with pytest.raises(BackendError, match=r"expected to take 2\.0 s.*used 599\.0 s of 600\.0 s"):
        submit(backend())
    assert double.ledger()["posts"] == 0


def test_a_job_that_does_not_fit_its_limit_is_refused(backend, double):
    ibm = backend()
    with pytest.raises(BackendError, match=r"its limit is 1\.9 s: IBM would stop it half-way"):
        submit(ibm, limit=Limit(qpu_s=1.9))
    with pytest.raises(BackendError, match="16 executions and its limit is 15"):
        submit(ibm, limit=Limit(shots=15))
    with pytest.raises(BackendError, match=r"limit is 1\.2 s"):
        submit(backend(usd_per_s=1.6), limit=Limit(usd=2.0))
    assert double.ledger()["posts"] == 0


def test_a_limit_in_dollars_needs_a_price(fresh_backend, double):
    double.settings(plan="bespoke", pricing="subscription")
    with pytest.raises(BackendError, match="option usd_per_s"):
        submit(fresh_backend(), limit=Limit(usd=2.0))
    assert double.ledger()["posts"] == 0


def test_an_offline_device_is_refused_when_resolved_and_before_a_job_is_sent(backend, double):
    ibm = backend()
    ibm._current()
    double.settings(
        devices={
            "ibm_fez": {"online": False, "queue_length": 0},
            "ibm_brisbane": {"online": True, "queue_length": 7},
        }
    )
    with pytest.raises(BackendGoneError, match=r"ibm_fez is offline.*ibm_brisbane.*7 pending"):
        ibm.resolve()
    with pytest.raises(BackendGoneError, match="ibm_fez is offline") as caught:
        submit(ibm)
    assert caught.value.retryable is True
    assert double.ledger()["posts"] == 0


def test_a_tag_that_ibm_could_cut_is_refused(backend, double):
    with pytest.raises(ConfigError, match="1 to 60 characters"):
        submit(backend(), tag="x" * 61)
    assert double.ledger()["posts"] == 0


# --- logging in ----------------------------------------------------------------------------------


def test_a_bad_key_is_said_to_be_one(fresh_backend, double):
    double.settings(keys=["another"])
    with pytest.raises(AuthError, match=r"did not accept the API key.*QISKIT_IBM_TOKEN") as caught:
        fresh_backend().resolve()
    assert double.environment["QISKIT_IBM_TOKEN"] not in str(caught.value)
    assert double.asked_paid() == (0, 0)


def test_no_key_at_all_says_where_to_put_one(fresh_backend, double, monkeypatch):
    monkeypatch.delenv("QISKIT_IBM_TOKEN")
    with pytest.raises(AuthError, match="Check QISKIT_IBM_TOKEN and QISKIT_IBM_INSTANCE"):
        fresh_backend().resolve()


def test_an_instance_of_somebody_else_is_an_auth_error(fresh_backend, monkeypatch, double):
    other = double.environment["QISKIT_IBM_INSTANCE"].replace("double-instance", "other")
    monkeypatch.setenv("QISKIT_IBM_INSTANCE", other)
    with pytest.raises(AuthError, match="does not have access"):
        fresh_backend().resolve()


@pytest.mark.parametrize("where", ["token", "search"])
def test_a_login_service_that_is_down_is_not_a_bad_key(fresh_backend, double, where):
    double.faults(fault(where, status=502, times=EVER))
    with pytest.raises(TransientError, match="502"):
        fresh_backend().resolve()


@pytest.mark.parametrize(
    "name", ["QISKIT_IBM_URL", "IAM_URL", "GLOBAL_SEARCH_URL", "GLOBAL_CATALOG_URL"]
)
def test_plain_http_to_another_machine_is_refused(fresh_backend, double, monkeypatch, name):
    monkeypatch.setenv(name, "http://192.0.2.7/experimental/api/v1")
    with pytest.raises(ConfigError, match=rf"{name}.*would travel unencrypted"):
        fresh_backend().resolve()
    assert double.ledger()["requests"] == {}


@pytest.mark.parametrize("kind", ["status", "reset"])
def test_the_api_key_never_stands_in_for_a_token(fresh_backend, double, collect, kind):
    ibm = fresh_backend()
    handle = submit(ibm)
    expire_tokens(ibm)
    double.faults(fault("token", kind, status=503, times=EVER))
    with pytest.raises(TransientError, match=r"login service \(IAM\) did not answer"):
        ibm.status(handle)
    ledger = double.ledger()
    assert ledger["key_leaks"] == 0
    double.faults()  # and the next call logs in anew, at once
    assert collect(ibm, handle).parts[0].values.shape == (2, 8, 2)


def test_a_key_that_was_revoked_meanwhile_is_an_auth_error(fresh_backend, double):
    ibm = fresh_backend()
    handle = submit(ibm)
    expire_tokens(ibm)
    double.settings(keys=[])
    with pytest.raises(AuthError, match="refused the API key"):
        ibm.status(handle)
    assert double.ledger()["key_leaks"] == 0


def expire_tokens(ibm: Any) -> None:
    for client in ibm._connect()._clients(every=True):
        client._session.auth.tm.expire_time = 0


# --- polling -------------------------------------------------------------------------------------


def test_a_slow_queue_is_queued_and_asked_for_again(backend, double):
    double.settings(queue_polls=3)
    ibm = backend()
    handle = submit(ibm)
    assert [ibm.status(handle).state for _ in range(2)] == [JobState.QUEUED] * 2
    double.settings(hold=True)
    held = submit(ibm, "held")
    with pytest.raises(JobNotDoneError, match="ask again later"):
        ibm.fetch(held)
    double.release()
    for job in (handle, held):
        wait_for(lambda job=job: ibm.status(job).state.final)
    assert ibm.fetch(handle).parts[0].values.shape == (2, 8, 2)
    assert double.asked_paid() == (2, 2)


POLL = {
    "429": fault("job", status=429),
    "429 retry": fault("job", status=429, headers={"Retry-After": "3600"}),
    "500": fault("job", status=500),
    "503": fault("job", status=503),
    "reset": fault("job", "reset"),
    "html": fault("job", "html"),
    "empty": fault("job", "empty"),
    "cut": fault("job", "cut"),
    "404 at first": fault("job", status=404),
}


@pytest.mark.parametrize("case", POLL)
def test_trouble_while_polling_is_not_trouble_with_the_job(backend, collect, double, case):
    ibm = backend()
    handle = submit(ibm)
    double.faults(POLL[case] | {"times": EVER})
    with pytest.raises(TransientError) as caught:
        ibm.status(handle)
    assert caught.value.retryable is True
    double.faults()
    assert collect(ibm, handle).parts[0].values.shape == (2, 8, 2)
    assert double.asked_paid() == (1, 1)


def test_one_gateway_error_or_reset_while_polling_is_not_even_seen(backend, double):
    ibm = backend()
    handle = submit(ibm)
    for shown in (fault("job", status=502), fault("job", "reset")):
        double.faults(shown)
        ibm.status(handle)


def test_a_stalled_answer_is_given_up(backend, double, monkeypatch):
    monkeypatch.setattr(transport, "READ_S", 0.1)
    ibm = backend()
    handle = submit(ibm)
    double.faults(fault("job", "stall", seconds=0.5, times=EVER))
    with pytest.raises(TransientError, match="No usable answer"):
        ibm.status(handle)


def test_polling_without_rights_is_an_auth_error(backend, double):
    ibm = backend()
    handle = submit(ibm)
    double.faults(fault("job", status=401))
    with pytest.raises(AuthError, match="401"):
        ibm.status(handle)


def test_a_job_that_ibm_does_not_know_asks_about_the_instance(backend):
    unknown = JobHandle("ibm_fez", "no-such-job", "t", submitted_at=0.0)
    with pytest.raises(BackendGoneError, match=r"no job no-such-job.*Is QISKIT_IBM_INSTANCE"):
        backend().status(unknown)


# --- endings -------------------------------------------------------------------------------------

ENDINGS = {
    "Failed": (JobState.FAILED, {"reason": "Internal error", "reason_code": 8050}, 0.0, "8050"),
    "Cancelled": (JobState.CANCELLED, {"reason": "by its owner"}, 1.0, "by its owner"),
    "Cancelled - Ran too long": (
        JobState.CANCELLED,
        {"reason_code": 1305},
        None,
        "ran longer than its max_execution_time",
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_job_that_ends_without_a_result_is_final_with_its_reason_and_bill(
    backend, double, ending
):
    state, settings, billed, said = ENDINGS[ending]
    double.settings(ending=ending, **settings)
    ibm = backend()
    handle = submit(ibm, limit=Limit(qpu_s=4))
    wait_for(lambda: ibm.status(handle).state.final)
    status = ibm.status(handle)
    assert status.state is state
    assert said in (status.reason or "")
    assert status.billed is not None
    assert status.billed.qpu_s == (4.0 if billed is None else billed)
    with pytest.raises(JobFailedError, match=said) as caught:
        ibm.fetch(handle)
    assert caught.value.may_have_spent is True
    assert caught.value.handle == handle.to_json()
    assert double.asked_paid() == (1, int(status.billed.qpu_s > 0))


DAMAGED = {
    "missing": (fault("results", status=404), "it is missing"),
    "empty": (fault("results", "empty"), "is empty"),
    "cut": (fault("results", "cut"), "cannot be read"),
    "html": (fault("results", "html"), "starts with '<!DOCTYPE html>"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_result_is_corrupt_and_never_taken_for_bits(backend, collect, double, case):
    shown, said = DAMAGED[case]
    ibm = backend()
    handle = submit(ibm)
    wait_for(lambda: ibm.status(handle).state.final)
    double.faults(shown | {"times": EVER})
    with pytest.raises(ResultCorruptError, match=said) as caught:
        ibm.fetch(handle)
    assert caught.value.may_have_spent is True
    assert caught.value.retryable is True
    later = ibm._clock() + 601
    ibm._clock = lambda: later
    with pytest.raises(ResultCorruptError, match=said) as caught:
        ibm.fetch(handle)
    assert caught.value.retryable is False  # it will not get better
    double.faults()
    assert ibm.fetch(handle).parts[0].values.shape == (2, 8, 2)
    assert double.asked_paid() == (1, 1)


def test_a_result_that_cannot_be_reached_is_read_later(backend, double):
    ibm = backend()
    handle = submit(ibm)
    wait_for(lambda: ibm.status(handle).state.final)
    double.faults(fault("results", status=503, times=EVER))
    with pytest.raises(TransientError):
        ibm.fetch(handle)
    double.faults(fault("metrics", status=500, times=EVER))
    result = ibm.fetch(handle)
    assert result.billed is not None
    assert result.billed.qpu_s is None  # unknown, not 0
    assert result.executed_at is None


def test_the_result_of_another_job_is_refused(backend, collect):
    ibm = backend()
    mine, other = submit(ibm, "mine"), submit(ibm, "other")
    collect(ibm, other)
    mixed = JobHandle(mine.backend, other.job_id, "mine", mine.submitted_at, mine.extra)
    with pytest.raises(ResultCorruptError, match=r"belongs to \['other'\], not to 'mine'"):
        ibm.fetch(mixed)
    moved = mine.extra | {"layout": [100, 101]}
    with pytest.raises(ResultCorruptError, match="not of the circuits that were sent"):
        collect(ibm, JobHandle(mine.backend, mine.job_id, "mine", mine.submitted_at, moved))


def test_a_bill_above_the_limit_is_reported_as_it_is(backend, collect, double):
    double.settings(bill_s=1000.0)
    ibm = backend()
    result = collect(ibm, submit(ibm, limit=Limit(qpu_s=4)))
    assert result.billed.qpu_s == 1000.0


# --- why all this is needed ----------------------------------------------------------------------


@pytest.mark.slow
def test_ibms_client_by_itself_would_pay_three_times(double):
    from qiskit import QuantumCircuit
    from qiskit_ibm_runtime import QiskitRuntimeService
    from qiskit_ibm_runtime.executor_sampler import Sampler

    device = QiskitRuntimeService().backend("ibm_fez")
    circuit = QuantumCircuit(1)
    circuit.measure_all()
    double.faults(fault("submit", status=504, after=True, times=2))
    Sampler(mode=device).run([circuit], shots=1)
    assert double.ledger()["asked"] == 3
