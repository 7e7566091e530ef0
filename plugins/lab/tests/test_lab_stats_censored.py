"""Epochs to a target: textbook survival data, and restricted means counted by hand."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsgd_core.errors import ConfigError
from qsgd_lab.stats.censored import Epochs, log_rank, restricted_difference, survival

# Freireich et al. (1963), Blood 21, 699: weeks of remission in acute leukaemia, 6-MP and placebo;
# the data of Gehan (1965) and of Cox and Oakes (1984). A negative time is censored.
SIX_MP = [6, 6, 6, -6, 7, -9, 10, -10, -11, 13, 16, -17, -19, -20, 22, 23, -25, -32, -32, -34, -35]
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def weeks(times: list[int]) -> Epochs:
    return Epochs(tuple(float(abs(t)) for t in times), tuple(t > 0 for t in times), 35.0)


def epochs(*times: float | None, horizon: float = 10) -> Epochs:
    """Runs that were watched to the horizon: a time below it is an arrival."""
    return Epochs(times, tuple(t is not None and t < horizon for t in times), horizon)


def test_the_leukaemia_data_give_the_textbook_curve():
    # Stata's `sts list`: S(t) and its 95 % log-log interval at the times of relapse.
    table = {
        6: (0.8571, 0.6197, 0.9516),
        7: (0.8067, 0.5631, 0.9228),
        10: (0.7529, 0.5032, 0.8894),
        13: (0.6902, 0.4316, 0.8491),
        16: (0.6275, 0.3675, 0.8049),
        22: (0.5378, 0.2678, 0.7468),
        23: (0.4482, 0.1881, 0.6801),
    }
    curve = survival(weeks(SIX_MP))
    found = {
        t: row for t, *row in zip(curve.times, curve.share, curve.low, curve.high, strict=True)
    }
    for week, expected in table.items():
        assert found[week] == pytest.approx(expected, abs=5e-5)
    assert (curve.median, curve.reached, curve.of) == (23, 9, 21)


def test_placebo_has_a_median_of_8_weeks_and_ends_at_zero():
    curve = survival(weeks(PLACEBO))
    assert (curve.median, curve.share[-1], curve.low[-1], curve.high[-1]) == (8, 0.0, None, None)


def test_the_leukaemia_data_give_the_textbook_log_rank():
    found = log_rank(weeks(PLACEBO), weeks(SIX_MP))
    assert found.chi2 == pytest.approx(16.79, abs=5e-3)
    assert found.p == pytest.approx(4.17e-5, abs=5e-8)
    assert log_rank(weeks(SIX_MP), weeks(PLACEBO)).chi2 == pytest.approx(found.chi2)


def test_the_restricted_difference_counts_a_run_that_never_arrives_as_the_horizon():
    baseline, arm = epochs(7, 8, 10, 6), epochs(5, 8, 9, 10)
    found = restricted_difference(baseline, arm)
    assert (found.baseline_mean, found.arm_mean, found.mean) == (7.75, 8.0, 0.25)
    assert (found.n, found.dropped, found.horizon) == (4, 0, 10)
    # Differences -2, 0, -1, 4: half the sign patterns have a sum of at least 1 (that of the 4).
    assert (found.sign_flip.p, found.sign_flip.exact) == (1.0, True)
    assert found.se == pytest.approx(math.sqrt((2.25**2 + 0.25**2 + 1.25**2 + 3.75**2) / 12))


def test_ten_faster_seeds_give_the_smallest_p_there_is():
    found = restricted_difference(epochs(*range(7, 10), *[10] * 7), epochs(*[5] * 10))
    assert found.sign_flip.p == 2 / 2**10
    assert found.mean < 0
    assert found.ci95[1] < 0


@settings(max_examples=40, derandomize=True)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=12))
def test_the_restricted_mean_is_the_area_under_the_kaplan_meier_curve(times):
    runs = epochs(*map(float, times))
    curve = survival(runs)
    edges, heights = [0.0, *curve.times, 10.0], [1.0, *curve.share]
    area = sum(
        (right - left) * s for left, right, s in zip(edges[:-1], edges[1:], heights, strict=True)
    )
    found = restricted_difference(runs, epochs(*[1.0] * len(times)))
    assert found.baseline_mean == pytest.approx(area)


@settings(max_examples=30, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), min_size=2, max_size=8))
def test_swapping_the_arms_turns_the_epochs_won_round(pairs):
    baseline, arm = (epochs(*map(float, side)) for side in zip(*pairs, strict=True))
    one, other = restricted_difference(baseline, arm), restricted_difference(arm, baseline)
    if one is None:
        assert other is None
        assert baseline.n_reached == arm.n_reached == 0
        return
    assert (one.mean, one.sign_flip) == (-other.mean, other.sign_flip)


def test_nothing_is_compared_where_no_run_arrives():
    none = epochs(10, 10, 10)
    assert restricted_difference(none, none) is None
    assert log_rank(none, none) is None
    curve = survival(none)
    assert (curve.median, curve.reached, curve.of) == (None, 0, 3)
    assert curve.share == (1.0,)


def test_an_arm_that_alone_arrives_is_compared_with_the_horizon():
    found = restricted_difference(epochs(10, 10), epochs(4, 6))
    assert (found.baseline_mean, found.mean) == (10, -5)


def test_a_run_missing_or_cut_short_drops_its_pair_and_is_counted():
    baseline = Epochs((3.0, 4.0, None, 6.0), (True, True, False, True), 10.0)
    arm = Epochs((5.0, 4.0, 2.0, 7.0), (True, False, True, True), 10.0)
    found = restricted_difference(baseline, arm)
    assert (found.n, found.dropped, found.mean) == (2, 2, 1.5)
    assert (baseline.n_runs, arm.n_reached) == (3, 3)


def test_one_pair_has_a_difference_and_no_test():
    found = restricted_difference(epochs(3), epochs(5))
    assert (found.mean, found.se, found.ci95, found.sign_flip) == (2, None, None, None)


def test_arms_without_runs_have_no_curve():
    empty = Epochs((None, None), (False, False), 10.0)
    assert survival(empty) is None
    assert log_rank(empty, epochs(1, 2)) is None
    assert restricted_difference(empty, epochs(1, 2)) is None


def test_curves_become_the_first_epoch_at_or_past_the_target():
    found = Epochs.from_curves(
        [[0.5, 0.9, 0.8], [0.5, 0.6, 0.7], [None, 0.95], [0.5], None, [0.1] * 5 + [0.99]],
        target=0.9,
        metric="accuracy",
        horizon=3,
    )
    assert found.times == (2, 3, 2, 1, None, 3)
    assert found.reached == (True, False, True, False, False, False)
    lower = Epochs.from_curves([[0.5, 0.2, 0.1]], target=0.2, metric="loss", horizon=3)
    assert (lower.times, lower.reached) == ((2,), (True,))


def test_a_run_that_diverges_never_arrives_and_one_that_arrived_before_has():
    found = Epochs.from_curves(
        [[0.5, math.nan], [0.95, math.nan], [0.5, math.inf, 0.95]],
        target=0.9,
        metric="accuracy",
        horizon=8,
    )
    assert (found.times, found.reached) == ((8, 1, 8), (False, True, False))


@pytest.mark.parametrize(
    "times, reached, horizon, message",
    [
        ((1.0, 2.0), (True,), 10.0, "2 times and 1 flags"),
        ((11.0,), (True,), 10.0, r"\[11\.0\] with the horizon 10"),
        ((math.nan,), (True,), 10.0, "nan"),
        ((1.0,), (True,), math.inf, "inf"),
    ],
)
def test_times_that_cannot_be_are_refused(times, reached, horizon, message):
    with pytest.raises(ConfigError, match=message):
        Epochs(times, reached, horizon)


def test_other_seeds_or_horizons_are_refused():
    with pytest.raises(ConfigError, match="2 and 1 seeds"):
        restricted_difference(epochs(1, 2), epochs(1))
    with pytest.raises(ConfigError, match="horizons 10 and 5"):
        restricted_difference(epochs(1, 2), epochs(1, 2, horizon=5))


def test_records_are_json_without_nan():
    baseline, arm = epochs(7, 8, 10, 6), epochs(5, 8, 9, 10)
    assert json.dumps(asdict(survival(baseline)), allow_nan=False)
    assert json.dumps(asdict(restricted_difference(baseline, arm)), allow_nan=False)
    assert json.dumps(asdict(log_rank(baseline, arm)), allow_nan=False)
