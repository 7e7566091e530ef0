"""The secondary tests against textbook data and against counting by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qsgd_lab.stats.secondary import EXACT_FLIPS, secondary, sign_flip

# Darwin's maize, crossed less self-fertilised, in eighths of an inch (Fisher, The Design of
# Experiments, 1935, §17 and §21).
MAIZE = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48], dtype=float)


def test_darwins_maize_gives_fishers_count_of_863_in_32768():
    found = sign_flip(MAIZE, seed=0)
    assert found.exact
    assert found.p == 2 * 863 / 2**15


@settings(max_examples=40, derandomize=True)
@given(st.lists(st.integers(-6, 6), min_size=2, max_size=8))
def test_the_sign_flip_counts_all_patterns_with_ties_and_zeros(values):
    sums = [
        sum(s * v for s, v in zip(signs, values, strict=True))
        for signs in product((1, -1), repeat=len(values))
    ]
    tail = min(sum(s >= sum(values) for s in sums), sum(s <= sum(values) for s in sums))
    expected = min(1.0, 2 * tail / len(sums))
    assert sign_flip(np.array(values, dtype=float), seed=0).p == expected


def test_beyond_sixteen_seeds_patterns_are_drawn_and_it_is_said():
    # 17 differences of one sign: all but certainly no drawn pattern is as extreme (each is with
    # probability 2^-17), so p counts little more than the pattern seen; 6 hits have p < 1e-5.
    found = sign_flip(np.ones(17), seed=0)
    assert not found.exact
    assert 2 / (EXACT_FLIPS + 1) <= found.p < 14 / (EXACT_FLIPS + 1)
    assert sign_flip(np.ones(16), seed=0).exact


def test_a_drawn_p_is_near_the_exact_one_and_repeats_with_its_seed():
    # Sums of ±1 over 20: P(S ≥ 8) = P(Binomial(20, 1/2) ≥ 14). 5 sigma of 65,536 draws.
    values = np.array([1.0] * 14 + [-1.0] * 6)
    exact = 2 * stats.binom.sf(13, 20, 0.5)
    found = sign_flip(values, seed=4)
    assert found.p == pytest.approx(exact, abs=2 * 5 * np.sqrt(exact / 2 / EXACT_FLIPS))
    assert found == sign_flip(values, seed=4)
    assert found != sign_flip(values, seed=5)


def test_wilcoxon_starts_at_six_seeds_where_it_can_first_find_something():
    assert secondary(np.arange(1.0, 6.0), seed=0).wilcoxon_p is None
    assert secondary(np.arange(1.0, 7.0), seed=0).wilcoxon_p == 2 / 2**6


def test_wilcoxon_gives_the_tabled_value_for_darwins_maize():
    # W- = 24: the ranks of 67 and 48. R: wilcox.test gives V = 96, p = 0.04126.
    assert secondary(MAIZE, seed=0).wilcoxon_p == pytest.approx(0.04126, abs=5e-6)


@pytest.mark.parametrize("n", [6, 14, 30])
def test_wilcoxon_of_identical_arms_is_one(n):
    assert secondary(np.zeros(n), seed=0).wilcoxon_p == 1.0


@pytest.mark.parametrize("n", [8, 16])
def test_wilcoxon_with_zeros_and_ties_is_a_probability_without_a_warning(n, recwarn):
    values = np.array([0.0, 1.0, 1.0, -1.0, 2.0, 2.0, 3.0, 0.0] * (n // 8))
    assert 0 < secondary(values, seed=0).wilcoxon_p < 1
    assert not recwarn.list


def test_bca_starts_at_twenty_seeds_and_needs_a_spread():
    values = np.random.default_rng(0).normal(size=20)
    assert secondary(values[:19], seed=0).bca95 is None
    assert secondary(values, seed=0).bca95 is not None
    assert secondary(np.ones(20), seed=0).bca95 is None


def test_bca_of_many_normal_differences_is_the_normal_interval():
    # Each end is a quantile of 9,999 bootstrap means, standard error √(0.025·0.975/9999)/0.058 se
    # = 0.027 se, moved by the sample's skewness (-0.40) times (2·1.96² + 1)/(6·√100) = 0.06 se.
    # 5 sigma and that: 0.20 se.
    values = np.random.default_rng(1).normal(size=100)
    se = stats.sem(values)
    low, high = secondary(values, seed=0).bca95
    assert low == pytest.approx(values.mean() - 1.96 * se, abs=0.20 * se)
    assert high == pytest.approx(values.mean() + 1.96 * se, abs=0.20 * se)


def test_bca_leans_to_the_long_tail_where_the_t_interval_cannot():
    values = np.random.default_rng(2).exponential(size=40)
    low, high = secondary(values, seed=0).bca95
    assert high - values.mean() > 1.1 * (values.mean() - low)
