"""Arms are aligned by seed; what has no value is counted by its reason."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qsgd_core.errors import ConfigError
from qsgd_lab.stats.pairs import Pairs, align, direction

NAN, INF = math.nan, math.inf


def test_a_seed_that_one_arm_lacks_is_missing_there():
    assert align({3: 0.3, 1: 0.1, 2: None}, {1: 0.5, 4: 0.8}) == (
        [0.1, None, 0.3, None],
        [0.5, None, None, 0.8],
    )


def test_differences_are_arm_less_baseline_over_complete_pairs():
    pairs = Pairs.of([0.5, 0.25, None, 0.5, NAN], [0.75, 0.125, 0.5, None, 0.5])
    assert pairs.differences().tolist() == [0.25, -0.125]


def test_missing_and_diverged_runs_are_counted_apart():
    pairs = Pairs.of(
        [0.9, None, NAN, INF, 0.9, 0.9, None],
        [0.8, 0.8, 0.8, -INF, NAN, None, NAN],
    )
    assert pairs.missing == 3
    assert (pairs.diverged_baseline, pairs.diverged_arm) == (2, 2)
    assert (pairs.only_baseline, pairs.only_arm) == (1, 1)
    assert len(pairs.differences()) == 1


def test_equal_differences_tie_though_float64_rounds_them_apart():
    baseline, arm = [0.91, 0.92, 0.2, 0.83], [0.92, 0.93, 0.21, 0.84]
    assert len({a - b for b, a in zip(baseline, arm, strict=True)}) > 1
    differences = Pairs.of(baseline, arm).differences()
    assert np.ptp(differences) == 0
    assert differences[0] == pytest.approx(0.01, rel=1e-9)


def test_rounding_keeps_twelve_digits_of_the_largest_value():
    rng = np.random.default_rng(0)
    for scale in (1e-30, 1.0, 1e30):
        b, a = scale * rng.normal(size=(2, 20))
        found = Pairs.of(b.tolist(), a.tolist()).differences()
        assert np.abs(found - (a - b)).max() <= 1e-12 * np.abs([b, a]).max()


def test_in_the_worst_case_a_diverged_run_has_the_worst_value_of_either_arm():
    baseline, arm = [0.75, 0.5, NAN, NAN, None], [NAN, 0.625, 0.875, NAN, NAN]
    pairs = Pairs.of(baseline, arm)
    assert pairs.worst_case("accuracy").tolist() == [0.5 - 0.75, 0.125, 0.875 - 0.5, 0.0]
    assert pairs.worst_case("loss").tolist() == [0.875 - 0.75, 0.125, 0.0, 0.0]


def test_there_is_no_worst_case_where_nothing_or_everything_diverged():
    assert Pairs.of([0.5, 0.5], [0.5, None]).worst_case("loss") is None
    assert Pairs.of([NAN, NAN], [NAN, INF]).worst_case("loss") is None
    assert Pairs.of([], []).worst_case("loss") is None


def test_sequences_of_other_lengths_are_refused():
    with pytest.raises(ConfigError, match=r"found 2 of the baseline and 3 of the arm.*align"):
        Pairs.of([1.0, 2.0], [1.0, 2.0, 3.0])


def test_higher_accuracy_and_lower_loss_are_better_and_nothing_else_is_known():
    assert direction("accuracy") == 1
    assert direction("loss") == -1
    with pytest.raises(ConfigError, match="'perplexity'"):
        direction("perplexity")
