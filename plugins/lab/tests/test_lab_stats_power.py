"""Power by the non-central t against published tables and a second way to compute it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qsgd_core.errors import ConfigError
from qsgd_lab.stats.power import minimum_detectable_effect, power_of, seeds_needed


@pytest.mark.parametrize("d, n", [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_cohens_effects_need_the_tabled_number_of_pairs(d, n):
    # G*Power, difference between two dependent means, two-sided, alpha 0.05, power 0.8.
    assert seeds_needed(d, 1.0) == n
    assert minimum_detectable_effect(n, 1.0) <= d < minimum_detectable_effect(n - 1, 1.0)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 34])
@pytest.mark.parametrize("arms", [1, 4, 12])
def test_the_detectable_effect_has_power_80_percent_by_integration_over_the_spread(n, arms):
    # Given sd/σ = v, t is normal: the power is the mean of normal tails over the χ of v.
    effect = minimum_detectable_effect(n, 3.0, arms=arms)
    v = np.sqrt(stats.chi2.ppf((np.arange(200_000) + 0.5) / 200_000, n - 1) / (n - 1))
    limit, shift = stats.t.isf(0.025 / arms, n - 1), effect * math.sqrt(n) / 3
    power = np.mean(stats.norm.sf(limit * v - shift) + stats.norm.cdf(-limit * v - shift))
    assert power == pytest.approx(0.8, abs=1e-5)


def test_without_an_effect_the_power_is_alpha():
    assert power_of(0.0, n=7, sd=1.0) == pytest.approx(0.05)
    assert power_of(0.0, n=7, sd=1.0, arms=5) == pytest.approx(0.01)


@settings(max_examples=40, derandomize=True)
@given(
    st.integers(2, 60), st.floats(1e-6, 1e6), st.integers(1, 20), st.sampled_from([0.5, 0.8, 0.95])
)
def test_the_detectable_effect_is_found_with_the_power_asked_for(n, sd, arms, power):
    effect = minimum_detectable_effect(n, sd, power=power, arms=arms)
    assert power_of(effect, n=n, sd=sd, arms=arms) == pytest.approx(power, abs=1e-6)
    assert power_of(-effect, n=n, sd=sd, arms=arms) == pytest.approx(power, abs=1e-6)
    assert effect == pytest.approx(sd * minimum_detectable_effect(n, 1.0, power=power, arms=arms))


@settings(max_examples=30, derandomize=True)
@given(st.floats(0.05, 20), st.integers(1, 12))
def test_the_seeds_needed_are_the_fewest_that_do(effect, arms):
    n = seeds_needed(effect, 1.0, arms=arms)
    assert power_of(effect, n=n, sd=1.0, arms=arms) >= 0.8
    assert n == 2 or power_of(effect, n=n - 1, sd=1.0, arms=arms) < 0.8


def test_more_arms_and_fewer_seeds_detect_less():
    by_arms = [minimum_detectable_effect(10, 1.0, arms=k) for k in (1, 2, 5, 20)]
    by_seeds = [minimum_detectable_effect(n, 1.0) for n in (2, 3, 5, 10, 100)]
    assert by_arms == sorted(by_arms)
    assert by_seeds == sorted(by_seeds, reverse=True)


def test_one_seed_detects_nothing_and_no_spread_everything():
    assert minimum_detectable_effect(1, 1.0) is None
    assert minimum_detectable_effect(0, 1.0) is None
    assert minimum_detectable_effect(3, 0.0) == 0.0
    assert seeds_needed(0.1, 0.0) == 2


def test_no_number_of_seeds_finds_an_effect_of_zero():
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.0, 0.0) is None
    assert seeds_needed(1e-4, 1.0) is None


@pytest.mark.parametrize(
    "wrong",
    [{"sd": -1.0}, {"sd": math.nan}, {"n": -1}, {"alpha": 0.0}, {"alpha": 1.0}, {"arms": 0}],
)
def test_values_that_cannot_be_are_refused_with_what_was_found(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        minimum_detectable_effect(**{"n": 10, "sd": 1.0, **wrong})


def test_a_power_below_alpha_and_power_without_pairs_are_refused():
    with pytest.raises(ConfigError, match=r"power=0\.05"):
        minimum_detectable_effect(10, 1.0, power=0.05)
    with pytest.raises(ConfigError, match="power=1"):
        minimum_detectable_effect(10, 1.0, power=1.0)
    with pytest.raises(ConfigError, match="n=1"):
        power_of(1.0, n=1, sd=1.0)
    with pytest.raises(ConfigError, match=r"sd=0\.0"):
        power_of(1.0, n=5, sd=0.0)
