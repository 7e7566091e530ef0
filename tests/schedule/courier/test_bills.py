"""What a job cost, told late, told otherwise, or of a job that nobody had asked for."""

from __future__ import annotations

import itertools

import pytest
from by_clock import KilledError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scene import PRICE, Scene

from qsgd_core.errors import TransientError
from qsgd_core.jobs import Cost
from qsgd_core.schedule.audit.findings import FindingKind, book, compare
from qsgd_core.schedule.audit.statement import Statement, ask
from qsgd_core.schedule.ledger.bills import ASK_FOR_S, ASK_S
from qsgd_core.schedule.ledger.states import OPEN
from qsgd_core.schedule.money import Amount


@pytest.fixture
def scene(filebox, tmp_path) -> Scene:
    return Scene(tmp_path)


def serve(scene: Scene, seconds: float) -> None:
    """A courier at work for so long, with a few hundred rounds at most."""
    end = scene.clock.now + seconds
    while scene.clock.now <= end:
        scene.courier.round()
        scene.clock.now += max(scene.courier.idle_s(), seconds / 200)


def state(scene: Scene) -> Statement:
    tags = [job.tag for job in scene.ledger.jobs()]
    known = [job.handle for job in scene.ledger.jobs() if job.handle is not None]
    said = ask(scene.backend, since=0.0, tags=tags, known=known)
    return Statement.from_json(said.to_json())


def audit(scene: Scene) -> list[FindingKind]:
    """As ``qsgd jobs audit --yes``, in this process."""
    findings = compare(scene.ledger, state(scene))
    book(scene.ledger, findings)
    return [finding.kind for finding in findings]


# --- stated late ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault, cost", [("fails", PRICE), (None, PRICE), ("cancelled", PRICE)])
def test_a_cost_that_is_stated_late_is_held_until_then_and_corrected_once(scene, fault, cost):
    scene.have(usage_s=100, faults={fault: [0]} if fault else {})
    scene.ask()
    before = scene.backend.quote
    scene.backend.quote = lambda work, shots: _times(before(work, shots=shots), 3)
    scene.go()
    assert scene.account == (0, 3 * PRICE, 0)
    assert "micro_usd" in scene.job().unstated
    serve(scene, 300)
    assert scene.account == (0, cost, 0)
    job = scene.job()
    assert (job.spent.micro_usd, job.unstated, job.ask_at) == (cost, (), None)
    corrected_at = job.corrected_at
    serve(scene, ASK_FOR_S)
    assert scene.account == (0, cost, 0)
    assert scene.job().corrected_at == corrected_at
    assert audit(scene) == []


def _times(quote, factor):
    from qsgd_core.jobs import Quote

    worst = quote.worst
    cost = Cost(usd=factor * worst.usd, qpu_s=factor * worst.qpu_s, shots=factor * worst.shots)
    return Quote(expected=quote.expected, worst=cost, source=quote.source)


def test_a_job_cancelled_in_the_queue_costs_nothing_as_soon_as_that_is_stated(scene):
    scene.have(run_s=1000, usage_s=50)
    scene.ask()
    scene.until("submitted")
    scene.ledger.cancel("t")
    scene.go()
    assert (scene.job().state, scene.account) == ("failed", (0, PRICE, 0))
    serve(scene, 100)
    assert scene.account == (0, 0, 0)


def test_the_vendor_is_asked_less_and_less_often_and_for_a_day(scene, monkeypatch):
    scene.have(faults={"unbilled": [0]})
    scene.ask()
    scene.go()
    asked = []
    real = scene.backend.billed
    monkeypatch.setattr(
        scene.backend, "billed", lambda handle: (asked.append(scene.clock.now), real(handle))[1]
    )
    serve(scene, 1.5 * ASK_FOR_S)
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert gaps == sorted(gaps)
    assert gaps[-1] <= ASK_S[1] + 1.5 * ASK_FOR_S / 200
    assert 0.9 * ASK_FOR_S <= asked[-1] - asked[0] <= ASK_FOR_S + 2 * ASK_S[1]
    assert len(asked) < 50
    assert (scene.account, scene.job().ask_at) == ((0, PRICE, 0), None)
    assert scene.job().unstated


def test_after_the_day_jobs_resume_asks_all_the_same(scene, monkeypatch):
    scene.have(usage_s=2 * ASK_FOR_S)
    scene.ask()
    monkeypatch.setattr(scene.backend, "billed", lambda handle: None)
    scene.go()
    serve(scene, 2 * ASK_FOR_S)
    assert scene.job().unstated
    monkeypatch.undo()
    scene.clock.now += ASK_FOR_S
    scene.restart(submit=False)
    scene.courier.round()
    assert scene.job().unstated == ()


def test_a_service_that_fails_when_it_is_asked_stops_nothing(scene, monkeypatch):
    scene.have(usage_s=10)
    scene.ask()
    scene.go()
    real, failures = scene.backend.billed, iter([KeyError("usage"), TransientError("503")] * 2)

    def billed(handle):
        if (error := next(failures, None)) is not None:
            raise error
        return real(handle)

    monkeypatch.setattr(scene.backend, "billed", billed)
    scene.ask("next")
    scene.go()
    serve(scene, 600)
    assert scene.job("next").state == "settled"
    assert [job.unstated for job in scene.ledger.jobs()] == [(), ()]


def test_a_run_that_is_over_has_its_bills_asked_for_by_the_next_on_the_same_backend(scene):
    scene.have(usage_s=100)
    scene.ask("old", run="earlier")
    scene.courier = type(scene.courier)(
        scene.ledger, scene.backend, run="earlier", clock=scene.clock, timer=scene.clock.timer
    )
    scene.go()
    scene.restart()
    scene.ask("new")
    serve(scene, 600)
    assert scene.job("old").unstated == ()


@pytest.mark.parametrize("now", [0, PRICE // 2, PRICE, 2 * PRICE])
def test_what_is_stated_late_is_booked_to_the_micro_dollar_and_above_the_hold_it_freezes(
    scene, monkeypatch, now
):
    scene.have(faults={"unbilled": [0]})
    scene.ask()
    scene.go()
    monkeypatch.setattr(scene.backend, "billed", lambda handle: Cost(now / 1e6, 0.0, 0))
    scene.restart(submit=False)
    scene.courier.round()
    assert scene.account == (0, min(now, PRICE), max(0, now - PRICE))
    assert scene.job().spent == Amount(0, now, 0) or scene.job().spent.micro_usd == now


# --- the audit -----------------------------------------------------------------------------------


def test_a_ledger_that_agrees_has_nothing_to_find(scene):
    scene.ask()
    scene.go()
    assert audit(scene) == []


def test_two_jobs_that_the_vendor_made_of_one_are_found_cancelled_and_booked(scene):
    scene.have(faults={"duplicated": [0]})
    scene.ask()
    scene.go()
    assert (scene.account, scene.truth) == ((0, PRICE, 0), 2 * PRICE)
    assert audit(scene) == [FindingKind.DUPLICATE]
    scene.go()
    assert scene.account == (0, 2 * PRICE, 0)
    assert audit(scene) == []


def test_a_duplicate_that_still_waits_is_cancelled_and_costs_nothing(scene):
    scene.have(run_s=1000, faults={"duplicated": [0]})
    scene.ask()
    scene.until("submitted")
    assert audit(scene) == [FindingKind.DUPLICATE]
    scene.go(2000)
    assert sorted(job["state"] for job in scene.vendor.jobs()) == ["cancelled", "done"]
    assert scene.account == (0, scene.truth, 0) == (0, PRICE, 0)


@pytest.mark.parametrize("fault", ["lost", "blamed"])
def test_a_job_that_shows_up_after_it_was_given_up_is_found_however_late(scene, fault):
    scene.have(lag_s=1e7, horizon_s=10, faults={fault: [0]})
    scene.ask()
    scene.go()
    serve(scene, 60)
    assert scene.account == (0, 0, 0)
    scene.clock.now += 2e7  # nobody looks for it by itself any more
    assert audit(scene) == [FindingKind.TURNED_UP]
    scene.go()
    assert scene.account == (0, scene.truth, 0) == (0, PRICE, 0)
    assert audit(scene) == []


def test_an_amount_that_the_vendor_revises_is_found_and_booked(scene):
    scene.have(usage_s=100, faults={"understated": [0]})
    scene.ask()
    scene.go()
    assert scene.account == (0, PRICE // 2, 0)
    scene.clock.now += 200
    assert audit(scene) == [FindingKind.DIFFERENT]
    assert scene.account == (0, PRICE, 0)
    assert audit(scene) == []


def test_a_job_deleted_at_the_vendor_is_named_and_stays_booked(scene):
    scene.ask()
    scene.go()
    scene.vendor.delete(scene.vendor.jobs()[0]["id"])
    assert audit(scene) == [FindingKind.GONE]
    assert scene.account == (0, PRICE, 0)


def test_a_job_of_another_ledger_is_named_and_not_booked(scene):
    scene.ask()
    scene.go()
    scene.vendor.accept("theirs", b"", shots=1, rows=1, seed=0, n=99)
    (finding,) = compare(scene.ledger, state(scene))
    assert (finding.kind, finding.handle.tag, finding.run) == ("unknown", "theirs", None)
    assert book(scene.ledger, [finding]) == set()
    assert scene.account == (0, PRICE, 0)


def test_a_job_in_doubt_is_left_to_its_courier(scene):
    scene.have(horizon_s=100, faults={"lost": [0]})
    scene.ask()
    scene.until("submitting")
    assert audit(scene) == [FindingKind.IN_DOUBT]
    scene.go()
    assert scene.account == (0, PRICE, 0)


def test_where_the_service_cannot_list_the_tags_of_the_ledger_are_looked_up(scene, monkeypatch):
    monkeypatch.setattr(scene.backend, "list_jobs", lambda since: None)
    scene.have(faults={"duplicated": [0]})
    monkeypatch.setattr(scene.backend, "list_jobs", lambda since: None)
    scene.ask()
    scene.go()
    assert not state(scene).complete
    assert audit(scene) == [FindingKind.DUPLICATE]


def test_at_a_runs_end_the_courier_finds_duplicates_by_itself(scene):
    scene.have(faults={"duplicated": [0]}, usage_s=1)
    scene.ask()
    scene.go()
    (said,) = scene.courier.audit()
    assert "is a second job under one tag" in said
    serve(scene, 60)
    assert scene.account == (0, 2 * PRICE, 0)
    assert scene.courier.audit() == []


# --- killed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [False, True])
def test_killed_while_a_late_cost_is_booked_it_is_booked_once(scene, monkeypatch, after):
    scene.have(usage_s=1, run_s=10)
    scene.ask()
    scene.until("submitted")
    scene.ledger.cancel("t")
    scene.go()
    assert scene.account == (0, PRICE, 0)
    scene.dies_in(monkeypatch, "state", after=after)
    with pytest.raises(KilledError):
        serve(scene, 60)
    scene.restart()
    serve(scene, 60)
    assert scene.account == (0, 0, 0)


VENDORS = st.fixed_dictionaries(
    {
        "usage_s": st.sampled_from([0.0, 3.0, 500.0]),
        "run_s": st.sampled_from([0.0, 20.0]),
        "lag_s": st.sampled_from([0.0, 30.0]),
        "horizon_s": st.sampled_from([0.0, 40.0]),
        "faults": st.dictionaries(
            st.sampled_from(
                ["lost", "blamed", "twice", "duplicated", "dropped", "refused", "rejected",
                 "fails", "cancelled", "overbilled", "understated"]
            ),
            st.lists(st.integers(0, 5), max_size=3, unique=True),
            max_size=4,
        ),
    }
)  # fmt: skip
MORTAL = ["state", "correct", "stray", "settle", "fail", "submitted", "settle_stray", "billed"]
DEATHS = st.lists(st.tuples(st.sampled_from(MORTAL), st.booleans(), st.integers(0, 2)), max_size=6)


@pytest.mark.parametrize("examples", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_whatever_the_vendor_does_and_whoever_dies_after_the_audit_the_ledger_is_the_provider(
    filebox, tmp_path_factory, examples
):
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(vendor=VENDORS, deaths=DEATHS)
    def check(vendor, deaths):
        _end_with_the_providers_books(tmp_path_factory.mktemp("scene"), vendor, deaths)

    check()


def _end_with_the_providers_books(folder, vendor, deaths):
    scene = Scene(folder)
    scene.ledger.create_budget("wide", {"micro_usd": 100 * PRICE, "qpu_us": 10**9, "shots": 10**6})
    scene.have(**vendor)
    for k in range(4):
        scene.ask(f"t{k}", budget="wide")
    for name, after, calls in deaths:
        with pytest.MonkeyPatch.context() as patch:
            _dies_in(scene, patch, name, after=after, calls=calls)
            try:
                serve(scene, 60)
                audit(scene)
            except KilledError:
                pass
        scene.restart()
    scene.go(300)
    scene.clock.now += 1000.0  # by now everything is listed and stated
    scene.restart()
    for _ in range(3):
        audit(scene)
        scene.go(300)
    assert audit(scene) == []
    assert scene.ledger.jobs(states=OPEN) == []
    sold = scene.vendor.jobs()
    truth = {"micro_usd": "micro_usd", "qpu_us": "qpu_us", "shots": "executions"}
    for cap in scene.ledger.caps("wide"):
        assert cap.spent + cap.overrun == sum(job[truth[cap.unit]] for job in sold)
        assert cap.reserved == 0
    known = {job.handle.job_id: job for job in scene.ledger.jobs() if job.handle is not None}
    for job in sold:
        spent = known[job["id"]].spent
        assert spent == Amount(job["executions"], job["micro_usd"], job["qpu_us"])


def _dies_in(
    scene: Scene, patch: pytest.MonkeyPatch, name: str, *, after: bool, calls: int
) -> None:
    """Killed in the call after so many of this method."""
    owner = scene.backend if hasattr(type(scene.backend), name) else scene.ledger
    real, left = getattr(owner, name), iter(range(calls))

    def call(*arguments, **more):
        if next(left, None) is not None:
            return real(*arguments, **more)
        if after:
            real(*arguments, **more)
        raise KilledError

    patch.setattr(owner, name, call)
