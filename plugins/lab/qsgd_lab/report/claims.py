"""The paper's claims, each beside what the arm of its settings did here.

A claim is held against an arm only if the arm is the paper's: AdamW, the term added per tensor to
the update, four qubits, as the sine or as the circuit of depth 2, at the claim's λ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from qsgd_lab.compare.plan import ArmPlan
from qsgd_lab.compare.table import ArmResult, Comparison
from qsgd_lab.compare.text import NONE, between, with_error
from qsgd_lab.report.backstage import Backstage
from qsgd_lab.report.verdicts import gained_too
from qsgd_lab.stats.censored import Epochs
from qsgd_lab.stats.claims import (
    ACCURACY_GAIN,
    EPOCHS_CUT,
    LOSS_CUT,
    LOSS_CUT_WEAK,
    LOSS_MODEL,
    Outcome,
    check_claim,
)
from qsgd_lab.stats.paired import paired_t
from qsgd_lab.stats.pairs import Metric

EPOCH_TIME = 0.35
"""The paper's simulation makes an epoch longer by this share."""
TOTAL_TIME = -0.16
"""And yet 90 % are reached in less time, by this share."""
TEXT_TASKS = ("sequences", "sequences-quantum")
"""Ours that stand for the paper's text task."""
UNCORRECTED = "secondary: not corrected for the number of arms"
TOO_EARLY = "runs arrive so early or so late that whole epochs cannot show the claim"

Verdict: TypeAlias = Outcome | Literal["not tested"]
BySeed: TypeAlias = Mapping[int, float]


@dataclass(frozen=True)
class Beside:
    """One claim and what became of it.

    Attributes:
        claim: what the paper says something about.
        paper: what it says.
        arm: that it was held against; None if there is none.
        here: the same, here.
        interval: 95 %, of what is here.
        verdict: by :func:`~qsgd_lab.stats.claims.check_claim`, or ``not tested``.
        same_task: whether the task here is, or stands for, the one that the claim is about.
        notes: what must be known to believe it, each a clause.
    """

    claim: str
    paper: str
    arm: str | None = None
    here: str = NONE
    interval: str = NONE
    verdict: Verdict = "not tested"
    same_task: bool = True
    notes: tuple[str, ...] = ()


def beside(comparison: Comparison, backstage: Backstage) -> list[Beside]:
    """Every claim, once for each arm that it is about."""
    return [
        *_accuracy(comparison),
        *_epochs(comparison),
        *_time(comparison, backstage.epoch_s),
        *_total_time(comparison, backstage.epoch_s),
        *_loss(comparison, 0.1, LOSS_CUT_WEAK),
        *_loss(comparison, 0.5, LOSS_CUT),
    ]


def _accuracy(comparison: Comparison) -> Iterator[Beside]:
    claim = Beside(f"accuracy, {_at(0.5)}", f"+{100 * ACCURACY_GAIN:.1f} points")
    arms, why = _arms(comparison, 0.5, "accuracy")
    if why:
        yield replace(claim, notes=(why,))
    for arm in arms:
        verdict, here, interval = _primary(arm, ACCURACY_GAIN)
        found = replace(claim, arm=arm.name, here=here, interval=interval, verdict=verdict)
        yield _of_task(_of_controls(found, arm, comparison), comparison, TEXT_TASKS)


def _loss(comparison: Comparison, weight: float, cut: float) -> Iterator[Beside]:
    claim = Beside(f"GSM8K loss, {_at(weight)}", f"-{100 * cut:.2f} %")
    arms, why = _arms(comparison, weight, "loss")
    if why:
        yield replace(claim, notes=(why,))
    for arm in arms:
        base = None if arm.paired is None else arm.paired.baseline_mean
        mean = None if arm.paired is None else arm.paired.mean
        found = replace(claim, arm=arm.name, verdict="cannot tell")
        if base and mean is not None:
            verdict, here, interval = _primary(arm, -cut * abs(base))
            here = f"{100 * mean / abs(base):+.2f} % ({here})"
            found = replace(found, here=here, interval=interval, verdict=verdict)
        found = _of_whole_run(_of_controls(found, arm, comparison), comparison)
        yield _of_task(found, comparison, ("gsm8k",))


def _epochs(comparison: Comparison) -> Iterator[Beside]:
    claim = Beside(f"epochs to 90\u00a0%, {_at(0.5)}", f"-{100 * EPOCHS_CUT:.1f} %")
    arms, why = _arms_to_target(comparison)
    if why:
        yield replace(claim, notes=(why,))
    for arm in arms:
        found = _arrival(claim, arm, comparison.arms[comparison.plan.baseline])
        yield _of_target(found, comparison)


def _arrival(claim: Beside, arm: ArmResult, baseline: ArmResult) -> Beside:
    claim = replace(claim, arm=arm.name, verdict="cannot tell")
    found = arm.epochs_difference
    if found is None or baseline.epochs is None or arm.epochs is None:
        return replace(claim, notes=("no run of either arm arrived, or no seed has both",))
    least = least_cut(baseline.epochs, arm.epochs)
    p = None if found.sign_flip is None else found.sign_flip.p
    ends = found.ci95
    return replace(
        claim,
        here=f"{100 * found.mean / found.baseline_mean:+.0f} % ({found.mean:+.2f} epochs)",
        interval=NONE if ends is None else f"{ends[0]:+.2f} to {ends[1]:+.2f} epochs",
        verdict=check_claim(-least, ci95=ends, p=p) if least else "cannot tell",
        notes=(UNCORRECTED,) if least else (TOO_EARLY,),
    )


def least_cut(baseline: Epochs, arm: Epochs) -> float:
    """The smallest difference of restricted means, in epochs, that the paper's cut could show as.

    Arrival is seen at whole epochs: a run that takes t epochs would take 0.622 t at most, which is
    seen as the next whole number. A baseline run that never arrives shows no cut for certain. So
    an interval that falls short of this is against the claim, whatever lies between the epochs
    and past the horizon.

    Args:
        baseline: one entry a seed.
        arm: the same seeds; as in the difference, seeds do not count of which a run is missing or
            was cut short.
    """
    cuts = [
        t - math.ceil(round((1 - EPOCHS_CUT) * t, 9)) if arrived else 0.0
        for t, arrived, whole, other in zip(
            baseline.times, baseline.reached, _watched(baseline), _watched(arm), strict=True
        )
        if t is not None and whole and other
    ]
    return sum(cuts) / len(cuts) if cuts else 0.0


def _watched(epochs: Epochs) -> list[bool]:
    """Which runs arrived or were watched to the horizon."""
    return [
        time is not None and (arrived or time == epochs.horizon)
        for time, arrived in zip(epochs.times, epochs.reached, strict=True)
    ]


def _time(comparison: Comparison, epoch_s: Mapping[str, BySeed]) -> Iterator[Beside]:
    claim = Beside(f"time per epoch, {_at(0.5)}", f"+{100 * EPOCH_TIME:.0f} %")
    arms, why = _arms(comparison, 0.5, comparison.plan.metric)
    if why:
        yield replace(claim, notes=(why,))
    base = epoch_s.get(comparison.plan.baseline, {})
    for arm in arms:
        found = replace(claim, arm=arm.name, notes=(_clock(comparison, arm), UNCORRECTED))
        yield _ratio(found, EPOCH_TIME, base, epoch_s.get(arm.name, {}))


def _total_time(comparison: Comparison, epoch_s: Mapping[str, BySeed]) -> Iterator[Beside]:
    plan = comparison.plan
    claim = Beside(f"time to 90\u00a0%, {_at(0.5)}", f"{100 * TOTAL_TIME:.0f} %")
    arms, why = _arms_to_target(comparison)
    if why:
        yield replace(claim, notes=(why,))
    baseline = comparison.arms[plan.baseline]
    base = _arrival_s(baseline, epoch_s, plan.seeds)
    for arm in arms:
        mine = _arrival_s(arm, epoch_s, plan.seeds)
        found = _ratio(replace(claim, arm=arm.name), TOTAL_TIME, base, mine)
        open_for: list[str] = []
        both = len(base.keys() & mine.keys())
        if both < len(plan.seeds):
            open_for.append(f"of the {both} of {len(plan.seeds)} seeds where both arrived")
        epochs = baseline.epochs, arm.epochs
        if epochs[0] is None or epochs[1] is None or not least_cut(epochs[0], epochs[1]):
            open_for.append(TOO_EARLY)
        if open_for:
            found = replace(found, verdict="cannot tell")
        notes = (*open_for, _clock(comparison, arm), UNCORRECTED)
        yield _of_target(replace(found, notes=notes), comparison)


def _arrival_s(
    arm: ArmResult, epoch_s: Mapping[str, BySeed], seeds: Sequence[int]
) -> dict[int, float]:
    """Seconds until the run of a seed reached the target; nothing for one that did not."""
    if arm.epochs is None:
        return {}
    each = epoch_s.get(arm.name, {})
    return {
        seed: time * each[seed]
        for seed, time, arrived in zip(seeds, arm.epochs.times, arm.epochs.reached, strict=True)
        if arrived and time is not None and seed in each
    }


def _ratio(claim: Beside, claimed: float, base: BySeed, mine: BySeed) -> Beside:
    """Hold a claimed change, as a share, against the ratios of the seeds that both have."""
    pairs = [(base[seed], mine[seed]) for seed in sorted(base.keys() & mine.keys())]
    ratios = [math.log(b / a) for a, b in pairs if a and b]
    found = paired_t(np.array(ratios, dtype=np.float64))
    ends = found.ci95
    return replace(
        claim,
        here=NONE if found.mean is None else f"{_percent(found.mean)} %",
        interval=NONE if ends is None else f"{_percent(ends[0])} to {_percent(ends[1])} %",
        verdict=check_claim(math.log1p(claimed), ci95=ends, p=found.p),
    )


def _clock(comparison: Comparison, arm: ArmResult) -> str:
    backend = comparison.plan.arm(arm.name).config["backend"]
    return (
        f"wall time on this machine under its load, with the backend {backend}, where the "
        "paper simulated every circuit; geometric mean over seeds"
    )


def _at(weight: float) -> str:
    """``λ = 0.5``, never broken over two lines."""
    return f"λ\u00a0=\u00a0{weight:g}"


def _percent(log_ratio: float) -> str:
    return f"{100 * math.expm1(log_ratio):+.0f}"


def _primary(arm: ArmResult, claimed: float) -> tuple[Verdict, str, str]:
    """Verdict, difference and interval by the primary analysis.

    A verdict stands only if it is the same with diverged runs at the worst value.
    """
    paired = arm.paired
    if paired is None:
        return "cannot tell", NONE, NONE
    verdict: Verdict = check_claim(claimed, ci95=paired.ci95, p=paired.p_holm)
    worst = paired.worst_case
    if worst is not None and check_claim(claimed, ci95=worst.ci95, p=worst.p) != verdict:
        verdict = "cannot tell"
    unit = " points" if paired.metric == "accuracy" else ""
    here = with_error(paired.mean, paired.se, paired.metric, signed=True) + unit
    return verdict, here, between(paired.ci95, paired.metric)


def _arms(
    comparison: Comparison, weight: float, metric: Metric
) -> tuple[list[ArmResult], str | None]:
    """The arms that a claim is about, or why there is none."""
    plan = comparison.plan
    if plan.metric != metric:
        return [], f"about another task; {plan.task} is compared by {plan.metric}"
    found = [comparison.arms[arm.name] for arm in plan.others if is_papers(arm, weight)]
    why = f"no arm has the paper’s settings; sine@{weight:g} and circuit@{weight:g} do"
    return found, None if found else why


def _arms_to_target(comparison: Comparison) -> tuple[list[ArmResult], str | None]:
    """The arms that a claim about the way to 90 % is about, or why there is none."""
    arms, why = _arms(comparison, 0.5, "accuracy")
    if why is None and comparison.plan.target is None:
        return [], "no target was set"
    return arms, why


def is_papers(arm: ArmPlan, weight: float) -> bool:
    """Whether an arm is the paper's at this λ."""
    config = arm.config
    asked = ("optimizer", "quantum_weight", "n_qubits", "scope", "inject", "normalize")
    if not arm.term or arm.control or config["perturbation_options"]:
        return False
    if tuple(config[name] for name in asked) != ("adamw", weight, 4, "tensor", "update", None):
        return False
    circuit = (config["perturbation"], config["depth"])
    return config["perturbation"] == "sine" or circuit == ("circuit", 2)


def _of_controls(found: Beside, arm: ArmResult, comparison: Comparison) -> Beside:
    """Says so where what the arm gained is not the quantum term's."""
    same = gained_too(arm, comparison)
    if not same:
        return found
    note = f"{', '.join(same)}, which measures nothing, was found better too"
    return replace(found, notes=(*found.notes, note))


def _of_whole_run(found: Beside, comparison: Comparison) -> Beside:
    """Leaves it open where less was trained than the fine-tuning that the claim is about."""
    plan = comparison.plan
    if plan.task != "gsm8k":
        return found
    model = plan.identity_of_task.get("model", "another model")
    steps = plan.arms[0].config["max_steps"]
    if model == LOSS_MODEL and steps is None and plan.epochs == 1:
        return found
    epochs = "one epoch" if plan.epochs == 1 else f"{plan.epochs} epochs"
    what = epochs if steps is None else f"{steps} steps"
    note = f"the claim is about one epoch of {LOSS_MODEL}; this is {what} of {model}"
    return replace(found, verdict="cannot tell", notes=(note, *found.notes))


def _of_task(found: Beside, comparison: Comparison, tasks: tuple[str, ...]) -> Beside:
    """Says so where the claim is about another task than this."""
    task = comparison.plan.task
    if task in tasks:
        return found
    note = f"the claim is about another task than {task}, and holds or falls with that"
    return replace(found, same_task=False, notes=(note, *found.notes))


def _of_target(found: Beside, comparison: Comparison) -> Beside:
    """Says so where the target here is not the paper's, or the task is another."""
    target = comparison.plan.target
    if target is not None and target != 0.9:
        found = replace(found, notes=(*found.notes, f"the target here is {100 * target:g} %"))
    return _of_task(found, comparison, TEXT_TASKS)
