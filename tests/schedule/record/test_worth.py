"""The skill score: shot noise taken off without bias, an interval that holds what it promises."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qsgd_core.schedule.courier.judge import judge
from qsgd_core.schedule.record.worth import FEWEST, LEVEL, skill, student_t

ROWS, SHOTS = 29, 256
"""A refresh of the benchmark: 29 blocks of four observables."""


def errors(
    rng: np.random.Generator, n: int, *, used: float, twin: float, shots: int = SHOTS
) -> tuple[list[float], list[float]]:
    """e_sq and twin_sq of n results with these RMS errors, from sampled bits, by the judge."""
    found = []
    for _ in range(n):
        truth = rng.uniform(-0.9, 0.9, (ROWS, 4))
        ones = rng.binomial(shots, (1 - truth) / 2)
        measured = 1 - 2 * ones / shots
        guesses = [truth + rng.normal(0, size, truth.shape) for size in (used, twin)]
        verdict = judge([measured], [guesses[0]], [guesses[1]], [np.arange(ROWS)], shots=shots)
        assert verdict.twin_sq is not None
        found.append((verdict.e_sq, verdict.twin_sq))
    e_sq, twin_sq = zip(*found, strict=True)
    return list(e_sq), list(twin_sq)


@pytest.mark.parametrize("shots", [2, 16, 256])
def test_shot_noise_is_taken_off_without_bias(shots):
    """The mean of many estimates of E² within 4 sigma of it, which is far below the noise."""
    size = 0.05
    e_sq, _ = errors(np.random.default_rng(shots), 400, used=size, twin=0.1, shots=shots)
    sigma = np.std(e_sq, ddof=1) / math.sqrt(len(e_sq))
    noise = (1 - 0.9**2 / 3) / shots  # mean of (1 - z²)/N, z uniform within ±0.9
    assert np.mean(e_sq) == pytest.approx(size**2, abs=4 * sigma)
    assert noise > 20 * sigma


@pytest.mark.parametrize("n", [5, 12, 25])
@pytest.mark.parametrize("used", [0.009, 0.03])
def test_the_interval_holds_the_truth_as_often_as_it_says(n, used):
    """95 % of 250 repetitions, within 3.5 binomial sigma (4.8 %), for gains and for losses."""
    rng = np.random.default_rng(n)
    twin, repetitions, hits = 0.022, 250, 0
    truth = 1 - used**2 / twin**2
    for _ in range(repetitions):
        found = skill(*errors(rng, n, used=used, twin=twin, shots=1024))
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    sigma = math.sqrt(LEVEL * (1 - LEVEL) / repetitions)
    assert hits / repetitions == pytest.approx(LEVEL, abs=3.5 * sigma)


@pytest.mark.parametrize(
    ("used", "twin", "verdict"),
    [(0.009, 0.022, "worth it"), (0.05, 0.022, "not worth it"), (0.022, 0.022, "cannot tell")],
)
def test_the_verdict_follows_the_interval(used, twin, verdict):
    found = skill(*errors(np.random.default_rng(1), 40, used=used, twin=twin))
    assert found.verdict == verdict


def test_results_that_agree_exactly_give_an_interval_of_no_width():
    found = skill([1e-4, 1.1e-4, 1e-4], [4e-4, 4.4e-4, 4e-4])
    assert (found.value, found.low, found.high) == pytest.approx((0.75, 0.75, 0.75))
    assert found.verdict == "worth it"


def test_a_common_factor_changes_nothing():
    e_sq, twin_sq = errors(np.random.default_rng(2), 10, used=0.009, twin=0.022)
    one = skill(e_sq, twin_sq)
    other = skill([9 * e for e in e_sq], [9 * t for t in twin_sq])
    assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))


@pytest.mark.parametrize("n", range(FEWEST))
def test_too_few_results_tell_nothing_and_say_why(n):
    found = skill([1e-4] * n, [4e-4] * n)
    assert (found.n, found.value, found.verdict) == (n, None, "cannot tell")
    assert found.reason is not None
    assert ("no result" if n == 0 else f"only {n} of at least {FEWEST}") in found.reason


def test_a_twin_whose_error_is_lost_in_shot_noise_gives_no_ratio():
    found = skill([1e-5, -2e-5, 1e-5, 2e-5], [3e-5, -4e-5, 2e-5, 1e-5])
    assert found.value is None
    assert found.reason is not None
    assert "shot noise" in found.reason
    assert found.twin_sq == pytest.approx(5e-6)


def test_an_error_estimated_below_zero_is_a_score_of_one_and_not_more():
    found = skill([-1e-5, -3e-5, -2e-5, -2e-5], [4e-4, 5e-4, 4e-4, 5e-4])
    assert found.e_sq is not None
    assert found.e_sq < 0
    assert (found.value, found.high, found.verdict) == (1.0, 1.0, "worth it")


def test_a_result_of_few_blocks_counts_for_as_little():
    e_sq, twin_sq = [1e-4, 1.2e-4, 1.1e-4, 9e-3], [4e-4, 4.1e-4, 3.9e-4, 4e-4]
    weighted = skill(e_sq, twin_sq, weights=[29, 29, 29, 1])
    total = [sum(w * x for w, x in zip((29, 29, 29, 1), xs, strict=True)) for xs in (e_sq, twin_sq)]
    assert weighted.value == pytest.approx(1 - total[0] / total[1])
    assert skill(e_sq, twin_sq).value == pytest.approx(1 - sum(e_sq) / sum(twin_sq))


@pytest.mark.parametrize("df", [2, 3, 5, 10, 30, 200])
def test_students_t_is_that_of_the_tables_to_a_percent(df):
    stats = pytest.importorskip("scipy.stats")
    assert student_t(df) == pytest.approx(stats.t.ppf(0.5 + LEVEL / 2, df), rel=0.01)
