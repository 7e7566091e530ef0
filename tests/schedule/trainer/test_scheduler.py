"""The scheduler at step boundaries: when it asks, what it waits for, what a step uses meanwhile."""

from __future__ import annotations

import json

import numpy as np
import pytest
from by_clock import KilledError
from hypothesis import given
from hypothesis import strategies as st
from stage import BUDGET, MOST_S, PRICE, ROWS, SHOTS, Stage, work_at

from qsgd_core.builtin.policies import Hold, Sync, Tracked, TwinOnly
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
from qsgd_core.policy import Policy, View, paced
from qsgd_core.schedule.failures import pack_error
from qsgd_core.schedule.messages import Frame
from qsgd_core.schedule.trainer.scheduler import FINAL_PHASE, REST_S

NEVER = {"wait": "never", "total_steps": 1000}


@pytest.fixture
def stage(filebox, tmp_path) -> Stage:
    return Stage(tmp_path)


def measured(stage: Stage, step: int) -> list[np.ndarray]:
    """What the ledger has of a step's refresh of one job."""
    (job,) = stage.jobs(step=step, states=["settled"])
    return stage.ledger.result(job.tag).expectations(stage.ledger.workload(job.tag))


# --- when a refresh is due -----------------------------------------------------------------------


def asked_by_paced(total: int, worth: float, *, stride: int = 1, delay: int = 0) -> list[int]:
    """The steps at which a budget for ``worth`` refreshes asks."""
    last_useful = total - 1 - delay
    asked: list[int] = []
    for step in range(0, last_useful + 1, stride):
        view = View(
            step=step,
            total_steps=total,
            every=None,
            asked_at=asked[-1] if asked else None,
            affordable=worth - len(asked),
            last_useful=last_useful if delay else None,
            stride=stride,
        )
        if paced(view):
            asked.append(step)
    return asked


@given(total=st.integers(1, 2000), density=st.floats(0.0, 1.0), stride=st.integers(1, 8))
def test_paced_spends_to_plan_within_one_refresh_and_leaves_less_than_one(total, density, stride):
    """Within one refresh or 5 % of the budget, and what falls between two looks."""
    worth = 1 + density * (-(-total // stride) - 1)
    asked = asked_by_paced(total, worth, stride=stride)
    for share in (0.25, 0.5, 0.75, 1.0):
        spent = sum(step < share * total for step in asked)
        grain = worth * stride / total
        assert abs(spent - worth * share) <= max(1 + grain, 0.05 * worth)
    assert 0 <= worth - len(asked) < max(1.0 + 1e-9, 0.05 * worth)


@given(total=st.integers(200, 2000), worth=st.integers(1, 50), delay=st.integers(0, 150))
def test_paced_sends_the_last_refresh_while_it_can_still_arrive(total, worth, delay):
    assert len(asked_by_paced(total, worth, delay=delay)) == min(worth, total - delay)


@pytest.mark.parametrize("policy", [Tracked(), Hold(), Sync()])
def test_the_budget_is_spent_evenly_to_the_end(stage, policy):
    """Budget for 7.4 refreshes in 60 steps."""
    stage.ledger.create_budget("small", {"micro_usd": int(7.4 * PRICE)})
    scheduler = stage.scheduler(policy, total_steps=60, budget_name="small")
    spent = []
    for step in range(60):
        stage.go(scheduler, [step])
        (cap,) = stage.ledger.caps("small")
        spent.append(cap.spent + cap.reserved)
    for share in (0.5, 0.75, 1.0):
        plan = share * 7.4 * PRICE
        assert abs(spent[int(share * 60) - 1] - plan) <= PRICE
    assert 7.4 * PRICE - spent[-1] < PRICE
    assert len(stage.vendor.jobs()) == 7


def test_with_a_fixed_interval_a_tenth_of_the_budget_is_kept_for_the_last_tenth_of_the_steps(stage):
    stage.ledger.create_budget("small", {"micro_usd": 20 * PRICE})
    scheduler = stage.scheduler(Hold(), total_steps=100, wait="never", budget_name="small")
    stage.go(scheduler, range(100), every=2)
    steps = [job.step for job in stage.jobs()]
    late = [step for step in steps if step >= FINAL_PHASE * 100]
    assert len(steps) == 20
    assert late[:2] == [90, 92]
    assert max(set(steps) - set(late)) < 50


def test_no_refresh_is_asked_for_that_cannot_arrive_before_the_end(stage):
    """A result takes 20 steps, and the run learns that from the first."""
    stage.have(run_s=20)
    scheduler = stage.scheduler(Hold(), total_steps=100, wait="never", max_in_flight=50)
    stage.go(scheduler, range(100), every=5)
    steps = [job.step for job in stage.jobs()]
    assert steps == list(range(steps[0], steps[-1] + 1, 5))
    assert 60 <= steps[-1] < 80
    assert {job.state for job in stage.jobs()} == {"settled"}


def test_the_first_refresh_that_is_waited_for_does_not_pass_for_a_quick_one(stage):
    """Its delay is no steps at all; the time to a result says how late the next would be."""
    stage.have(run_s=200)
    scheduler = stage.scheduler(Hold(), total_steps=100, wait="first")
    stage.go(scheduler, range(100), every=5)
    assert [job.step for job in stage.jobs()] == [0]


def test_a_run_too_short_for_any_result_is_refused_before_anything_is_sent(stage):
    stage.have(run_s=500)
    stage.go(stage.scheduler(Hold()), [0], every=1)
    sold = len(stage.vendor.jobs())
    stage.run = "another"
    scheduler = stage.scheduler(Hold(), wait="never", total_steps=30)
    with pytest.raises(ConfigError, match="none would arrive before the last step"):
        stage.go(scheduler, range(1, 30), every=10)
    assert len(stage.vendor.jobs()) == sold


def test_no_more_refreshes_are_out_at_once_than_allowed(stage):
    stage.have(run_s=1000)
    scheduler = stage.scheduler(wait="never", total_steps=10_000, max_in_flight=2)
    stage.go(scheduler, range(20), every=1)
    assert len(stage.vendor.jobs()) == 2
    assert scheduler.status()["in_flight"] == 2


def test_before_the_first_job_the_user_is_told_what_will_come_of_it(stage):
    stage.go(stage.scheduler(total_steps=50), [0])
    (said,) = stage.said("planned")
    assert said.startswith("filebox:x is measured about 50 times, 8 shots a circuit, $0.001016")


@pytest.mark.parametrize(
    ("policy", "total", "every", "said"),
    [
        (Sync(), 1, None, "once"),
        (Hold(), 1, None, "once"),
        (Tracked(), 1, None, "once"),
        (Sync(), 7, None, "about 7 times"),
        (Hold(), 7, 2, "about 4 times"),
        (Tracked(), 7, 3, "about 3 times"),
        (Tracked(), 1000, None, "about 100 times"),  # what the budget pays for
        (Tracked(), None, None, "about 100 times"),
    ],
)
def test_no_more_refreshes_are_announced_than_there_are_steps_for(
    stage, policy, total, every, said
):
    scheduler = stage.scheduler(policy, total_steps=total)
    stage.go(scheduler, [0], every=every)
    (heard,) = stage.said("planned")
    assert heard.startswith(f"filebox:x is measured {said}, ")


class Thrice(Policy):
    """Somebody's own."""

    between = "hold"

    def due(self, view: View) -> bool:
        return view.step in (0, 7, 9)


def test_a_policy_of_somebody_elses_decides_when(stage):
    stage.go(stage.scheduler(Thrice()), range(12))
    assert [job.step for job in stage.jobs()] == [0, 7, 9]


def test_the_twin_alone_never_asks(stage):
    scheduler = stage.scheduler(TwinOnly(), total_steps=10)
    assert set(stage.go(scheduler, range(10))) == {"nominal"}
    assert stage.jobs() == []


# --- what a step uses ----------------------------------------------------------------------------


@pytest.mark.parametrize("policy, rung", [(Tracked(), "tracked"), (Hold(), "held")])
def test_nominal_until_the_first_result_and_then_what_it_has_taught(stage, policy, rung):
    stage.have(run_s=5)
    sources = stage.go(stage.scheduler(policy, **NEVER), range(20), every=100)
    assert sources == ["nominal"] * sources.index(rung) + [rung] * (20 - sources.index(rung))
    assert 5 <= sources.index(rung) <= 12


def test_hold_uses_the_last_result_to_the_bit(stage):
    scheduler = stage.scheduler(Hold(), wait="always")
    for step in range(8):
        stage.go(scheduler, [step], every=4)
        (z,), (expected,) = stage.z, measured(stage, step - step % 4)
        np.testing.assert_array_equal(z, expected)


def test_a_result_of_a_part_of_the_blocks_is_held(stage):
    """Three blocks of work in turns of one: at no step were all three measured."""
    scheduler = stage.scheduler(Sync(), blocks_per_refresh=1)
    assert set(stage.go(scheduler, range(6), every=1)) == {"held"}
    scheduler = stage.scheduler(Sync())
    assert stage.go(scheduler, range(6, 9), every=1) == ["measured"] * 3


def test_tracked_is_the_twin_at_the_angles_of_each_step(stage):
    scheduler = stage.scheduler(Tracked())
    stage.go(scheduler, [0], every=100)
    twin = scheduler._ladder.latest.twin()
    stage.go(scheduler, [1], every=100)
    np.testing.assert_array_equal(stage.z[0], twin.predict(work_at(1))[0])


HELD = ["measured", "held"]

BOUNDS = [
    {"max_age_steps": 10},
    {"max_age_s": 10.5},
    {"max_age_radians": 0.105},  # the stage's angles move by 0.01 a step
]


@pytest.mark.parametrize("bound", BOUNDS, ids=["steps", "seconds", "radians"])
@pytest.mark.parametrize("policy, names", [(Tracked(), ["tracked"] * 2), (Hold(), HELD)])
def test_what_is_too_old_is_not_used(stage, policy, names, bound):
    """Nothing more arrives after the first: the budget is for one refresh."""
    stage.ledger.create_budget("one", {"micro_usd": PRICE})
    scheduler = stage.scheduler(policy, **bound, budget_name="one")
    assert stage.go(scheduler, range(15), every=5) == [
        names[0],
        *[names[1]] * 10,
        *["nominal"] * 4,
    ]
    (fell,) = stage.said("fell back")
    assert fell.startswith("From step 11 on s is nominal. What was measured is too old.")
    (denied,) = stage.said("denied")
    assert "it may cost $0.001016 of $0 left in 'one'. Raise the budget" in denied


def test_what_an_earlier_life_measured_is_as_old_as_its_angles_are_far(stage):
    """The stage's angles move by 0.01 a step."""
    stage.go(stage.scheduler(Hold(), max_age_radians=0.105), [0], every=100)
    for moved, source in [(5, "held"), (20, "nominal")]:
        again = stage.scheduler(Hold(), wait="never", max_age_radians=0.105, max_in_flight=1)
        steps = range(1, 4)
        assert stage.go(again, steps, every=100, work=lambda _, by=moved: work_at(by))[-1] == source


def test_what_gets_too_old_is_measured_again_before_its_turn(stage):
    scheduler = stage.scheduler(Hold(), max_age_steps=10)
    stage.go(scheduler, range(30), every=1000)
    assert [job.step for job in stage.jobs()] == [0, 11, 22]


def ring(step: int) -> Workload:
    """A circuit that no twin describes."""
    angles = np.random.default_rng(0).normal(size=(2, 20)) + 0.01 * step
    return Workload((CircuitBatch(ansatz(20, 1, "ring"), angles),))


def test_without_a_twin_the_ladder_goes_from_measured_to_random_and_begins_at_zero(stage):
    stage.have(run_s=3)
    scheduler = stage.scheduler(
        Hold(), wait="never", max_in_flight=1, max_age_steps=9, total_steps=1000
    )
    sources = stage.go(scheduler, range(9), work=ring, every=1000)
    first = sources.index("held")
    assert sources == ["zero"] * first + ["held"] * (9 - first)
    stage.have(run_s=1e6)
    stage.line.kill()
    sources = stage.go(scheduler, range(9, 30), work=ring, every=1000)
    assert sources[-1] == "random"
    once = stage.z[0]
    assert 0.0 < np.abs(once).max() <= 1.0
    stage.go(scheduler, [29], work=ring, every=1000)
    np.testing.assert_array_equal(stage.z[0], once)  # by the run's seed and the step
    stage.go(scheduler, [30], work=ring, every=1000)
    assert (stage.z[0] != once).all()


def test_a_circuit_without_a_twin_is_refused_by_a_policy_that_needs_one(stage):
    with pytest.raises(CapabilityError, match="Use policy='hold' or policy='sync'"):
        stage.go(stage.scheduler(Tracked()), [0], work=ring, every=1)
    assert stage.jobs() == []


def test_other_blocks_than_were_measured_do_not_get_their_values(stage):
    scheduler = stage.scheduler(Hold(), max_in_flight=1)
    assert stage.go(scheduler, [0], every=10) == ["measured"]
    more = {"work": lambda step: work_at(step, rows=3)}
    assert stage.go(scheduler, [1], every=10, **more) == ["nominal"]
    assert stage.z[0].shape == (3, 2)


# --- on_exhausted --------------------------------------------------------------------------------


@pytest.mark.parametrize("what, names", [("fallback", {*HELD, "nominal"}), ("freeze", set(HELD))])
def test_without_a_budget_left_s_falls_back_or_stays(stage, what, names):
    stage.ledger.create_budget("one", {"micro_usd": PRICE})
    scheduler = stage.scheduler(Hold(), on_exhausted=what, max_age_steps=4, budget_name="one")
    assert set(stage.go(scheduler, range(12), every=3)) == names
    assert len(stage.said("denied")) == 1


def test_without_a_budget_left_training_stops_if_that_was_asked_for(stage):
    stage.ledger.create_budget("one", {"micro_usd": PRICE})
    scheduler = stage.scheduler(Hold(), on_exhausted="raise", budget_name="one")
    stage.go(scheduler, range(3), every=3)
    with pytest.raises(BudgetError, match="qsgd budget raise"):
        stage.go(scheduler, [3], every=3)
    assert len(stage.vendor.jobs()) == 1


def test_a_budget_raised_in_mid_run_is_used_at_once(stage):
    stage.ledger.create_budget("one", {"micro_usd": PRICE})
    scheduler = stage.scheduler(Hold(), budget_name="one")
    stage.go(scheduler, range(10), every=2)
    stage.ledger.raise_budget("one", {"micro_usd": 3 * PRICE})
    stage.go(scheduler, range(10, 20), every=2)
    assert [job.step for job in stage.jobs()] == [0, 10, 12]
    assert len(stage.said("denied")) == 2


# --- waiting -------------------------------------------------------------------------------------


def test_never_waiting_takes_no_time(stage):
    stage.have(run_s=50)
    scheduler = stage.scheduler(**NEVER)
    began = stage.clock.now
    stage.go(scheduler, range(10), every=100)
    assert stage.clock.now == began + 10


def test_only_the_first_result_is_waited_for(stage):
    stage.have(run_s=50)
    scheduler = stage.scheduler(wait="first", total_steps=1000)
    began = stage.clock.now
    sources = stage.go(scheduler, range(10), every=3)
    assert sources[0] == "tracked"
    assert began + 10 + 50 <= stage.clock.now <= began + 10 + 90
    assert [job.step for job in stage.jobs()] == [0, 3, 6, 9]


@pytest.mark.parametrize("how", [{"policy": Sync()}, {"policy": Hold(), "wait": "always"}])
def test_each_result_is_waited_for(stage, how):
    stage.have(run_s=50)
    scheduler = stage.scheduler(how["policy"], wait=how.get("wait", "never"))
    assert stage.go(scheduler, range(9), every=3) == ["measured", "held", "held"] * 3
    (z,), (expected,) = stage.z, measured(stage, 6)
    np.testing.assert_array_equal(z, expected)
    assert stage.clock.now - 1_000_000.0 >= 150


def test_a_first_result_that_does_not_come_is_waited_for_until_the_deadline_and_used_later(stage):
    stage.have(run_s=100)
    scheduler = stage.scheduler(wait="first", first_deadline_s=30.0)
    sources = stage.go(scheduler, range(200), every=1000)
    assert sources[0] == "nominal"
    assert 65 <= sources.index("tracked") <= 110
    (late,) = stage.said("late")
    assert late.startswith("No result after 30 s")


@pytest.mark.parametrize("set_by", [-600.0, 600.0])
def test_a_wall_clock_that_is_set_meanwhile_changes_no_wait(stage, monkeypatch, set_by):
    stage.have(run_s=100)
    stage.vendor.clock = stage.clock.timer  # the vendor's clock is another
    scheduler = stage.scheduler(wait="first", first_deadline_s=30.0)
    began, receive = stage.clock.now, stage.line.receive

    def set_meanwhile(timeout_s: float = 0.0) -> list[Frame]:
        if stage.clock.now >= began + 10:
            stage.clock.set_by = set_by
        return receive(timeout_s)

    monkeypatch.setattr(stage.line, "receive", set_meanwhile)
    assert stage.go(scheduler, range(1), every=1000) == ["nominal"]
    assert stage.clock.set_by == set_by
    assert 30 <= stage.clock.now - began <= 30 + 2 * MOST_S


@pytest.mark.parametrize("set_by", [-600.0, 600.0])
def test_a_result_grows_as_old_as_it_would_without_the_wall_clock_being_set(stage, set_by):
    stage.ledger.create_budget("one", {"micro_usd": PRICE})
    scheduler = stage.scheduler(Hold(), max_age_s=10.5, budget_name="one")
    assert stage.go(scheduler, range(5))[-1] == "held"
    stage.clock.set_by = set_by
    sources = stage.go(scheduler, range(5, 20))
    assert sources[:3] == ["held"] * 3
    assert "held" not in sources[8:]


def test_a_late_result_still_teaches_and_does_not_replace_a_newer_one(stage):
    """The answer to the first submission is lost: it is found when the list shows it."""
    stage.have(run_s=1, lag_s=30, horizon_s=60, faults={"lost": [0]})
    scheduler = stage.scheduler(Hold(), **NEVER)
    stage.go(scheduler, range(20), every=5)
    first, second = stage.jobs()[:2]
    assert (first.state, second.state) == ("submitting", "settled")
    stage.go(scheduler, range(20, 60), every=1000)
    assert stage.ledger.job(first.tag).state == "settled"
    newest = max(job.step for job in stage.jobs())
    assert scheduler._ladder.latest.measured_at == newest
    np.testing.assert_array_equal(stage.z[0], measured(stage, newest)[0])
    assert sorted(scheduler._learned) == sorted(job.step for job in stage.jobs())


def test_the_twin_learns_from_results_in_any_order(stage):
    stage.have(run_s=1, lag_s=30, horizon_s=60, faults={"lost": [0]})
    scheduler = stage.scheduler(Tracked(), **NEVER)
    stage.go(scheduler, range(60), every=5)
    assert scheduler._ladder.latest.estimate.version == len(stage.jobs(states=["settled"]))


# --- parts and turns -----------------------------------------------------------------------------


def test_blocks_whose_job_fails_keep_what_they_had(stage):
    stage.have(max_rows=1, faults={"fails": [3]})
    scheduler = stage.scheduler(Hold(), wait="always")
    stage.go(scheduler, [0], every=5)
    (before,) = stage.z
    stage.go(scheduler, range(1, 6), every=5)
    (after,) = stage.z
    failed = next(job for job in stage.jobs() if job.state == "failed")
    assert (failed.step, failed.part) == (5, 1)
    np.testing.assert_array_equal(after[1], before[1])
    (kept,) = [j for j in stage.jobs(step=5) if j.part == 0]
    (there,) = stage.ledger.result(kept.tag).expectations(stage.ledger.workload(kept.tag))
    np.testing.assert_array_equal(after[:1], there)
    (said,) = stage.said("partial")
    assert said.startswith("1 of 2 blocks of the refresh of step 5 were measured")


def test_blocks_that_were_never_measured_keep_the_twins_values(stage):
    stage.have(max_rows=1, faults={"fails": [1]})
    scheduler = stage.scheduler(Hold())
    stage.go(scheduler, [0], every=5)
    (said,) = stage.z
    free = scheduler._ladder.nominal.twin().predict(work_at(0))[0]
    np.testing.assert_array_equal(said[1], free[1])
    assert (said[0] != free[0]).all()


def test_blocks_are_measured_in_turns(stage):
    scheduler = stage.scheduler(Hold(), wait="always", blocks_per_refresh=1)
    rows = {"work": lambda step: work_at(step, rows=3)}
    stage.go(scheduler, range(4), every=1, **rows)
    jobs = stage.jobs()
    assert [stage.ledger.workload(job.tag).n_rows for job in jobs] == [1] * 4
    angles = [stage.ledger.workload(job.tag).batches[0].angles[0] for job in jobs]
    for step, row in enumerate([0, 1, 2, 0]):
        np.testing.assert_array_equal(angles[step], work_at(step, rows=3).batches[0].angles[row])
    for row, step in [(0, 3), (1, 1), (2, 2)]:
        np.testing.assert_array_equal(stage.z[0][row], measured(stage, step)[0][0])


def test_the_turn_survives_a_checkpoint(stage):
    rows = {"work": lambda step: work_at(step, rows=3)}
    scheduler = stage.scheduler(Hold(), blocks_per_refresh=1)
    stage.go(scheduler, [0], every=1, **rows)
    again = stage.scheduler(Hold(), blocks_per_refresh=1)
    again.load_state(json.loads(json.dumps(scheduler.state())))
    stage.go(again, [1], every=1, **rows)
    last = stage.jobs()[-1]
    angles = stage.ledger.workload(last.tag).batches[0].angles
    np.testing.assert_array_equal(angles, work_at(1, rows=3).batches[0].angles[1:2])


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Tracked, Hold])
def test_a_checkpoint_goes_on_to_the_bit(stage, policy):
    """A run that comes back says what the run that stayed says."""
    scheduler = stage.scheduler(policy(), wait="always")
    stage.go(scheduler, range(5), every=3)
    state = json.loads(json.dumps(scheduler.state()))
    stage.go(scheduler, [5], every=3)
    stayed = stage.z
    again = stage.scheduler(policy(), wait="always")
    again.load_state(state)
    assert again.state() == state
    stage.go(again, [5], every=3)
    assert stage.z[0].tobytes() == stayed[0].tobytes()
    assert len(stage.vendor.jobs()) == 2


def test_a_run_that_waits_and_goes_on_from_an_old_checkpoint_uses_again_what_it_has_paid_for(stage):
    """Each step gets the s that it got in the first life."""

    def life(scheduler, steps):
        return [stage.go(scheduler, [k], every=4) and stage.z[0].tobytes() for k in steps]

    scheduler = stage.scheduler(Sync())
    head = life(scheduler, range(6))
    state = scheduler.state()
    tail = life(scheduler, range(6, 20))
    sold = len(stage.vendor.jobs())
    again = stage.scheduler(Sync())
    again.load_state(state)
    assert life(again, range(6, 20)) == tail
    from_nothing = stage.scheduler(Sync())
    assert life(from_nothing, range(20)) == head + tail
    assert len(stage.vendor.jobs()) == sold == 5
    stage.go(from_nothing, [20], every=4)
    assert len(stage.vendor.jobs()) == 6


def test_a_waiting_run_paced_by_its_budget_asks_at_the_steps_that_it_has_paid_for(stage):
    stage.ledger.create_budget("few", {"micro_usd": 5 * PRICE})
    scheduler = stage.scheduler(Sync(), total_steps=40, budget_name="few")
    stage.go(scheduler, range(20))
    steps = [job.step for job in stage.jobs()]
    again = stage.scheduler(Sync(), total_steps=40, budget_name="few")
    stage.go(again, range(40))
    assert [job.step for job in stage.jobs()][: len(steps)] == steps
    assert len(stage.vendor.jobs()) == 5
    (cap,) = stage.ledger.caps("few")
    assert (cap.reserved, cap.spent) == (0, 5 * PRICE)


def test_a_run_that_comes_back_learns_at_once_from_what_arrived_while_it_was_away(stage):
    stage.have(run_s=50)
    scheduler = stage.scheduler(Tracked(), **NEVER)
    stage.go(scheduler, range(6), every=100)
    state = scheduler.state()
    stage.line.kill()
    stage.clock.now += 500
    again = stage.scheduler(Tracked(), **NEVER)
    again.load_state(state)
    assert stage.go(again, range(6, 10), every=100)[-1] == "tracked"
    assert again._learned == [job.step for job in stage.jobs()]
    assert len(stage.vendor.jobs()) == 1


# --- couriers that die ---------------------------------------------------------------------------

POINTS = [
    ("add_intent", True), ("reserve", False), ("reserve", True), ("begin_submit", False),
    ("submit", True), ("submitted", False), ("submitted", True), ("status", True),
    ("fetch", True), ("store", False), ("store", True), ("settle", False), ("settle", True),
    ("quote", True), ("caps", True), ("queue_times", True),
]  # fmt: skip
ON_EVERY_PUSH = [("submit", True), ("store", False)]  # paid and not known; known and not kept


@pytest.mark.parametrize("policy", [Sync, Tracked])
@pytest.mark.parametrize(
    "name, after",
    [
        pytest.param(*point, marks=() if point in ON_EVERY_PUSH else pytest.mark.slow)
        for point in POINTS
    ],
)
def test_a_courier_that_is_killed_is_told_again_and_buys_nothing_twice(
    stage, monkeypatch, policy, name, after
):
    """Killed at the first call of its kind in the run's life, and at the second one later on."""
    stage.have(run_s=3, lag_s=2, horizon_s=4)
    for count in (0, 1):
        dies_in(stage, monkeypatch, name, after=after, skip=count)
        scheduler = stage.scheduler(policy(), first_deadline_s=1e4)
        sources = stage.go(scheduler, range(30 * count, 30 * count + 8), every=4)
        assert set(sources) <= {"measured", "held", "tracked"}
        stage.go(scheduler, range(30 * count + 8, 30 * count + 30), every=1000)
        assert stage.line.starts == 2
        assert scheduler.status()["in_flight"] == 0
        scheduler.close(finished=False)
    settled = stage.jobs(states=["settled"])
    assert len({job.step for job in settled}) == len(settled) == len(stage.vendor.jobs())
    assert stage.account == (0, stage.truth, 0)


@pytest.mark.parametrize("kind", ["snapshot", "answer"])
def test_an_answer_that_is_lost_with_its_courier_is_given_again_and_learned_once(stage, kind):
    """The pipe breaks in the middle of what the courier says."""
    scheduler = stage.scheduler(Tracked(), wait="always")
    stage.go(scheduler, [0], every=1)
    real, lost = stage.line.receive, []

    def receive(timeout_s: float = 0.0):
        frames = real(timeout_s)
        at = next((k for k, f in enumerate(frames) if f.kind == kind), None)
        if at is None or lost:
            return frames
        lost.append(kind)
        stage.line.kill()
        return frames[:at]

    stage.line.receive = receive
    stage.go(scheduler, range(1, 4), every=1)
    assert lost
    assert scheduler._ladder.latest.estimate.version == 4
    assert len(stage.vendor.jobs()) == 4
    assert scheduler.status()["arrived"] == 4


def dies_in(stage: Stage, monkeypatch, name: str, *, after: bool, skip: int) -> None:
    """The courier is killed once, after so many calls of this ledger or backend method."""
    owner = stage.backend if hasattr(type(stage.backend), name) else stage.ledger
    real, calls = getattr(owner, name), []

    def call(*arguments, **more):
        calls.append(name)
        if len(calls) != skip + 1:
            return real(*arguments, **more)
        if after:
            real(*arguments, **more)
        raise KilledError

    monkeypatch.setattr(owner, name, call)


def test_a_network_that_fails_while_the_price_is_asked_costs_time_only(stage, monkeypatch):
    real, failures = stage.backend.quote, iter(range(5))

    def flaky(*arguments, **more):
        if next(failures, None) is not None:
            raise TransientError("Connection reset.", retryable=True)
        return real(*arguments, **more)

    monkeypatch.setattr(stage.backend, "quote", flaky)
    assert stage.go(stage.scheduler(Sync()), [0], every=1) == ["measured"]


def test_a_service_that_refuses_in_mid_run_does_not_stop_training(stage, monkeypatch):
    stage.have(run_s=5)
    scheduler = stage.scheduler(Tracked())
    stage.go(scheduler, range(3), every=10)
    with monkeypatch.context() as patch:

        def refuse(*arguments, **more):
            raise AuthError("The key has expired.")

        patch.setattr(stage.backend, "quote", refuse)
        stage.line.kill()
        assert set(stage.go(scheduler, range(3, 15), every=10)) == {"tracked"}
        assert any("The key has expired." in said for said in stage.said("failed"))
    stage.line.kill()
    stage.go(scheduler, range(15, 40), every=10)
    assert stage.jobs()[-1].state == "settled"


def test_a_courier_that_cannot_go_on_is_tried_again_later_and_less_and_less_often(stage):
    scheduler = stage.scheduler(Tracked())
    stage.go(scheduler, [0], every=5)
    scheduler._hear(_stop(AuthError("The key has expired.")))
    stage.line.kill()
    (said,) = stage.said("stopped")
    assert f"tried again in {REST_S[0]:.0f} s" in said
    starts = stage.line.starts
    assert set(stage.go(scheduler, range(1, 50), every=5)) == {"tracked"}
    assert stage.line.starts == starts
    stage.go(scheduler, range(50, 80), every=5)
    assert stage.line.starts == starts + 1
    assert stage.jobs()[-1].step > 50


def test_a_run_that_waits_for_each_result_says_that_it_waits(stage, monkeypatch):
    scheduler = stage.scheduler(Sync())
    stage.go(scheduler, [0], every=1)
    receive, told = stage.line.receive, [_stop(AuthError("The key has expired."))]

    def stops_once(timeout_s: float = 0.0) -> list[Frame]:
        return [told.pop()] if timeout_s and told else receive(timeout_s)

    monkeypatch.setattr(stage.line, "receive", stops_once)
    assert stage.go(scheduler, [1], every=1) == ["measured"]
    (said,) = stage.said("stopped")
    assert said.endswith("The run waits for its results; the service is tried again in 60 s.")


def _stop(error: Exception) -> Frame:
    return Frame("stopped", {"error": pack_error(error)})


@pytest.mark.parametrize("policy", [Sync(), Tracked(), Hold()])
def test_before_the_first_result_what_stops_the_courier_is_raised(stage, policy):
    scheduler = stage.scheduler(policy)
    with pytest.raises(AuthError, match="does not know this key"):
        scheduler._hear(_stop(AuthError("filebox does not know this key.")))


# --- what comes to nothing -----------------------------------------------------------------------


def test_a_failed_first_refresh_is_an_error(stage):
    stage.have(faults={"fails": [0]})
    with pytest.raises(JobFailedError, match="was failed: the vendor's reasons"):
        stage.go(stage.scheduler(), [0], every=1)


def test_a_failed_later_refresh_is_told_and_training_goes_on(stage):
    stage.have(faults={"fails": [1]})
    scheduler = stage.scheduler(Hold(), wait="always")
    assert stage.go(scheduler, range(6), every=2) == [*HELD, "held", "held", *HELD]
    (said,) = stage.said("failed")
    assert said.startswith("Step 2: ")
    assert [job.state for job in stage.jobs()] == ["settled", "failed", "settled"]


def test_a_first_refresh_that_the_budget_denies_is_an_error(stage):
    stage.ledger.create_budget("tiny", {"micro_usd": PRICE - 1})
    scheduler = stage.scheduler(budget_name="tiny")
    with pytest.raises(BudgetExceededError) as caught:
        stage.go(scheduler, [0], every=1)
    assert (caught.value.asked, caught.value.left) == (PRICE, PRICE - 1)
    assert stage.vendor.jobs() == []


@pytest.mark.parametrize("policy", [Sync(), Tracked()])
def test_a_budget_that_earlier_runs_have_spent_is_said_and_falls_back(stage, policy):
    stage.ledger.create_budget("shared", {"micro_usd": PRICE})
    stage.go(stage.scheduler(Sync(), budget_name="shared"), [0], every=1)
    stage.run = "second"
    sources = stage.go(stage.scheduler(policy, budget_name="shared"), range(3), every=1)
    assert sources == ["nominal"] * 3
    assert len(stage.vendor.jobs()) == 1
    assert any("left" in message for message in stage.said("denied"))


def test_a_budget_that_earlier_runs_have_spent_is_an_error_where_that_is_asked_for(stage):
    stage.ledger.create_budget("shared", {"micro_usd": PRICE})
    stage.go(stage.scheduler(Sync(), budget_name="shared"), [0], every=1)
    stage.run = "second"
    with pytest.raises(BudgetExceededError):
        stage.go(stage.scheduler(Sync(), budget_name="shared", on_exhausted="raise"), [0], every=1)


def test_a_price_that_nobody_knows_is_an_error_and_buys_nothing(stage):
    stage.have(priced=False)
    with pytest.raises(BudgetError):
        stage.go(stage.scheduler(), [0], every=1)
    assert stage.vendor.jobs() == []


def test_the_shots_of_each_refresh_are_drawn_anew(stage):
    """Coins of one seed would fall alike at every refresh, and their noise would not average."""
    stage.go(stage.scheduler(Sync()), range(3), every=1)
    assert len({job.seed for job in stage.jobs()}) == 3


# --- the end -------------------------------------------------------------------------------------


def test_a_finished_run_cancels_what_waits_in_the_queue_at_no_cost(stage):
    stage.have(run_s=1e6)
    scheduler = stage.scheduler(**NEVER)
    stage.go(scheduler, range(10), every=100)
    assert stage.account[0] == PRICE
    scheduler.close(finished=True)
    assert [job["state"] for job in stage.vendor.jobs()] == ["cancelled"]
    assert stage.account == (0, 0, 0)


def test_an_interrupted_run_leaves_what_it_has_asked_for(stage):
    stage.have(run_s=1e6)
    scheduler = stage.scheduler(**NEVER)
    stage.go(scheduler, range(10), every=100)
    scheduler.close(finished=False)
    assert [job["state"] for job in stage.vendor.jobs()] == ["queued"]
    assert stage.account == (PRICE, 0, 0)


def test_the_status_accounts_for_everything(stage):
    scheduler = stage.scheduler(Hold(), total_steps=40)
    stage.go(scheduler, range(20), every=10)
    status = scheduler.status()
    json.dumps(status)
    assert (status["asked"], status["arrived"], status["in_flight"]) == (2, 2, 0)
    assert (status["source"], status["measured_at"]) == ("held", 10)
    assert 20 / 40 <= status["planned"] <= 20 / 35
    (cap,) = status["caps"]
    assert (cap["budget"], cap["spent"]) == (BUDGET, 2 * PRICE)
    assert ROWS * SHOTS == 16


def test_at_a_runs_end_what_the_vendor_made_by_itself_is_found_told_and_paid_for(stage):
    stage.have(faults={"duplicated": [0]}, usage_s=0.5)
    scheduler = stage.scheduler(Sync())
    stage.go(scheduler, range(2), every=10)
    assert stage.truth == 2 * PRICE
    scheduler.close(finished=True)
    (said,) = stage.said("audit")
    assert "is a second job under one tag" in said
    assert sum(stage.account) == stage.truth
