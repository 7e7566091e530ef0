"""The courier's rounds, killed at every point and met with every fault, on a fake clock."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from by_clock import KilledError
from scene import PRICE, Scene

from qsgd_core.errors import (
    AuthError,
    BackendError,
    BudgetError,
    BudgetExceededError,
    CapabilityError,
    JobFailedError,
    ResultCorruptError,
    TransientError,
    before_any_job,
)
from qsgd_core.jobs import Cost, Quote
from qsgd_core.schedule.courier.courier import LATE_WATCH_S, POLL_S
from qsgd_core.schedule.money import Amount


@pytest.fixture
def scene(filebox, tmp_path) -> Scene:
    return Scene(tmp_path)


# --- the ordinary way ----------------------------------------------------------------------------


def test_an_intent_becomes_a_result_that_is_paid_for_once(scene):
    scene.have(run_s=10)
    scene.ask()
    scene.until("submitted")
    assert scene.account == (PRICE, 0, 0)
    scene.go()
    assert (scene.job().state, scene.account) == ("settled", (0, PRICE, 0))
    assert scene.ledger.result("t").parts[0].values.shape == (2, 16, 2)
    assert len(scene.vendor.jobs()) == 1


def test_the_service_is_given_the_hold_as_a_limit_and_the_jobs_seed(scene, monkeypatch):
    seen = {}
    real = scene.backend.submit

    def submit(work, **arguments):
        seen.update(arguments)
        return real(work, **arguments)

    monkeypatch.setattr(scene.backend, "submit", submit)
    scene.ask()
    scene.go()
    assert (seen["seed"], seen["shots"], seen["tag"]) == (5, 16, "t")
    assert (seen["limit"].usd, seen["limit"].shots) == (PRICE / 1e6, 32)


def test_a_courier_that_read_the_ledger_before_another_submitted_sends_nothing(scene):
    scene.ask()
    scene.until("reserved")
    stale = scene.job()
    scene.until("submitted")
    assert not scene.courier._serve(stale)
    assert len(scene.vendor.jobs()) == 1


def test_only_the_runs_own_jobs_are_served(scene):
    scene.ask("mine")
    scene.ask("theirs", run="another")
    scene.go(60)
    assert (scene.job("mine").state, scene.job("theirs").state) == ("settled", "intent")


def test_a_slow_job_is_looked_at_less_and_less_often_but_at_least_every_thirty_seconds(
    scene, monkeypatch
):
    looks = []
    real = scene.backend.status
    monkeypatch.setattr(
        scene.backend, "status", lambda handle: (looks.append(scene.clock.now), real(handle))[1]
    )
    scene.backend.vendor.options = scene.backend.options.model_copy(update={"run_s": 600})
    scene.ask()
    scene.go(700)
    gaps = np.diff(looks)
    assert scene.job().state == "settled"
    assert gaps[0] < 0.2
    assert gaps.max() == pytest.approx(POLL_S[1])
    assert len(looks) < 45


def test_a_courier_that_may_not_submit_collects_and_leaves_the_rest(scene):
    scene.have(run_s=5)
    scene.ask("out")
    scene.courier.round()
    scene.courier.round()
    scene.ask("new")
    scene.restart(submit=False)
    scene.go(20)
    assert (scene.job("out").state, scene.job("new").state) == ("settled", "intent")


# --- killed --------------------------------------------------------------------------------------

POINTS = [
    ("reserve", False), ("reserve", True),
    ("begin_submit", False), ("begin_submit", True),
    ("submit", False), ("submit", True),
    ("submitted", False), ("submitted", True),
    ("status", True), ("fetch", True),
    ("store", False), ("store", True),
    ("settle", False), ("settle", True),
]  # fmt: skip


@pytest.mark.parametrize("lag_s", [0.0, 20.0])
@pytest.mark.parametrize("name, after", POINTS, ids=[f"{n}-{a}" for n, a in POINTS])
def test_killed_at_any_point_the_next_courier_ends_the_job_and_pays_for_it_once(
    scene, monkeypatch, name, after, lag_s
):
    scene.have(run_s=3, lag_s=lag_s, horizon_s=2 * lag_s)
    scene.ask()
    scene.dies_in(monkeypatch, name, after=after)
    with pytest.raises(KilledError):
        scene.go()
    assert scene.truth <= sum(scene.account)
    scene.restart()
    scene.go()
    assert len(scene.vendor.jobs()) <= 1
    never_sent = (name, after) in [("begin_submit", True), ("submit", False)]
    assert scene.job().state == ("refunded" if never_sent else "settled")
    assert scene.account == (0, scene.truth, 0)
    assert scene.truth == (0 if never_sent else PRICE)


@pytest.mark.parametrize("name, after", [("find", True), ("doubt", True), ("stray", True)])
def test_killed_while_a_doubt_is_looked_up_nothing_is_paid_twice(scene, monkeypatch, name, after):
    scene.have(faults={"twice": [0]})
    scene.ask()
    scene.dies_in(monkeypatch, name, after=after)
    with pytest.raises(KilledError):
        scene.go()
    scene.restart()
    scene.go()
    assert scene.job().state == "settled"
    assert scene.account == (0, scene.truth, 0)


# --- doubts --------------------------------------------------------------------------------------


def test_a_lost_answer_is_adopted_by_its_tag_once_the_list_shows_it(scene):
    scene.have(lag_s=20, horizon_s=40, run_s=1, faults={"lost": [0]})
    scene.ask()
    scene.go()
    assert (scene.job().state, len(scene.vendor.jobs())) == ("settled", 1)
    assert scene.account == (0, PRICE, 0)


def test_nothing_is_refunded_before_the_horizon_counted_from_the_end_of_the_call(scene):
    scene.have(before_s=100, lag_s=20, horizon_s=40, faults={"dropped": [0]})
    scene.ask()
    scene.until("submitting")
    over = scene.clock.now
    while scene.clock.now <= over + 40:
        scene.courier.round()
        assert (scene.job().state, scene.account) == ("submitting", (PRICE, 0, 0))
        scene.clock.now += 1
    scene.go()
    assert (scene.job().state, scene.account) == ("refunded", (0, 0, 0))


@pytest.mark.parametrize("set_by", [-600.0, 600.0])
def test_a_wall_clock_that_is_set_meanwhile_moves_no_horizon(scene, set_by):
    scene.have(horizon_s=40, faults={"dropped": [0]})
    scene.ask()
    scene.until("submitting")
    scene.courier.round()
    began, scene.clock.set_by = scene.clock.now, set_by
    while scene.job().state == "submitting":
        scene.clock.now += 1
        scene.courier.round()
    assert scene.job().state == "refunded"
    assert 40 < scene.clock.now - began <= 40 + POLL_S[1]


def test_a_doubt_that_another_process_dates_in_the_future_is_as_old_as_it_has_been_seen(scene):
    """The clock was set back while no courier ran."""
    scene.have(horizon_s=40, faults={"dropped": [0]})
    scene.ask()
    scene.until("submitting")
    scene.courier.round()
    scene.clock.set_by = -600.0
    scene.restart()
    scene.courier.round()
    began = scene.clock.now
    while scene.job().state == "submitting":
        scene.clock.now += 1
        scene.courier.round()
    assert 40 < scene.clock.now - began <= 40 + POLL_S[1]


@pytest.mark.parametrize("set_by", [-600.0, 600.0])
def test_a_wall_clock_that_is_set_meanwhile_puts_off_no_look(scene, set_by):
    scene.have(run_s=20)
    scene.ask()
    scene.until("submitted")
    scene.courier.round()
    began, scene.clock.set_by = scene.clock.now, set_by
    scene.backend.vendor.clock = scene.clock.timer  # the vendor's clock is another
    assert scene.courier.idle_s() <= POLL_S[1]
    scene.go(60)
    assert scene.job().state == "settled"
    assert scene.clock.now - began <= 20 + POLL_S[1]


def test_a_look_that_takes_long_counts_from_its_beginning(scene, monkeypatch):
    """Else a list asked for before the horizon would prove that the job does not exist."""
    scene.have(lag_s=20, horizon_s=40, faults={"lost": [0]})
    scene.ask()
    scene.until("submitting")
    scene.courier.round()

    def slow(tag):
        found = [scene.backend._handle(job) for job in scene.vendor.listed(tag)]
        scene.clock.now += 100
        return found

    monkeypatch.setattr(scene.backend, "find", slow)
    scene.clock.now += 1
    scene.courier.round()
    assert scene.job().state == "submitting"
    scene.go(400)
    assert (scene.job().state, scene.account) == ("settled", (0, PRICE, 0))


def test_the_second_of_two_jobs_under_one_tag_is_cancelled_and_costs_nothing_more(scene):
    scene.have(run_s=30, faults={"twice": [0]})
    scene.ask()
    scene.go()
    assert sorted(job["state"] for job in scene.vendor.jobs()) == ["cancelled", "done"]
    assert scene.account == (0, PRICE, 0)


def test_the_second_of_two_jobs_that_is_over_already_is_paid_for_in_the_books_too(scene):
    scene.have(faults={"twice": [0]})
    scene.ask()
    scene.go()
    assert scene.truth == 2 * PRICE
    assert scene.account == (0, 2 * PRICE, 0)


def test_a_job_that_comes_after_the_horizon_is_cancelled_and_settled(scene):
    scene.have(lag_s=60, horizon_s=10, run_s=1000, faults={"lost": [0]})
    scene.ask()
    scene.go()
    assert scene.job().state == "refunded"
    scene.clock.now += 60
    scene.go()
    assert [job["state"] for job in scene.vendor.jobs()] == ["cancelled"]
    assert (scene.job().state, scene.account) == ("failed", (0, 0, 0))


def test_a_job_that_comes_after_the_horizon_and_is_done_is_paid_for_once(scene):
    scene.have(lag_s=60, horizon_s=10, faults={"lost": [0], "unbilled": [0]})
    scene.ask()
    scene.go()
    assert scene.account == (0, 0, 0)
    for _ in range(5):
        scene.clock.now += 60
        scene.restart()
        scene.go()
    assert (scene.job().state, scene.account) == ("failed", (0, PRICE, 0))


def test_a_late_job_is_not_looked_for_for_ever(scene, monkeypatch):
    scene.have(faults={"dropped": [0]})
    scene.ask()
    scene.go()
    looks = []
    monkeypatch.setattr(scene.backend, "find", lambda tag: looks.append(tag) or [])
    scene.clock.now += 60
    scene.courier.round()
    scene.courier.round()
    assert looks == ["t"]
    scene.clock.now += LATE_WATCH_S
    scene.courier.round()
    assert looks == ["t"]


def test_a_submission_that_ends_in_a_surprise_is_looked_for(scene, monkeypatch):
    real = scene.backend.submit

    def surprise(work, **arguments):
        real(work, **arguments)
        raise KeyError("id")

    monkeypatch.setattr(scene.backend, "submit", surprise)
    scene.ask()
    scene.go()
    assert (scene.job().state, scene.account, len(scene.vendor.jobs())) == (
        "settled",
        (0, PRICE, 0),
        1,
    )


# --- refusals ------------------------------------------------------------------------------------


def test_a_refusal_for_now_is_tried_later_and_makes_one_job(scene):
    scene.have(faults={"refused": [0, 1, 2]})
    scene.ask()
    scene.courier.round()
    scene.courier.round()
    assert (scene.job().state, scene.job().submitted_at) == ("reserved", None)
    scene.go()
    assert (scene.job().state, len(scene.vendor.jobs()), scene.vendor.call()) == ("settled", 1, 4)
    assert scene.account == (0, PRICE, 0)


def test_a_refusal_for_good_ends_the_job_at_no_cost_with_the_vendors_words(scene):
    scene.have(faults={"rejected": [0]})
    scene.ask()
    scene.go()
    assert (scene.job().state, scene.account) == ("failed", (0, 0, 0))
    assert type(scene.job().error) is BackendError
    assert str(scene.job().error).startswith("400")


@pytest.mark.parametrize("method", ["quote", "submit"])
@pytest.mark.parametrize("error", [CapabilityError("Too wide."), AuthError("No access.")])
def test_what_the_adapter_refuses_before_there_is_a_job_is_raised_as_it_is(
    scene, monkeypatch, method, error
):
    looks = []
    monkeypatch.setattr(scene.backend, "find", lambda tag: looks.append(tag) or [])

    def refuse(*arguments, **more):
        with before_any_job():
            raise error

    monkeypatch.setattr(scene.backend, method, refuse)
    scene.ask()
    scene.go()
    assert (scene.job().state, scene.account) == ("failed", (0, 0, 0))
    assert type(scene.job().error) is type(error)
    assert looks == []


ERRORS = [
    BackendError("I could not read the answer."),
    AuthError("No access."),
    CapabilityError("Too wide."),
    TransientError("Try later.", retryable=True),
    KeyError("id"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_whatever_submit_raises_the_job_that_it_made_is_adopted_and_paid_for_once(
    scene, monkeypatch, error
):
    scene.have(lag_s=20, horizon_s=40)
    real = scene.backend.submit

    def submit(work, **arguments):
        real(work, **arguments)
        raise error

    monkeypatch.setattr(scene.backend, "submit", submit)
    scene.ask()
    scene.until("submitting")
    scene.restart()  # as after a crash and --resume
    scene.go()
    assert (scene.job().state, scene.job().error) == ("settled", None)
    assert scene.account == (0, scene.truth, 0) == (0, PRICE, 0)


@pytest.mark.parametrize("error", ERRORS)
def test_what_submit_raised_without_making_a_job_is_told_once_the_horizon_has_passed(
    scene, monkeypatch, error
):
    scene.have(horizon_s=40)

    def submit(work, **arguments):
        raise error

    monkeypatch.setattr(scene.backend, "submit", submit)
    scene.ask()
    scene.go(30)
    assert (scene.job().state, scene.account) == ("submitting", (PRICE, 0, 0))
    scene.go()
    assert scene.account == (0, 0, 0)
    for_a_moment = isinstance(error, TransientError)
    assert scene.job().state == ("refunded" if for_a_moment else "failed")
    assert for_a_moment or str(error) in str(scene.job().error)


def test_a_job_that_turns_up_after_its_submission_was_taken_for_failed_is_paid_for(scene):
    scene.have(lag_s=60, horizon_s=10, faults={"blamed": [0]})
    scene.ask()
    scene.go()
    assert (scene.job().state, scene.account) == ("failed", (0, 0, 0))
    assert "could not read its own answer" in str(scene.job().error)
    scene.clock.now += 60
    scene.go()
    assert (scene.job().state, scene.account) == ("failed", (0, PRICE, 0))
    assert scene.truth == PRICE


def test_no_access_while_a_job_is_out_stops_the_courier_and_keeps_the_job(scene, monkeypatch):
    scene.have(run_s=10)
    scene.ask()
    scene.until("submitted")
    with monkeypatch.context() as patch:

        def refuse(handle):
            raise AuthError("The key has expired.")

        patch.setattr(scene.backend, "status", refuse)
        with pytest.raises(AuthError):
            scene.go()
    assert (scene.job().state, scene.account) == ("submitted", (PRICE, 0, 0))
    scene.restart()
    scene.go()
    assert scene.job().state == "settled"


def lose(scene, tag: str = "t") -> None:
    """The vendor no longer has the job."""
    job_id = scene.job(tag).handle.job_id
    (scene.folder / "vendor" / "jobs" / f"{job_id}.json").unlink()


@pytest.mark.parametrize("error", [BackendError("No such job."), KeyError("state"), None])
@pytest.mark.parametrize("asked", [False, True])
def test_a_job_that_the_vendor_no_longer_has_ends_and_the_others_are_collected(
    scene, monkeypatch, error, asked
):
    """Whatever the adapter makes of it: filebox itself raises FileNotFoundError."""
    scene.have(run_s=10, horizon_s=5)
    for tag in ("t", "u", "v"):
        scene.ask(tag)
    while scene.job("v").state != "submitted":
        scene.courier.round()
    lose(scene)
    if asked:
        scene.ledger.cancel("t")
    real, lost = scene.backend.status, scene.job().handle.job_id
    if error is not None:

        def status(handle):
            if handle.job_id == lost:
                raise error
            return real(handle)

        monkeypatch.setattr(scene.backend, "status", status)
    scene.go()
    assert [scene.job(tag).state for tag in ("t", "u", "v")] == ["failed", "settled", "settled"]
    assert f"no longer has job {lost}" in str(scene.job().error)
    assert scene.account == (0, 3 * PRICE, 0)  # the hold: nobody knows what it cost


def test_a_job_that_is_not_listed_yet_is_not_given_up(scene, monkeypatch):
    scene.have(run_s=10, lag_s=40, horizon_s=60)
    scene.ask()
    scene.until("submitted")
    began, real = scene.clock.now, scene.backend.status

    def status(handle):
        if scene.clock.now < began + 40:
            raise BackendError("No such job.")
        return real(handle)

    monkeypatch.setattr(scene.backend, "status", status)
    for _ in range(50):
        try:
            scene.courier.round()
        except BackendError:
            assert scene.job().state == "submitted"
        scene.clock.now += 2
    assert scene.job().state == "settled"


@pytest.mark.parametrize("method", ["status", "fetch"])
@pytest.mark.parametrize("error", [AuthError("Not yours."), ValueError("<html>"), KeyError("id")])
def test_one_job_that_cannot_be_served_does_not_stop_the_others(scene, monkeypatch, method, error):
    """When nothing else is left to be done, the courier says so."""
    for tag in ("t", "u", "v"):
        scene.ask(tag)
    real = getattr(scene.backend, method)

    def fails(handle):
        if handle.tag == "t":
            raise error
        return real(handle)

    monkeypatch.setattr(scene.backend, method, fails)
    with pytest.raises(type(error)):
        scene.go()
    assert [scene.job(tag).state for tag in ("t", "u", "v")] == ["submitted", "settled", "settled"]
    (said,) = scene.courier.newly_stuck()
    assert said.startswith("Job t cannot be brought forward: ")
    monkeypatch.undo()
    scene.restart()
    scene.go()
    assert scene.account == (0, 3 * PRICE, 0)


def test_a_job_that_cannot_be_cancelled_is_collected(scene, monkeypatch):
    scene.have(run_s=10)
    scene.ask()
    scene.until("submitted")
    scene.ledger.cancel("t")

    def refuse(handle):
        raise BackendError("409: it is running.")

    monkeypatch.setattr(scene.backend, "cancel", refuse)
    scene.go()
    assert scene.job().state == "settled"


@pytest.mark.parametrize("method", ["quote", "status", "fetch", "find"])
def test_a_network_that_fails_for_a_moment_costs_time_only(scene, monkeypatch, method):
    scene.have(run_s=1, faults={"lost": [0]}, lag_s=1, horizon_s=100)
    real, failures = getattr(scene.backend, method), iter(range(3))

    def flaky(*arguments, **more):
        if next(failures, None) is not None:
            raise TransientError("Connection reset.", retryable=True)
        return real(*arguments, **more)

    monkeypatch.setattr(scene.backend, method, flaky)
    scene.ask()
    scene.go()
    assert (scene.job().state, scene.account) == ("settled", (0, PRICE, 0))


@pytest.mark.parametrize("method", ["jobs", "reserve", "begin_submit", "submitted", "store"])
def test_a_ledger_that_is_locked_for_a_moment_costs_time_only(scene, monkeypatch, method):
    scene.have(run_s=1, horizon_s=5)
    real, failures = getattr(scene.ledger, method), iter(range(3))

    def locked(*arguments, **more):
        if next(failures, None) is not None:
            raise TransientError("The ledger is locked by another process.", retryable=True)
        return real(*arguments, **more)

    scene.ask()
    scene.restart()
    with monkeypatch.context() as patch:
        patch.setattr(scene.ledger, method, locked)
        for _ in range(40):
            scene.courier.round()
            scene.clock.now += max(scene.courier.idle_s(), 1e-3)
    assert (scene.job().state, scene.account) == ("settled", (0, PRICE, 0))
    assert scene.courier.trouble is None
    assert len(scene.vendor.jobs()) == 1


# --- how jobs end --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault, word", [("fails", "failed"), ("cancelled", "cancelled")])
@pytest.mark.parametrize("silent", [False, True])
def test_a_job_without_a_result_costs_what_it_was_billed_else_its_hold(
    scene, monkeypatch, fault, word, silent
):
    scene.have(faults={fault: [0]} | ({"unbilled": [0]} if silent else {}))
    if not silent:
        monkeypatch.setattr(scene.backend, "_billed", lambda job: Cost(usd=7e-6, shots=0))
    scene.ask()
    scene.go()
    assert (scene.job().state, scene.account) == ("failed", (0, PRICE if silent else 7, 0))
    error = scene.job().error
    assert isinstance(error, JobFailedError)
    assert f"was {word}: the vendor's reasons" in str(error)
    assert "asked for at step 3" in str(error)


def test_a_result_of_another_shape_is_refused_and_paid_for(scene):
    scene.have(faults={"corrupt": [0]})
    scene.ask()
    scene.go()
    assert (scene.job().state, scene.account) == ("failed", (0, PRICE, 0))
    assert isinstance(scene.job().error, ResultCorruptError)


def test_a_bill_above_the_hold_is_overrun_and_no_job_follows(scene):
    scene.have(faults={"overbilled": [0]})
    scene.ask()
    scene.go()
    assert scene.account == (0, PRICE, 2 * PRICE)
    (said,) = scene.courier.overruns()
    assert "billed $0.002064 above what was held under budget 'b': $0.003096 in all" in said
    assert scene.courier.overruns() == []
    scene.ask("next")
    scene.go(1)
    assert scene.job("next").state == "denied"
    assert len(scene.vendor.jobs()) == 1


def test_a_bill_that_never_comes_is_the_hold(scene):
    scene.have(faults={"unbilled": [0]})
    scene.ask()
    scene.go()
    assert scene.account == (0, PRICE, 0)


def test_a_bill_that_only_the_status_tells_survives_a_kill_before_it_is_settled(scene, monkeypatch):
    real = scene.backend.fetch
    monkeypatch.setattr(
        scene.backend,
        "fetch",
        lambda handle: dataclasses.replace(real(handle), billed=None),
    )
    monkeypatch.setattr(scene.backend, "_billed", lambda job: Cost(usd=9e-6))
    scene.ask()
    scene.dies_in(monkeypatch, "settle")
    with pytest.raises(KilledError):
        scene.go()
    scene.restart()
    scene.go()
    assert scene.account == (0, 9, 0)


def test_a_job_that_the_user_cancels_is_cancelled_at_the_vendor(scene):
    scene.have(run_s=1000)
    scene.ask()
    scene.until("submitted")
    scene.ledger.cancel("t")
    scene.go()
    assert [job["state"] for job in scene.vendor.jobs()] == ["cancelled"]
    assert (scene.job().state, scene.account) == ("failed", (0, 0, 0))


def test_a_job_that_is_over_when_the_user_cancels_gives_its_result(scene):
    scene.ask()
    scene.until("submitted")
    scene.ledger.cancel("t")
    scene.go()
    assert (scene.job().state, scene.account) == ("settled", (0, PRICE, 0))


# --- budgets -------------------------------------------------------------------------------------


def test_every_billing_account_pays_from_a_default_budget_of_its_own(scene, monkeypatch):
    for tag, account in (("one", "acme-1"), ("two", "acme-2"), ("three", "acme-1")):
        monkeypatch.setattr(scene.backend, "account", lambda account=account: account)
        scene.ask(tag, budget="default")
        scene.go()
    spent = {c.budget: c.spent for c in scene.ledger.caps() if c.budget != "b"}
    assert spent == {"default-usd:acme-1": 2 * PRICE, "default-usd:acme-2": PRICE}


def test_an_account_that_cannot_be_told_for_a_moment_is_asked_for_again(scene, monkeypatch):
    failures = iter(range(2))

    def account():
        if next(failures, None) is not None:
            raise TransientError("Connection reset.", retryable=True)
        return "acme-1"

    monkeypatch.setattr(scene.backend, "account", account)
    scene.ask(budget="default")
    scene.go()
    assert (scene.job().state, scene.job().budget) == ("settled", "default-usd:acme-1")


def test_without_a_budget_ten_dollars_pay(scene):
    scene.ask(budget="default")
    scene.go()
    assert scene.job().budget == "default-usd"
    assert [(c.unit, c.spent) for c in scene.ledger.caps("default-usd")] == [("micro_usd", PRICE)]


def test_where_it_is_known_to_be_free_a_minute_of_qpu_time_pays(scene):
    scene.have(job_micro_usd=0, shot_micro_usd=0)
    scene.ask(budget="default")
    scene.go()
    assert scene.job().budget == "default-free-plan"
    (cap,) = scene.ledger.caps("default-free-plan")
    assert (cap.unit, cap.cap, cap.spent) == ("qpu_us", 60_000_000, 2_000 + 10 * 32)


def test_the_default_budget_does_not_renew_itself(scene):
    scene.have(job_micro_usd=6_000_000)
    for tag in ("one", "two"):
        scene.ask(tag, budget="default")
        scene.go(60)
    assert (scene.job("one").state, scene.job("two").state) == ("settled", "denied")
    assert isinstance(scene.job("two").error, BudgetExceededError)
    for _ in range(3):
        scene.restart()
        scene.go(60)
    assert (scene.job("two").state, len(scene.vendor.jobs())) == ("denied", 1)


def test_an_unknown_price_spends_nothing(scene):
    scene.have(priced=False)
    scene.ask()
    scene.go(1)
    assert scene.job().state == "denied"
    assert type(scene.job().error) is BudgetError
    assert scene.vendor.jobs() == []


def test_a_quote_of_nonsense_is_an_unknown_price(scene, monkeypatch):
    nonsense = Cost(usd=float("nan"))
    monkeypatch.setattr(scene.backend, "quote", lambda work, shots: Quote(nonsense, nonsense))
    scene.ask()
    scene.go(1)
    assert scene.job().state == "denied"
    assert scene.job().hold == Amount()


# --- the service's own limit ---------------------------------------------------------------------


def guarded(scene, monkeypatch) -> list[tuple[str, object]]:
    """What the vendor is asked of its own spending limit."""
    said: list[tuple[str, object]] = []

    def guard(usd: float, *, until: float) -> str:
        said.append(("guard", (round(usd, 6), until - scene.clock())))
        return "limit-1"

    monkeypatch.setattr(scene.backend, "guard", guard)
    monkeypatch.setattr(scene.backend, "unguard", lambda name: said.append(("unguard", name)))
    scene.ledger.open_run("r", backend="filebox:x", options={})
    return said


def test_what_is_left_of_a_dollar_budget_is_the_services_own_limit_once_a_run(scene, monkeypatch):
    said = guarded(scene, monkeypatch)
    for tag in ("one", "two"):
        scene.ask(tag)
        scene.go()
    scene.restart()  # another courier of the same run finds the limit set
    scene.ask("three")
    scene.go()
    assert said == [("guard", (10 * PRICE / 1e6, 30 * 86400.0))]
    scene.courier.lift_guard()
    scene.courier.lift_guard()
    assert said[1:] == [("unguard", "limit-1")]


def test_a_budget_in_another_unit_sets_no_limit_in_dollars(scene, monkeypatch):
    said = guarded(scene, monkeypatch)
    scene.ledger.create_budget("shots", {"shots": 10_000})
    scene.ask(budget="shots")
    scene.go()
    assert (scene.job().state, said) == ("settled", [])


def test_a_service_that_does_not_set_its_limit_does_not_stop_the_run(scene, monkeypatch, caplog):
    guarded(scene, monkeypatch)

    def refuse(usd: float, *, until: float) -> str:
        raise AuthError("not allowed to CreateSpendingLimit")

    monkeypatch.setattr(scene.backend, "guard", refuse)
    scene.ask()
    scene.go()
    assert scene.job().state == "settled"
    assert caplog.text.count("did not set a spending limit of its own") == 1
