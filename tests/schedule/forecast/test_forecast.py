"""What a run would come to: the arithmetic, against a ledger that really holds and pays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import BudgetError, BudgetExceededError
from qsgd_core.jobs import Cost, NoiseSnapshot
from qsgd_core.prices import find_price
from qsgd_core.schedule.forecast.forecast import Queue, affordable, forecast
from qsgd_core.schedule.forecast.survey import Errors, JobQuote, Survey, expected_errors, from_table
from qsgd_core.schedule.money import Cap
from qsgd_core.schedule.twin import models
from qsgd_core.schedule.twin.twin import Twin, nominal


def cap(amount: int, unit: str = "micro_usd", **taken: int) -> Cap:
    return Cap("b", unit, amount, **{"reserved": 0, "spent": 0, "overrun": 0} | taken)


def job(usd: float | None, worst: float | None = None, *, rows: int = 10, count: int = 1):
    expected = Cost(usd=usd, qpu_s=2.0, shots=rows * 100)
    return JobQuote(rows, count, expected, Cost(worst if worst is not None else usd, 4.0, 1000))


def seen(*quotes: JobQuote, problem: str | None = None) -> Survey:
    return Survey("dev", 100, 1, quotes, "list", "2026-11", Errors(0.02, 0.1), problem=problem)


def look(*quotes: JobQuote, caps: list[Cap], steps: int = 100, every=None, wanted=None, **more):
    return forecast(
        "asked", seen(*quotes, **more), caps, blocks=10, steps=steps, every=every, wanted=wanted,
        queue=Queue(),
    )  # fmt: skip


def refreshes_that_a_ledger_allows(left: int, costs: list[tuple[int, int]]) -> int:
    """Hold all jobs of a refresh at their worst, pay what is expected, until it does not fit."""
    count = 0
    while sum(worst for worst, _ in costs) <= left:
        left -= sum(expected for _, expected in costs)
        count += 1
    return count


@settings(max_examples=60)
@given(
    st.integers(1, 2000),
    st.lists(st.tuples(st.integers(1, 90), st.integers(0, 50)), min_size=1, max_size=3),
)
def test_as_many_refreshes_as_a_ledger_would_allow(left, extras):
    costs = [(expected + extra, expected) for expected, extra in extras]
    quotes = [job(e / 1e6, w / 1e6) for w, e in costs]
    if left < min(w for w, _ in costs):
        with pytest.raises(BudgetExceededError):
            affordable([cap(left)], quotes, backend="dev")
    else:
        pace = affordable([cap(left)], quotes, backend="dev")
        assert pace.refreshes == refreshes_that_a_ledger_allows(left, costs)


def test_the_interval_is_what_the_budget_allows_and_the_run_stays_within_it():
    found = look(job(1.0), caps=[cap(25_000_000)], steps=2000)
    assert (found.every, found.refreshes, found.jobs) == (80, 25, 25)
    assert (found.circuits, found.shots, found.cost_usd, found.qpu_s) == (250, 25_000, 25.0, 50.0)
    assert found.share_measured == 25 / 2000
    assert (found.twin_error, found.shot_error) == (0.02, 0.1)
    assert found.notes == ()


def test_a_budget_larger_than_the_run_needs_refreshes_every_step():
    found = look(job(1.0), caps=[cap(10**9)], steps=100)
    assert (found.every, found.refreshes, found.cost_usd) == (1, 100, 100.0)


def test_on_a_free_plan_dollars_bind_nothing():
    found = look(job(0.0), caps=[cap(1)], steps=100)
    assert (found.every, found.refreshes, found.cost_usd) == (1, 100, 0.0)


def test_of_several_caps_the_tightest_binds_and_is_the_one_that_is_reported():
    caps = [cap(25_000_000), cap(20_000_000, "qpu_us", spent=4_000_000)]
    found = look(job(1.0), caps=caps, steps=70)
    assert (found.unit, found.cap, found.spent) == ("qpu_us", 20_000_000, 4_000_000)
    assert found.refreshes == 7  # 16 s left; each is held at 4 s and takes 2 s


def test_an_interval_that_the_budget_does_not_last_for_says_which_one_does():
    found = look(job(1.0), caps=[cap(5_000_000)], steps=100, every=10, wanted=10)
    assert (found.every, found.refreshes, found.cost_usd) == (10, 5, 5.0)
    assert "pays for 5 of 10 refreshes" in found.notes[0]
    assert "--every 20" in found.notes[0]


def test_an_interval_that_the_budget_lasts_for_leaves_the_rest_unspent():
    found = look(job(1.0), caps=[cap(50_000_000)], steps=100, every=10, wanted=10)
    assert (found.refreshes, found.cost_usd, found.notes) == (10, 10.0, ())


def test_a_budget_for_some_of_the_jobs_of_one_refresh_says_so():
    found = look(job(1.0, count=4), caps=[cap(2_500_000)], steps=100)
    assert (found.every, found.refreshes, found.jobs, found.cost_usd) == (None, 0, 2, 2.0)
    assert "2 of the 4 jobs" in found.notes[0]
    assert "up to $4." in found.notes[0]


def test_a_budget_below_one_job_is_refused_with_what_a_job_costs():
    with pytest.raises(BudgetExceededError, match=r"can cost up to \$1\.5; .* \$1 left") as caught:
        look(job(1.0, 1.5), caps=[cap(1_000_000)])
    assert (caught.value.asked, caught.value.left) == (1_500_000, 1_000_000)


def test_an_unknown_price_is_refused_under_a_budget_in_dollars_and_in_no_other():
    with pytest.raises(BudgetError, match=r"capped in dollars.*unknown.*QSGD_PRICES"):
        look(job(None), caps=[cap(10**9)])
    found = look(job(None), caps=[cap(20_000_000, "qpu_us")], steps=9)
    assert (found.refreshes, found.cost_usd, found.refresh_usd) == (9, None, None)


def test_a_frozen_budget_pays_for_nothing():
    with pytest.raises(BudgetExceededError):
        look(job(1.0), caps=[cap(10**9, overrun=1)])


def test_a_service_that_was_not_asked_is_said_plainly():
    found = look(job(1.0), caps=[cap(10**9)], problem="No key.")
    assert found.notes[0].startswith("'asked' was not asked; this is from the price table alone.")
    assert "No key." in found.notes[0]


@pytest.mark.parametrize(
    "waits, median, p90",
    [([], None, None), ([3.0], 3.0, 3.0), ([1.0, 3.0], 2.0, 2.8), (list(range(101)), 50, 90)],
)
def test_queue_times_are_the_ledgers_own(waits, median, p90):
    queue = Queue.of(waits)
    assert (queue.jobs, queue.median_s) == (len(waits), median)
    assert queue.p90_s == (None if p90 is None else pytest.approx(p90))


def test_the_wall_time_is_that_of_all_refreshes_one_after_the_other():
    found = forecast(
        "asked", seen(job(1.0)), [cap(5_000_000)], blocks=10, steps=100, every=None, wanted=None,
        queue=Queue.of([60.0, 60.0]),
    )  # fmt: skip
    assert found.wall_s == 5 * 60.0


def test_from_the_table_rows_share_jobs_as_far_as_they_fit():
    work = refresh(rows=250)
    found = from_table(
        "braket:garnet", work, shots=100, listed=find_price("braket:garnet"), problem="-"
    )
    assert [(q.rows, q.count) for q in found.quotes] == [(100, 2), (50, 1)]
    assert found.quotes[0].expected.usd == pytest.approx(0.30 + 10_000 * 0.00145)
    assert Survey.from_json(found.to_json()) == found


# --- the errors ----------------------------------------------------------------------------------

SNAPSHOT = NoiseSnapshot("cal", (5, 6, 7, 8), ((0.01, 0.02),) * 4, {"cz": {(5, 6): 0.004}})


def refresh(rows: int = 12, n: int = 4) -> Workload:
    rng = np.random.default_rng(3)
    return Workload((CircuitBatch(ansatz(n, 2), rng.uniform(-2, 2, (rows, n))),))


@pytest.mark.parametrize("snapshot", [None, SNAPSHOT])
def test_the_twins_expected_error_is_that_of_devices_drawn_from_the_prior(snapshot):
    work = refresh()
    (batch,) = work.batches
    estimate = nominal(snapshot, work)
    (free,) = Twin(estimate).predict(work)
    rng = np.random.default_rng(0)
    squares = []
    for _ in range(300):
        table = models.SiteTable.of(estimate, 4)
        table.state["channel"][:] = rng.standard_normal(table.state["channel"].shape)
        squares.append(np.square(models.predict(batch, np.arange(4), table) - free).mean())
    drawn = np.sqrt(np.mean(squares))
    sigma = np.std(squares) / np.sqrt(len(squares)) / (2 * drawn)
    found = expected_errors(work, snapshot, shots=100)
    # 5 sigma of the draws, and 10 % for what first order leaves out (rates cut off at 0).
    assert found.twin == pytest.approx(drawn, abs=5 * sigma + 0.1 * drawn)
    assert found.shots == pytest.approx(np.sqrt((1 - np.square(free)).mean() / 100), rel=1e-6)


def test_circuits_that_have_no_twin_have_no_expected_error():
    assert expected_errors(refresh(rows=1, n=40), None, shots=10).twin is not None
    work = Workload((CircuitBatch(ansatz(30, 1, "ring"), np.zeros((1, 30))),))
    found = expected_errors(work, None, shots=10)
    assert (found.twin, found.shots) == (None, None)
