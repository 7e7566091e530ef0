"""The primary analysis against textbook data, and over synthetic comparisons of known truth."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qsgd_core.errors import ConfigError
from qsgd_lab.stats.paired import compare_arm, compare_arms, holm, mean_se, paired_t
from qsgd_lab.stats.pairs import Pairs
from qsgd_lab.stats.power import power_of

# Student (1908), Biometrika 6, 1: hours of sleep won by ten patients with each of two drugs.
SLEEP = (
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)
PROPERTY = settings(max_examples=30, derandomize=True)
VALUES = st.lists(
    st.tuples(st.integers(-2000, 2000), st.integers(-2000, 2000)), min_size=2, max_size=9
)


def by_seed(values) -> dict[int, float | None]:
    return dict(enumerate(values))


def test_students_sleep_data_give_his_answer():
    found = compare_arm(*SLEEP, metric="loss")
    assert (found.n, found.test) == (10, "paired t")
    assert found.mean == pytest.approx(1.58)
    assert found.mean / found.se == pytest.approx(4.0621, abs=5e-5)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert found.ci95 == pytest.approx((0.7001142, 2.4598858), abs=5e-8)
    assert found.arm_mean - found.baseline_mean == pytest.approx(found.mean)


def test_holm_gives_the_answer_of_rs_p_adjust():
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.04, 0.01, 0.9, 0.02]) == pytest.approx([0.08, 0.04, 0.9, 0.06])
    assert holm([]) == []


def test_an_arm_without_a_p_still_counts_for_holm():
    assert holm([0.02, None]) == [0.04, None]
    assert holm([None]) == [None]


@PROPERTY
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_holm_decides_as_the_step_down_procedure_in_any_order(ps, random):
    adjusted = holm(ps)
    for alpha in (0.01, 0.05, 0.3):
        rejected = set()
        for step, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
            if (len(ps) - step) * ps[i] > alpha:
                break
            rejected.add(i)
        assert {i for i, p in enumerate(adjusted) if p <= alpha} == rejected
    order = list(range(len(ps)))
    random.shuffle(order)
    assert holm([ps[i] for i in order]) == [adjusted[i] for i in order]
    assert all(p <= a <= min(1.0, len(ps) * p) for p, a in zip(ps, adjusted, strict=True))


@PROPERTY
@given(VALUES)
def test_swapping_the_arms_turns_the_difference_round_and_keeps_p(pairs):
    baseline, arm = (np.array(side) / 1024 for side in zip(*pairs, strict=True))
    one = compare_arm(baseline, arm, metric="loss")
    other = compare_arm(arm, baseline, metric="loss")
    assert one.mean == -other.mean
    assert one.p == pytest.approx(other.p)
    assert one.secondary.sign_flip == other.secondary.sign_flip
    assert one.secondary.wilcoxon_p == pytest.approx(other.secondary.wilcoxon_p)
    if one.ci95 is not None:
        assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]))


@PROPERTY
@given(VALUES, st.integers(-50, 50), st.sampled_from([0.001, 0.3, 7.0, 1e6]))
def test_shift_leaves_the_difference_and_scale_only_scales_it(pairs, shift, scale):
    baseline, arm = (np.array(side) / 1024 for side in zip(*pairs, strict=True))
    one = compare_arm(baseline, arm, metric="loss")
    other = compare_arm(scale * (baseline + shift), scale * (arm + shift), metric="loss")
    assert other.test == one.test
    assert other.mean == pytest.approx(scale * one.mean, rel=1e-6, abs=1e-9 * scale)
    assert other.p == pytest.approx(one.p, rel=1e-6)
    assert other.secondary.sign_flip == one.secondary.sign_flip
    assert other.secondary.wilcoxon_p == pytest.approx(one.secondary.wilcoxon_p)


@PROPERTY
@given(VALUES)
def test_the_interval_holds_zero_just_when_p_is_over_five_percent(pairs):
    found = compare_arm(*zip(*pairs, strict=True), metric="loss")
    assume(found.ci95 is not None and abs(found.p - 0.05) > 1e-9)
    low, high = found.ci95
    assert (low <= 0 <= high) == (found.p > 0.05)


def test_one_thousand_null_comparisons_find_something_in_five_percent():
    # 4 arms that change nothing, 10 seeds; a seed's difficulty is shared by all arms and the
    # baseline's run by all differences. 3 sigma: 3·√(0.05·0.95/1000) = 0.021.
    rng = np.random.default_rng(20251)
    false = 0
    for _ in range(1000):
        difficulty = rng.normal(0.915, 0.02, size=10)
        runs = difficulty + rng.normal(0, 0.005, size=(5, 10))
        ps = [paired_t(Pairs.of(runs[0], arm).differences()).p for arm in runs[1:]]
        false += min(holm(ps)) < 0.05
    assert false / 1000 == pytest.approx(0.05, abs=0.021)


@pytest.mark.parametrize("arms", [1, 4])
def test_an_effect_of_the_papers_size_is_found_as_often_as_computed(arms):
    # 2.3 points, 10 seeds; Holm's first step over the arms. 3 sigma of 2,000 comparisons.
    n, sd, times = 10, 0.024, 2000
    rng = np.random.default_rng(arms)
    found = 0
    for _ in range(times):
        baseline = rng.normal(0.915, 0.02, size=n)
        arm = baseline + rng.normal(0.023, sd, size=n)
        found += paired_t(Pairs.of(baseline, arm).differences()).p * arms < 0.05
    power = power_of(0.023, n=n, sd=sd, arms=arms)
    assert 0.4 < power < 0.9
    assert found / times == pytest.approx(power, abs=3 * math.sqrt(power * (1 - power) / times))


def test_a_family_is_its_arms_compared_and_corrected_together():
    rng = np.random.default_rng(3)
    baseline, *arms = rng.normal(0.9, 0.01, size=(4, 8))
    arms[0] += 0.02
    named = {f"arm{i}": by_seed(arm) for i, arm in enumerate(arms)}
    found = compare_arms(by_seed(baseline), named, metric="accuracy")
    alone = [compare_arm(baseline, arm, metric="accuracy") for arm in arms]
    assert list(found) == ["arm0", "arm1", "arm2"]
    assert [f.p for f in found.values()] == [a.p for a in alone]
    assert [f.p_holm for f in found.values()] == holm([a.p for a in alone])
    assert found["arm0"].p_holm == pytest.approx(3 * found["arm0"].p)
    assert alone[0].p_holm == alone[0].p


def test_arms_with_other_seeds_are_compared_over_those_they_share():
    found = compare_arms(
        {0: 0.5, 1: 0.625, 2: 0.75}, {"arm": {1: 0.75, 2: 0.8125, 3: 0.1}}, metric="accuracy"
    )["arm"]
    assert (found.n, found.seeds, found.missing) == (2, 4, 2)
    assert found.mean == pytest.approx((0.125 + 0.0625) / 2)
    assert (found.baseline_mean, found.arm_mean) == (0.6875, 0.78125)


def test_one_seed_has_a_difference_and_nothing_else():
    found = compare_arm([0.5], [0.75], metric="accuracy")
    assert (found.n, found.mean) == (1, 0.25)
    assert (found.sd, found.se, found.ci95, found.p, found.p_holm, found.test) == (None,) * 6
    assert found.secondary.sign_flip is None


def test_no_seed_has_nothing():
    found = compare_arm([], [], metric="accuracy")
    assert (found.n, found.mean, found.baseline_mean, found.p) == (0, None, None, None)


def test_two_seeds_have_a_wide_interval():
    # t with 1 degree of freedom is Cauchy: t_0.975 = cot(0.025π) = 12.7062.
    found = compare_arm([0.0, 0.0], [1.0, 3.0], metric="loss")
    assert (found.mean, found.se) == (2.0, 1.0)
    assert found.ci95 == pytest.approx((2 - 1 / math.tan(0.025 * math.pi), 14.706205))
    assert found.p == pytest.approx(1 - 2 * math.atan(2) / math.pi)


def test_identical_arms_have_no_spread_and_p_one():
    values = [0.91, 0.92, 0.9, 0.93]
    found = compare_arm(values, values, metric="accuracy")
    assert (found.mean, found.sd, found.se, found.ci95) == (0.0, 0.0, 0.0, None)
    assert (found.p, found.test) == (1.0, "sign flip")


def test_the_same_gain_at_every_seed_is_no_proof_beyond_the_number_of_seeds():
    # t would be infinite and p = 0; of 2^10 sign patterns 2 are as extreme.
    baseline = [0.9 + k / 1000 for k in range(10)]
    found = compare_arm(baseline, [b + 0.01 for b in baseline], metric="accuracy")
    assert (found.test, found.p, found.se, found.ci95) == ("sign flip", 2 / 2**10, 0.0, None)


def test_a_diverged_arm_is_counted_and_put_back_in_the_worst_case():
    baseline = [0.90, 0.91, 0.92, 0.93, 0.94, 0.95, 0.96]
    arm = [0.93, 0.93, 0.95, 0.97, math.nan, math.inf, None]
    found = compare_arm(baseline, arm, metric="accuracy")
    assert (found.n, found.seeds, found.missing) == (4, 7, 1)
    assert (found.diverged_arm, found.diverged_baseline) == (2, 0)
    assert found.divergence_p == 0.5  # of 2 coins, 2 · 2^-2
    assert found.mean == pytest.approx(0.03)
    assert found.worst_case.n == 6
    assert found.worst_case.mean == pytest.approx((0.03 + 0.02 + 0.03 + 0.04 - 0.04 - 0.05) / 6)


def test_ten_diverged_runs_against_none_are_told_by_the_exact_mcnemar_test():
    found = compare_arm([0.9] * 10, [math.nan] * 10, metric="accuracy")
    assert (found.n, found.mean, found.p) == (0, None, None)
    assert found.divergence_p == 2 / 2**10
    both = compare_arm([math.nan] * 3, [math.nan] * 3, metric="accuracy")
    assert (both.divergence_p, both.worst_case) == (1.0, None)


def test_records_are_json_without_nan_at_any_number_of_seeds():
    rng = np.random.default_rng(1)
    for n in (0, 1, 2, 3, 6, 21):
        baseline = [*rng.normal(size=n), math.nan]
        for arm in (baseline, [*rng.normal(size=n), 0.0], [math.inf] * (n + 1), [None] * (n + 1)):
            found = asdict(compare_arm(baseline, arm, metric="loss"))
            assert json.loads(json.dumps(found, allow_nan=False))["seeds"] == n + 1


def test_an_arms_mean_leaves_out_what_has_no_value():
    found = mean_se([1.0, 2.0, None, 6.0, math.nan, math.inf])
    assert (found.n, found.mean) == (3, 3.0)
    assert found.se == pytest.approx(math.sqrt(7 / 3))
    assert (mean_se([2.0]).mean, mean_se([2.0]).se) == (2.0, None)
    assert mean_se([None]).mean is None


def test_another_metric_is_refused_before_anything_is_computed():
    with pytest.raises(ConfigError, match="'f1'"):
        compare_arm([1.0, 2.0], [1.0, 3.0], metric="f1")
