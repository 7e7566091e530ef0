"""The ledger: every arrow once, never a unit over the cap, whatever order things happen in."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from patience import PATIENCE_S

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import (
    AuthError,
    BudgetError,
    BudgetExceededError,
    CapabilityError,
    ConfigError,
    JobFailedError,
    TransientError,
)
from qsgd_core.jobs import Cost, Expectations, JobHandle, Quote, Result
from qsgd_core.schedule.failures import pack_error, unpack_error
from qsgd_core.schedule.ledger.accounts import say_overrun
from qsgd_core.schedule.ledger.budgets import check_name, default_budget, open_budget
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.money import UNITS, Amount, BudgetAsked

ROOT = Path(__file__).parents[3]
WORK = Workload((CircuitBatch(ansatz(2, 1), np.zeros((1, 2))),))
RESULT = Result((Expectations(np.array([[0.25, -0.5]])),))
NOTHING = Amount(0, 0, 0)


@pytest.fixture
def url(ledger_url) -> str:
    return ledger_url


@pytest.fixture
def ledger(url) -> Ledger:
    ledger = Ledger(url, clock=lambda: 1000.0)
    ledger.create_budget("b", {"micro_usd": 100})
    return ledger


def intent(ledger: Ledger, tag: str = "t", *, budget: str = "b", run: str = "r") -> str:
    ledger.add_intent(
        WORK, tag=tag, run=run, budget=budget, backend="fez", options={}, step=3, part=0,
        attempt=0, shots=8, seed=1,
    )  # fmt: skip
    return tag


def handle(tag: str = "t", job_id: str = "j") -> JobHandle:
    return JobHandle("fez", job_id, tag, 1000.0)


def usd(micro: int | None) -> Amount:
    return Amount(shots=8, micro_usd=micro, qpu_us=None)


def advance(ledger: Ledger, state: str, tag: str = "t", *, hold: int = 60) -> str:
    """A job brought to ``state`` along the ordinary way."""
    intent(ledger, tag)
    for after, move in (
        ("reserved", lambda: ledger.reserve(tag, usd(hold))),
        ("submitting", lambda: ledger.begin_submit(tag)),
        ("submitted", lambda: ledger.submitted(tag, handle(tag))),
        ("stored", lambda: ledger.store(tag, RESULT)),
        ("settled", lambda: ledger.settle(tag, usd(hold))),
    ):
        if ledger.job(tag).state == state:
            break
        move()
        assert ledger.job(tag).state == after
    assert ledger.job(tag).state == state
    return tag


def account(ledger: Ledger, name: str = "b") -> tuple[int, int, int]:
    (cap,) = ledger.caps(name)
    return cap.reserved, cap.spent, cap.overrun


# --- the life of a job ---------------------------------------------------------------------------


def test_a_job_goes_from_intent_to_settled_and_its_hold_becomes_what_it_cost(ledger):
    advance(ledger, "stored")
    assert account(ledger) == (60, 0, 0)
    assert ledger.settle("t", usd(40))
    assert account(ledger) == (0, 40, 0)
    job = ledger.job("t")
    assert (job.state, job.spent.micro_usd, job.settled_at) == ("settled", 40, 1000.0)
    assert np.array_equal(ledger.result("t").parts[0].values, RESULT.parts[0].values)
    assert ledger.workload("t").digest() == WORK.digest() == job.digest


@pytest.mark.parametrize(
    "state", ["intent", "reserved", "submitting", "submitted", "stored", "settled"]
)
def test_no_arrow_can_be_taken_twice_or_from_the_wrong_place(ledger, state):
    advance(ledger, state)
    before = account(ledger)
    moves = {
        "reserved": [lambda: ledger.begin_submit("t")],
        "submitting": [
            lambda: ledger.not_sent("t"),
            lambda: ledger.refund("t", "why"),
            lambda: ledger.submitted("t", handle()),
        ],
        "submitted": [lambda: ledger.store("t", RESULT)],
        "stored": [lambda: ledger.settle("t", usd(1))],
        "stray": [lambda: ledger.settle_stray("t", usd(1))],
    }
    for at, some in moves.items():
        if at != state:
            assert [move() for move in some] == [False] * len(some)
    if state in ("stored", "settled"):
        assert not ledger.fail("t", JobFailedError("x"), usd(1))
    if state != "intent":
        ledger.reserve("t", usd(10))
    assert (ledger.job("t").state, account(ledger)) == (state, before)


def test_the_same_tag_again_is_the_same_job(ledger):
    advance(ledger, "settled")
    assert ledger.job(intent(ledger)).state == "settled"
    assert len(ledger.jobs()) == 1


def test_an_unknown_cost_is_taken_to_be_the_hold(ledger):
    advance(ledger, "stored")
    ledger.settle("t", Amount())
    assert account(ledger) == (0, 60, 0)


def test_a_failed_job_costs_what_it_was_billed(ledger):
    advance(ledger, "submitted")
    ledger.fail("t", JobFailedError("broke"), usd(25))
    assert account(ledger) == (0, 25, 0)
    assert str(ledger.job("t").error) == "broke"


def test_a_refund_gives_the_hold_back(ledger):
    advance(ledger, "submitting")
    assert ledger.refund("t", "nobody has it")
    assert account(ledger) == (0, 0, 0)
    assert isinstance(ledger.job("t").error, JobFailedError)


def test_a_doubt_is_counted_from_the_first_look_and_ends_with_a_handle(url):
    now = itertools.count(1000)
    ledger = Ledger(url, clock=lambda: float(next(now)))
    ledger.create_budget("b", {"micro_usd": 100})
    advance(ledger, "submitting")
    first = ledger.doubt("t")
    assert Ledger(url).doubt("t") == first
    ledger.submitted("t", handle())
    assert ledger.job("t").doubt_since is None


@pytest.mark.parametrize("state", ["intent", "reserved"])
def test_cancelling_what_was_not_submitted_costs_nothing(ledger, state):
    advance(ledger, state)
    assert ledger.cancel("t").state == "failed"
    assert account(ledger) == (0, 0, 0)


def test_cancelling_what_was_submitted_is_left_to_the_courier(ledger):
    advance(ledger, "submitted")
    assert ledger.cancel("t").cancel_asked == 1000.0
    assert account(ledger) == (60, 0, 0)


def test_cancelling_what_is_over_changes_nothing(ledger):
    advance(ledger, "settled")
    job = ledger.cancel("t")
    assert (job.state, job.cancel_asked) == ("settled", None)


# --- strays --------------------------------------------------------------------------------------


def test_a_refunded_job_that_turns_up_is_spent_once(ledger):
    advance(ledger, "submitting")
    ledger.refund("t", "nobody has it")
    assert ledger.stray("t", handle())
    assert not ledger.stray("t", handle())
    assert (ledger.job("t").settled_at, ledger.job("t").spent) == (None, Amount())
    assert ledger.settle_stray("t", usd(60))
    assert not ledger.settle_stray("t", usd(60))
    assert account(ledger) == (0, 60, 0)
    assert ledger.job("t").spent.micro_usd == 60


def test_the_second_job_under_a_tag_gets_a_row_of_its_own(ledger):
    advance(ledger, "submitting")
    assert ledger.stray("t", handle(job_id="second"))
    assert not ledger.stray("t", handle(job_id="second"))
    ledger.submitted("t", handle(job_id="first"))
    assert not ledger.stray("t", handle(job_id="first"))
    (stray,) = ledger.jobs(states=["stray"])
    assert (stray.handle.job_id, stray.run) == ("second", "r")
    ledger.settle_stray(stray.tag, usd(30))
    assert account(ledger) == (60, 30, 0)
    assert ledger.job("t").state == "submitted"


def test_a_stray_for_which_there_is_no_room_goes_over_the_cap_and_freezes_the_budget(ledger):
    advance(ledger, "submitting")
    ledger.refund("t", "nobody has it")
    advance(ledger, "reserved", "other", hold=90)
    ledger.stray("t", handle())
    ledger.settle_stray("t", usd(60))
    assert account(ledger) == (90, 10, 50)


# --- budgets -------------------------------------------------------------------------------------


def test_a_hold_that_does_not_fit_is_denied_until_the_budget_is_raised(ledger):
    advance(ledger, "reserved", "a", hold=60)
    intent(ledger, "t")
    with pytest.raises(BudgetExceededError, match=r"has \$0.00004 left of \$0.0001") as caught:
        ledger.reserve("t", usd(41))
    assert (caught.value.asked, caught.value.left, caught.value.unit) == (41, 40, "micro_usd")
    assert "qsgd budget raise b" in str(caught.value)
    ledger.reserve("t", usd(1))
    assert ledger.job("t").state == "denied"
    again = ledger.job(intent(ledger, "t")).error
    assert isinstance(again, BudgetExceededError)
    assert (str(again), again.asked, again.left) == (str(caught.value), 41, 40)
    ledger.raise_budget("b", {"micro_usd": 101})
    assert (ledger.job("t").state, ledger.job("t").error) == ("intent", None)
    ledger.reserve("t", usd(41))
    assert account(ledger) == (101, 0, 0)


def test_what_fills_the_cap_exactly_fits(ledger):
    advance(ledger, "reserved", hold=100)
    assert account(ledger) == (100, 0, 0)


def test_all_units_are_held_or_none(ledger):
    ledger.create_budget("two", {"micro_usd": 100, "shots": 10})
    intent(ledger, "t", budget="two")
    with pytest.raises(BudgetExceededError, match=r"11 shots"):
        ledger.reserve("t", Amount(shots=11, micro_usd=5, qpu_us=None))
    assert [cap.reserved for cap in ledger.caps("two")] == [0, 0]


UNIT_AMOUNTS = st.fixed_dictionaries({unit: st.none() | st.integers(0, 40) for unit in UNITS})


@settings(max_examples=20)
@given(
    limits=st.dictionaries(st.sampled_from(UNITS), st.integers(1, 100), min_size=1),
    asks=st.lists(UNIT_AMOUNTS, min_size=1, max_size=8),
)
def test_a_job_is_held_under_every_cap_of_its_budget_or_under_none(limits, asks):
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(f"sqlite:///{folder}/ledger.sqlite")
        ledger.create_budget("b", limits)
        held = dict.fromkeys(limits, 0)
        for k, amounts in enumerate(asks):
            tag = intent(ledger, f"t{k}")
            asked = {unit: amounts[unit] for unit in limits}
            fits = all(a is not None and held[u] + a <= limits[u] for u, a in asked.items())
            with nullcontext() if fits else pytest.raises(BudgetError):
                ledger.reserve(tag, Amount(**amounts))
            if fits:
                held = {unit: held[unit] + asked[unit] for unit in limits}
            assert {c.unit: c.reserved for c in ledger.caps("b")} == held


def test_caps_in_several_units_are_raised_all_or_none(ledger):
    ledger.create_budget("two", {"micro_usd": 100, "shots": 10})
    with pytest.raises(ConfigError, match=r"is 10 shots already"):
        ledger.raise_budget("two", {"micro_usd": 200, "shots": 10})
    assert [cap.cap for cap in ledger.caps("two")] == [100, 10]
    ledger.raise_budget("two", {"shots": 20, "micro_usd": 200})
    assert [cap.cap for cap in ledger.caps("two")] == [200, 20]


def test_a_bill_above_one_of_two_holds_freezes_the_budget(ledger):
    ledger.create_budget("two", {"micro_usd": 100, "shots": 100})
    intent(ledger, "t", budget="two")
    ledger.reserve("t", Amount(shots=8, micro_usd=60))
    ledger.begin_submit("t")
    ledger.submitted("t", handle())
    ledger.store("t", RESULT)
    ledger.settle("t", Amount(shots=8, micro_usd=61))
    found = {c.unit: (c.reserved, c.spent, c.overrun, c.left) for c in ledger.caps("two")}
    assert found == {"micro_usd": (0, 60, 1, 0), "shots": (0, 8, 0, 92)}
    intent(ledger, "u", budget="two")
    with pytest.raises(BudgetExceededError, match=r"frozen"):
        ledger.reserve("u", Amount(shots=1, micro_usd=1))
    assert [c.reserved for c in ledger.caps("two")] == [0, 0]


def test_an_unknown_price_is_refused_under_a_money_budget_and_not_under_another(ledger):
    intent(ledger, "t")
    with pytest.raises(BudgetError, match=r"in that unit is unknown.*600s, \$25 or 1e6shots"):
        ledger.reserve("t", usd(None))
    assert ledger.job("t").state == "denied"
    ledger.create_budget("shots", {"shots": 10})
    intent(ledger, "s", budget="shots")
    ledger.reserve("s", usd(None))
    assert ledger.job("s").state == "reserved"


def test_a_budget_that_does_not_exist_pays_for_nothing(ledger):
    intent(ledger, "t", budget="gone")
    with pytest.raises(BudgetError, match=r"no budget 'gone'"):
        ledger.reserve("t", usd(1))


def test_a_bill_above_the_hold_freezes_the_budget_until_its_cap_covers_it(ledger):
    advance(ledger, "stored", hold=60)
    ledger.settle("t", usd(75))
    assert account(ledger) == (0, 60, 15)
    intent(ledger, "u")
    with pytest.raises(BudgetExceededError, match=r"is frozen: the vendor billed \$0.000015 above"):
        ledger.reserve("u", usd(1))
    ledger.raise_budget("b", {"micro_usd": 200})
    assert account(ledger) == (0, 75, 0)
    ledger.reserve("u", usd(1))
    assert ledger.job("u").state == "reserved"


def test_a_free_job_that_is_billed_after_all_freezes_the_budget_too(ledger):
    advance(ledger, "stored", hold=0)
    ledger.settle("t", usd(3))
    assert account(ledger) == (0, 0, 3)


def test_raising_by_too_little_leaves_a_budget_frozen(ledger):
    advance(ledger, "stored", hold=100)
    ledger.settle("t", usd(150))
    ledger.raise_budget("b", {"micro_usd": 120})
    assert account(ledger) == (0, 100, 50)
    ledger.raise_budget("b", {"micro_usd": 150})
    assert account(ledger) == (0, 150, 0)


@pytest.mark.parametrize(
    "limits", [{}, {"micro_usd": 0}, {"micro_usd": -1}, {"euro": 5}, {"shots": 2**62}]
)
def test_a_budget_needs_a_cap_that_makes_sense(ledger, limits):
    with pytest.raises(ConfigError, match=r"needs a positive cap"):
        ledger.create_budget("x", limits)
    assert ledger.caps("x") == []


@pytest.mark.parametrize(
    "name, unit, cap, message",
    [
        ("x", "micro_usd", 200, "no budget 'x'"),
        ("b", "shots", 200, "no cap in shots, only in micro_usd"),
        ("b", "micro_usd", 100, "is \\$0.0001 already"),
        ("b", "micro_usd", 5, "is \\$0.0001 already"),
    ],
)
def test_a_budget_is_only_ever_raised(ledger, name, unit, cap, message):
    with pytest.raises(ConfigError, match=message):
        ledger.raise_budget(name, {unit: cap})


def test_a_budget_is_made_once(ledger):
    with pytest.raises(ConfigError, match=r"exists already"):
        ledger.create_budget("b", {"micro_usd": 1})
    ledger.ensure_budget("b", {"micro_usd": 7, "shots": 3})
    assert [(c.unit, c.cap) for c in ledger.caps("b")] == [("micro_usd", 100)]


def test_a_run_may_bring_an_amount_or_the_name_of_a_budget(ledger):
    assert open_budget(ledger, BudgetAsked.parse(None), run="r") == "default"
    assert open_budget(ledger, BudgetAsked.parse("b"), run="r") == "b"
    for _ in range(2):
        assert open_budget(ledger, BudgetAsked.parse("$25"), run="r") == "run:r"
    assert [(c.unit, c.cap) for c in ledger.caps("run:r")] == [("micro_usd", 25_000_000)]
    with pytest.raises(ConfigError, match=r"not understood.*name of a budget.*: b, run:r"):
        open_budget(ledger, BudgetAsked.parse("project-x"), run="r")


def test_a_run_may_bring_amounts_in_several_units(ledger):
    for _ in range(2):
        assert open_budget(ledger, BudgetAsked.parse("600s,$25"), run="r") == "run:r"
    caps = {c.unit: c.cap for c in ledger.caps("run:r")}
    assert caps == {"micro_usd": 25_000_000, "qpu_us": 600_000_000}
    with pytest.raises(ConfigError, match=r"has a budget of \$25 and 600 s of QPU time already"):
        open_budget(ledger, BudgetAsked.parse("$25,601s"), run="r")


@pytest.mark.parametrize("more", ["$26", "600s", "$25,600s"])
def test_a_run_that_goes_on_with_another_budget_is_told_how_to_raise_it(ledger, more):
    open_budget(ledger, BudgetAsked.parse("$25"), run="r")
    with pytest.raises(ConfigError, match=r"has a budget of \$25 .*qsgd budget raise run:r"):
        open_budget(ledger, BudgetAsked.parse(more), run="r")
    ledger.raise_budget("run:r", {"micro_usd": 50_000_000})
    assert open_budget(ledger, BudgetAsked.parse("$25"), run="r") == "run:r"


@pytest.mark.parametrize(
    "name", ["", " x", "$5", "60s", "$5,60s", "default", "default-usd", "default-usd:a", "run:7"]
)
def test_a_budget_cannot_take_a_name_that_means_something_else(name):
    with pytest.raises(ConfigError, match=r"cannot be called"):
        check_name(name)


@pytest.mark.parametrize(
    "worst, name, unit, cap",
    [
        (Cost(usd=0.0, qpu_s=4.0), "default-free-plan", "qpu_us", 60_000_000),
        (Cost(usd=1.6, qpu_s=4.0), "default-usd", "micro_usd", 10_000_000),
        (Cost(usd=None, qpu_s=4.0), "default-usd", "micro_usd", 10_000_000),
        (Cost(usd=0.0), "default-usd", "micro_usd", 10_000_000),
    ],
)
def test_the_default_budget_is_ten_dollars_or_a_minute_where_it_is_free(
    ledger, worst, name, unit, cap
):
    for _ in range(2):
        assert default_budget(ledger, Quote(worst, worst), account=None) == name
    assert [(c.unit, c.cap) for c in ledger.caps(name)] == [(unit, cap)]


def test_every_billing_account_has_a_default_budget_of_its_own_that_never_renews(ledger):
    paid = Quote(Cost(usd=1.0), Cost(usd=1.0))
    free = Quote(Cost(usd=0.0, qpu_s=1.0), Cost(usd=0.0, qpu_s=1.0))
    for _ in range(2):
        names = [default_budget(ledger, q, account=a) for q in (paid, free) for a in ("x", "y")]
        names.append(default_budget(ledger, paid, account=None))
        for name in names:
            tag = intent(ledger, f"t-{name}", budget=name)
            ledger.reserve(tag, Amount(shots=1, micro_usd=6_000_000, qpu_us=40_000_000))
    assert [(c.budget, c.unit, c.left) for c in ledger.caps() if c.budget != "b"] == [
        ("default-free-plan:x", "qpu_us", 20_000_000),
        ("default-free-plan:y", "qpu_us", 20_000_000),
        ("default-usd", "micro_usd", 4_000_000),
        ("default-usd:x", "micro_usd", 4_000_000),
        ("default-usd:y", "micro_usd", 4_000_000),
    ]


# --- runs ----------------------------------------------------------------------------------------


def test_a_run_keeps_its_backend_and_takes_new_options(ledger):
    ledger.open_run("r", backend="ibm:least_busy", options={"a": 1})
    ledger.looked("r", pinned="ibm_fez", capabilities="{}")
    ledger.stopped("r", AuthError("no key"))
    assert isinstance(ledger.run("r").error, AuthError)
    for name in ("ibm:least_busy", "ibm_fez"):
        run = ledger.open_run("r", backend=name, options={"a": 2})
        assert (run.pinned, run.options, run.error) == ("ibm_fez", '{"a": 2}', None)
    with pytest.raises(ConfigError, match=r"was measured on 'ibm:least_busy'"):
        ledger.open_run("r", backend="ibm_kingston", options={})


@pytest.mark.parametrize("method", ["run", "job", "workload", "result", "cancel"])
def test_what_is_not_there_is_a_clear_error(ledger, method):
    with pytest.raises(ConfigError, match=r"no (run|job) 'nope'.*qsgd jobs list"):
        getattr(ledger, method)("nope")


def test_a_result_that_is_not_there_yet_says_where_the_job_is(ledger):
    advance(ledger, "submitted")
    with pytest.raises(ConfigError, match=r"no result for job 't'; it is submitted"):
        ledger.result("t")


class VendorsOwnError(AuthError):
    """An adapter's subclass, which the trainer does not import."""


@pytest.mark.parametrize(
    "error, kind",
    [
        (BudgetExceededError("a", asked=2, left=1, unit="shots"), BudgetExceededError),
        (CapabilityError("a", ["b", "c"]), CapabilityError),
        (TransientError("a", retryable=True, may_have_spent=True), TransientError),
        (VendorsOwnError("a", provider_code="1305"), AuthError),
    ],
)
def test_an_error_crosses_processes_as_the_same_class_with_its_attributes(error, kind):
    back = unpack_error(pack_error(error))
    assert type(back) is kind
    assert str(back) == str(error)
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(error).items()}
    assert vars(back) == plain


def test_the_time_in_the_queue_is_told_newest_first_and_what_was_asked_to_the_byte(url):
    now = itertools.count(1000)
    ledger = Ledger(url, clock=lambda: float(next(now)))
    ledger.create_budget("b", {"micro_usd": 1000})
    for tag in ("one", "two"):
        advance(ledger, "settled", tag)
    assert ledger.queue_times("fez") == [1.0, 1.0]
    assert ledger.queue_times("another") == []
    assert ledger.asked("one") is None
    ledger.add_intent(
        WORK, tag="t", run="r" * 300, budget="b", backend="fez", options={}, step=3, part=0,
        attempt=0, shots=8, seed=2**63 - 1, asked=b"\x00\xff",
    )  # fmt: skip
    assert ledger.asked("t") == b"\x00\xff"
    assert ledger.job("t").seed == 2**63 - 1


def test_whether_anything_was_ever_bought_is_known(ledger):
    advance(ledger, "submitting")
    assert not ledger.paid_before()
    ledger.submitted("t", handle())
    assert ledger.paid_before()


def test_a_frozen_cap_is_told_to_the_runs_that_it_pays_for(ledger):
    advance(ledger, "stored", hold=60)
    assert ledger.frozen("r") == []
    ledger.settle("t", usd(75))
    (cap,) = ledger.frozen("r")
    assert (cap.budget, cap.overrun) == ("b", 15)
    assert "billed $0.000015 above what was held under budget 'b'" in say_overrun(cap)
    assert ledger.frozen("another") == []
    ledger.raise_budget("b", {"micro_usd": 200})
    assert ledger.frozen("r") == []


# --- many processes -------------------------------------------------------------------------------

HAMMER = """
import sys
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.money import UNITS, Amount
from qsgd_core.errors import BudgetExceededError
sys.path.insert(0, sys.argv[2])
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
import numpy as np
work = Workload((CircuitBatch(ansatz(1, 1), np.zeros((1, 1))),))
ledger = Ledger(sys.argv[1])
ledger.ensure_budget("b", {"shots": 100})
won = 0
for k in range(12):
    tag = f"t{k}"
    ledger.add_intent(work, tag=tag, run="r", budget="b", backend="x", options={}, step=k, part=0,
                      attempt=0, shots=9, seed=0)
    try:
        ledger.reserve(tag, Amount(shots=9))
    except BudgetExceededError:
        continue
    won += ledger.begin_submit(tag)
print(won)
"""


def test_many_processes_on_one_new_file_take_every_arrow_once(url):
    command = [sys.executable, "-c", HAMMER, url, str(ROOT)]
    env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
        for _ in range(4)
    ]
    said = [process.communicate(timeout=PATIENCE_S) for process in started]
    assert [err for _, err in said] == [b""] * 4
    assert sum(int(out) for out, _ in said) == 11  # 11 · 9 ≤ 100 < 12 · 9
    ledger = Ledger(url)
    assert [(c.reserved, c.spent) for c in ledger.caps()] == [(99, 0)]
    assert len(ledger.jobs()) == 12


def test_a_name_is_served_by_one_process_at_a_time_and_freed_by_its_death(url, ledger):
    script = (
        "import sys\nfrom qsgd_core.schedule.ledger.ledger import Ledger\n"
        "with Ledger(sys.argv[1]).serve('r') as alone:\n    print(alone, flush=True)\n    input()\n"
    )
    command = [sys.executable, "-c", script, url]
    env = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdout.readline() == "True\n"
        with ledger.serve("r") as alone:
            assert not alone
        with ledger.serve("another") as alone:
            assert alone
        process.kill()
        process.wait(timeout=PATIENCE_S)
        with ledger.serve("r") as alone:
            assert alone


# --- any order -----------------------------------------------------------------------------------

COSTS = st.none() | st.integers(0, 90)
ARROWS = {
    "reserve": (("intent",), {"reserved", "denied"}),
    "begin_submit": (("reserved",), {"submitting"}),
    "not_sent": (("submitting",), {"reserved"}),
    "submitted": (("submitting",), {"submitted"}),
    "store": (("submitted",), {"stored"}),
    "settle": (("stored",), {"settled"}),
    "fail": (("intent", "reserved", "submitting", "submitted"), {"failed"}),
    "refund": (("submitting",), {"refunded"}),
    "settle_stray": (("stray",), {"failed"}),
}
HELD = ("reserved", "submitting", "submitted", "stored")


class AnyOrder(RuleBasedStateMachine):
    """Three connections, any call at any time; the books are checked after each."""

    tags = Bundle("tags")

    def __init__(self, url: str | None = None) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        url = url or f"sqlite:///{self.folder}/ledger.sqlite?timeout={PATIENCE_S:g}"
        self.ledgers = [Ledger(url) for _ in range(3)]
        self.ledgers[0].create_budget("b", {"micro_usd": 200, "shots": 500})
        self.turn = itertools.cycle(self.ledgers)
        self.made = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(target=tags)
    def ask(self) -> str:
        self.made += 1
        return intent(next(self.turn), f"t{self.made}")

    @rule(tag=tags, name=st.sampled_from(sorted(ARROWS)), cost=COSTS)
    def arrow(self, tag: str, name: str, cost: int | None) -> None:
        ledger = next(self.turn)
        amount = Amount(shots=cost, micro_usd=cost, qpu_us=None)
        before, after = ARROWS[name]
        was = ledger.job(tag).state
        arguments = {
            "reserve": (amount,),
            "submitted": (handle(tag, f"job-{tag}"),),
            "store": (RESULT,),
            "settle": (amount,),
            "fail": (JobFailedError("x"), amount),
            "refund": ("why",),
            "settle_stray": (amount,),
        }.get(name, ())
        try:
            moved = getattr(ledger, name)(tag, *arguments)
        except BudgetError:
            moved = None
            assert ledger.job(tag).state == "denied"
        state = ledger.job(tag).state
        if was in before:
            assert state in after
            assert moved in (True, None)
        else:
            assert state == was
            assert not moved

    @rule(tag=tags)
    def cancel(self, tag: str) -> None:
        was = next(self.turn).job(tag).state
        state = next(self.turn).cancel(tag).state
        assert state == ("failed" if was in ("intent", "denied", "reserved") else was)

    @rule(tag=tags, late=st.booleans())
    def turns_up(self, tag: str, late: bool) -> None:
        next(self.turn).stray(tag, handle(tag, f"job-{tag}" if late else f"extra-{tag}"))

    @rule(unit=st.sampled_from(["micro_usd", "shots"]), more=st.integers(1, 50))
    def raise_it(self, unit: str, more: int) -> None:
        (cap,) = [c.cap for c in self.ledgers[0].caps("b") if c.unit == unit]
        next(self.turn).raise_budget("b", {unit: cap + more})
        assert self.ledgers[0].jobs(states=["denied"]) == []

    @invariant()
    def the_books_are_right(self) -> None:
        ledger = next(self.turn)
        jobs = ledger.jobs()
        for cap in ledger.caps("b"):
            held = [j.hold.of(cap.unit) for j in jobs if j.state in HELD]
            cost = [j.spent.of(cap.unit) or 0 for j in jobs if j.settled_at is not None]
            assert cap.reserved + cap.spent <= cap.cap
            assert cap.reserved == sum(held)
            assert cap.spent + cap.overrun == sum(cost)


PATIENT = [HealthCheck.too_slow, HealthCheck.data_too_large]


def check(examples: int, steps: int, *, new_url: Callable[[], str | None] = lambda: None) -> None:
    run_state_machine_as_test(
        lambda: AnyOrder(new_url()),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=PATIENT,
        ),
    )


def test_whatever_order_things_happen_in_the_books_are_right():
    check(10, 25)


@pytest.mark.slow
def test_whatever_order_things_happen_in_the_books_are_right_many_times():
    check(200, 50)


@pytest.mark.slow
def test_whatever_order_things_happen_in_the_books_are_right_on_postgresql(postgres):
    check(12, 40, new_url=postgres.new_database)
