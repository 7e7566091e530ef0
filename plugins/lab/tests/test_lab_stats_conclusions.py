"""What is concluded, in which words, at any number of seeds; and the paper's claims."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from qsgd_lab.stats.censored import Epochs, restricted_difference
from qsgd_lab.stats.claims import check_claim, claimed_difference
from qsgd_lab.stats.conclusions import conclude, conclude_epochs
from qsgd_lab.stats.paired import compare_arm, compare_arms
from qsgd_lab.stats.power import minimum_detectable_effect, seeds_needed

NAN = math.nan
# Ten differences of mean 0 and standard deviation 1 exactly.
SHAPE = np.array([-1.5, -1.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0, 1.5])
SHAPE = SHAPE / SHAPE.std(ddof=1)
BASELINE = 0.915 + 0.01 * np.cos(np.arange(10))


def arm(gain: float, sd: float) -> np.ndarray:
    """Accuracies whose differences have this mean and standard deviation."""
    return BASELINE + gain + sd * SHAPE


def concluded(baseline, values, *, metric="accuracy", arms=1):
    paired = compare_arm(list(baseline), list(values), metric=metric)
    return conclude("sine@0.5", paired, baseline="adamw", arms=arms)


def test_a_gain_of_the_papers_size_is_found_and_said_with_its_interval():
    found = concluded(BASELINE, arm(0.023, 0.01))
    # t_0.975 with 9 degrees of freedom is 2.262: ±2.262·1/√10 = ±0.715 points.
    assert found.verdict == "better"
    assert found.sentence == (
        "sine@0.5 is better than adamw: accuracy +2.3 points (95 % interval +1.58 to +3.02, "
        "paired t over 10 seeds, p < 0.0001)."
    )


def test_a_lower_accuracy_is_worse_and_a_lower_loss_is_better():
    assert concluded(BASELINE, arm(-0.023, 0.01)).verdict == "worse"
    lower = concluded(BASELINE, arm(-0.023, 0.01), metric="loss")
    assert lower.verdict == "better"
    assert "loss -0.023 (" in lower.sentence


def test_no_difference_says_what_would_have_been_found():
    found = concluded(BASELINE, arm(0.0005, 0.01))
    assert found.verdict == "no difference found"
    assert found.minimum_detectable_effect == pytest.approx(minimum_detectable_effect(10, 0.01))
    assert "one of 0.996 points or more would have been found in 80 %" in found.sentence
    assert "a smaller one cannot be ruled out" in found.sentence


def test_too_few_seeds_are_never_no_difference():
    found = concluded(BASELINE, arm(0.005, 0.03))
    assert found.verdict == "cannot tell"
    assert found.minimum_detectable_effect > 0.023
    assert found.seeds_needed == seeds_needed(0.023, 0.03) == 16
    assert "10 seeds are too few to tell" in found.sentence
    assert "one of 2.3 points, as the paper claims, needs about 16 seeds" in found.sentence


def test_the_number_of_arms_can_turn_a_finding_into_none():
    values = arm(0.009, 0.01)
    paired = compare_arm(list(BASELINE), list(values), metric="accuracy")
    assert 0.0125 < paired.p < 0.05
    assert conclude("a", paired, baseline="b", arms=1).verdict == "better"
    null = dict(enumerate(arm(0, 0.01)))
    arms = {"a": dict(enumerate(values)), "null1": null, "null2": null, "null3": null}
    family = compare_arms(dict(enumerate(BASELINE)), arms, metric="accuracy")
    found = conclude("a", family["a"], baseline="b", arms=4)
    assert found.verdict == "no difference found"
    assert "after Holm over 4 arms" in found.sentence
    assert found.minimum_detectable_effect == minimum_detectable_effect(10, family["a"].sd, arms=4)


def test_one_seed_concludes_nothing_and_says_what_is_missing():
    found = concluded([0.9], [0.95])
    assert found.verdict == "cannot tell"
    assert found.sentence == (
        "Nothing can be concluded about the accuracy of sine@0.5: one seed shows no spread, and a "
        "comparison with adamw needs 2 such seeds at least; run --seeds 10."
    )
    assert found.minimum_detectable_effect is None


def test_identical_runs_are_no_difference_only_where_one_could_have_shown():
    many = concluded(BASELINE, BASELINE, arms=4)
    assert many.verdict == "no difference found"
    assert "ended at exactly the accuracy of adamw at each of 10 seeds" in many.sentence
    few = concluded([0.9, 0.91, 0.92], [0.9, 0.91, 0.92], arms=4)
    assert few.verdict == "cannot tell"
    assert "from 3 seeds it finds nothing over 4 arms; run --seeds 10" in few.sentence


def test_the_same_gain_at_every_seed_is_found_from_six_seeds():
    assert concluded(BASELINE[:6], BASELINE[:6] + 0.01).verdict == "better"
    five = concluded(BASELINE[:5], BASELINE[:5] + 0.01)
    assert five.verdict == "cannot tell"
    assert "differs from adamw by +1 points at each of 5 seeds" in five.sentence


def test_a_gain_that_hangs_on_leaving_out_diverged_runs_is_no_finding():
    values = arm(0.023, 0.004)
    values[5:] = NAN
    found = concluded(BASELINE, values)
    assert compare_arm(BASELINE, values, metric="accuracy").p < 0.01
    assert found.verdict == "cannot tell"
    assert "the seeds where neither diverged show a difference" in found.sentence
    assert "5 of its runs diverged against 0 of adamw (McNemar p = 0.062)" in found.sentence
    assert "5 of 10 seeds were compared" in found.sentence


def test_a_loss_of_accuracy_stands_all_the_more_where_the_arm_diverged_too():
    values = arm(-0.02, 0.004)
    values[5:] = NAN
    found = concluded(BASELINE, values)
    assert found.verdict == "worse"
    assert "5 of its runs diverged" in found.sentence


def test_no_difference_that_hangs_on_diverged_runs_is_not_said():
    values = arm(0.0, 0.0001)
    values[BASELINE > 0.914] = NAN
    paired = compare_arm(BASELINE, values, metric="accuracy")
    assert paired.p > 0.05 > paired.worst_case.p
    found = concluded(BASELINE, values)
    assert found.verdict == "cannot tell"
    assert "show no difference" in found.sentence


def test_an_arm_whose_every_run_diverged_is_told_by_how_many_did():
    found = concluded(BASELINE, [NAN] * 10)
    assert found.verdict == "cannot tell"
    assert "10 of its runs diverged against 0 of adamw (McNemar p = 0.002)" in found.sentence
    assert "--seeds" not in found.sentence


def test_missing_runs_are_counted_in_the_sentence():
    found = concluded([None, *BASELINE[1:]], arm(0.023, 0.01))
    assert found.verdict == "better"
    assert found.sentence.endswith(" 9 of 10 seeds were compared: 1 seed lacks a run.")


def test_nulls_are_rarely_called_a_finding_and_conclusions_are_json():
    rng = np.random.default_rng(5)
    verdicts = []
    for _ in range(60):
        found = concluded(BASELINE, BASELINE + rng.normal(0, 0.01, size=10))
        json.dumps(asdict(found), allow_nan=False)
        verdicts.append(found.verdict)
    # Binomial(60, 0.05): mean 3, 4 sigma is 6.8 more.
    assert sum(v in {"better", "worse"} for v in verdicts) <= 9
    assert verdicts.count("no difference found") >= 45


def runs(*times: float, horizon: float = 10) -> Epochs:
    return Epochs(times, tuple(t < horizon for t in times), horizon)


def test_fewer_epochs_are_said_as_secondary_and_uncorrected():
    difference = restricted_difference(runs(*[8] * 9, 10), runs(*[5] * 10))
    assert conclude_epochs("a", difference, baseline="b", target="90 %") == (
        "a took 3.2 fewer epochs than b to 90 %: 5 against 8.2, runs that do not arrive counted as "
        "10 (secondary: exact sign flip over 10 seeds, p = 0.002, not corrected for the number of "
        "arms)."
    )


def test_epochs_that_do_not_differ_or_cannot_be_compared_are_said_so():
    same = restricted_difference(runs(5, 6, 7), runs(6, 5, 7))
    assert conclude_epochs("a", same, baseline="b", target="90 %").startswith(
        "No difference between a and b in epochs to 90 % was found"
    )
    one = restricted_difference(runs(5), runs(6))
    assert "from 1 seed nothing" in conclude_epochs("a", one, baseline="b", target="90 %")
    assert "no run did" in conclude_epochs("a", None, baseline="b", target="90 %")
    slower = restricted_difference(runs(*[4] * 8), runs(*range(5, 9), *range(5, 9)))
    assert "more epochs" in conclude_epochs("a", slower, baseline="b", target="90 %")


@pytest.mark.parametrize(
    "ci95, p, outcome",
    [
        ((0.018, 0.030), 0.001, "reproduced"),
        ((0.026, 0.040), 0.001, "reproduced"),  # more than claimed
        ((-0.006, 0.006), 0.9, "not reproduced"),
        ((0.002, 0.010), 0.01, "not reproduced"),  # an effect, but not of that size
        ((-0.05, -0.03), 0.001, "not reproduced"),
        ((-0.02, 0.06), 0.4, "cannot tell"),
        ((0.001, 0.05), 0.12, "cannot tell"),  # lost to Holm
        (None, None, "cannot tell"),
    ],
)
def test_a_claim_is_held_against_the_interval(ci95, p, outcome):
    assert check_claim(0.023, ci95=ci95, p=p) == outcome
    turned = None if ci95 is None else (-ci95[1], -ci95[0])
    assert check_claim(-0.023, ci95=turned, p=p) == outcome


def test_the_claims_are_the_papers_numbers():
    assert claimed_difference("accuracy", 0.8) == pytest.approx(0.938 - 0.915)
    assert 0.2188 + claimed_difference("loss", 0.2188) == pytest.approx(0.2097, abs=5e-5)
