"""From a comparison's folder to its result: what ``--json`` prints, and what stands behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qsgd_core.files import not_finite
from qsgd_core.training.code import edited_since
from qsgd_core.training.folder.folder import RunFolder, read_record
from qsgd_core.training.folder.summary import effect_size_of
from qsgd_core.training.loop.rate import describe, varies
from qsgd_lab.compare import witness
from qsgd_lab.compare.plan import RUNS, ArmPlan, ComparisonPlan
from qsgd_lab.compare.runs import RunOutcome, outcome
from qsgd_lab.stats.censored import (
    Epochs,
    LogRank,
    RestrictedDifference,
    Survival,
    log_rank,
    restricted_difference,
    survival,
)
from qsgd_lab.stats.conclusions import Conclusion, conclude, conclude_epochs
from qsgd_lab.stats.paired import MeanSE, Paired, compare_arms, mean_se
from qsgd_lab.stats.pairs import Metric


@dataclass(frozen=True)
class FailedRun:
    """A run without a result."""

    arm: str
    seed: int
    error: str


@dataclass(frozen=True)
class ArmResult:
    """What became of one arm.

    Attributes:
        name: of the arm.
        control: whether it is a classical rule.
        match: arm that it takes its strength from; None for most.
        accuracy: over the runs that ended with one.
        loss: the same.
        train_loss: mean over the batches of the last epoch, over the runs that ended.
        paired: against the baseline, in the primary metric; None for the baseline.
        conclusion: of that; None for the baseline.
        epochs: to the target, a seed each; None without a target.
        survival: of that.
        epochs_difference: paired difference of restricted means; None where no run arrives.
        epochs_log_rank: describes only.
        epochs_sentence: what can be said of it; None without a target and for the baseline.
        effect_size: mean over runs of the run's mean; NaN if none is finite, None if none is
            known or there is no run.
        wall_s: mean over runs; None without a run.
        curves: by seed, the primary metric after each epoch.
        effect_curves: by seed, the mean effect size of each epoch.
    """

    name: str
    control: bool
    match: str | None
    accuracy: MeanSE
    loss: MeanSE
    train_loss: MeanSE
    paired: Paired | None
    conclusion: Conclusion | None
    epochs: Epochs | None
    survival: Survival | None
    epochs_difference: RestrictedDifference | None
    epochs_log_rank: LogRank | None
    epochs_sentence: str | None
    effect_size: float | None
    wall_s: float | None
    curves: dict[int, tuple[float | None, ...]]
    effect_curves: dict[int, tuple[float | None, ...]]


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        folder: where it is.
        plan: what was fixed before.
        arms: by name, the baseline first.
        minimum_detectable_effect: the largest of the arms': a difference of that size would have
            been found for any of them in 80 % of such comparisons. None from fewer than 2 seeds.
        failures: runs without a result.
        notes: what a reader must know before believing any of it.
        setting: what was trained how, as the task says it.
    """

    folder: Path
    plan: ComparisonPlan
    arms: dict[str, ArmResult]
    minimum_detectable_effect: float | None
    failures: tuple[FailedRun, ...]
    notes: tuple[str, ...]
    setting: tuple[str, ...] = ()

    def to_dict(self, report: Path) -> dict[str, Any]:
        """The JSON object of the contract."""
        found = {
            "task": self.plan.task,
            "baseline": self.plan.baseline,
            "seeds": len(self.plan.seeds),
            "arms": {name: self._arm(arm) for name, arm in self.arms.items()},
            "minimum_detectable_effect": self.minimum_detectable_effect,
            "report": str(report),
        }
        lost = not_finite(found)
        return found | ({"not_finite": lost} if lost else {})

    def _arm(self, arm: ArmResult) -> dict[str, Any]:
        keys = ("mean", "se", "ci95", "p", "p_holm")
        paired = {key: None if arm.paired is None else getattr(arm.paired, key) for key in keys}
        return {
            "accuracy": {"mean": arm.accuracy.mean, "se": arm.accuracy.se},
            "loss": {"mean": arm.loss.mean, "se": arm.loss.se},
            "paired_difference": {"metric": self.plan.metric, **paired},
            "epochs_to_target": {
                "target": self.plan.target,
                "median": None if arm.survival is None else arm.survival.median,
                "reached": 0 if arm.epochs is None else arm.epochs.n_reached,
                "of": len(arm.curves) if arm.epochs is None else arm.epochs.n_runs,
            },
            "effect_size": {"mean": arm.effect_size},
            "wall_s": {"mean": arm.wall_s},
        }


def read_comparison(folder: Path, plan: ComparisonPlan) -> Comparison:
    """The result so far: runs that are not finished count as missing."""
    found = {
        arm.name: {seed: outcome(folder, plan.key(arm.name, seed)) for seed in plan.seeds}
        for arm in plan.arms
    }
    finals = {name: _finals(runs, plan.metric) for name, runs in found.items()}
    others = {arm.name: finals[arm.name] for arm in plan.others}
    paired = compare_arms(finals[plan.baseline], others, metric=plan.metric)
    conclusions = {
        name: conclude(name, p, baseline=plan.baseline, arms=len(others))
        for name, p in paired.items()
    }
    epochs = _epochs(plan, found)
    arms = {
        arm.name: _arm_result(plan, arm, found[arm.name], paired, conclusions, epochs)
        for arm in sorted(plan.arms, key=lambda arm: arm.name != plan.baseline)
    }
    sizes = [c.minimum_detectable_effect for c in conclusions.values()]
    known = [size for size in sizes if size is not None]
    return Comparison(
        folder=folder,
        plan=plan,
        arms=arms,
        minimum_detectable_effect=max(known, default=None),
        failures=tuple(
            FailedRun(name, seed, run.error)
            for name, runs in found.items()
            for seed, run in runs.items()
            if run.error is not None
        ),
        notes=tuple(_notes(folder, plan)),
        setting=(*plan.notes, *_every_step(folder, plan)),
    )


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Everything about a comparison as plain JSON values, for comparison.json."""
    data = asdict(comparison)
    return data | {"folder": str(comparison.folder)}


def _arm_result(
    plan: ComparisonPlan,
    arm: ArmPlan,
    runs: Mapping[int, RunOutcome],
    paired: Mapping[str, Paired],
    conclusions: Mapping[str, Conclusion],
    epochs: Mapping[str, Epochs],
) -> ArmResult:
    mine, base = epochs.get(arm.name), epochs.get(plan.baseline)
    difference = tested = sentence = None
    if mine is not None and base is not None and arm.name != plan.baseline:
        difference = restricted_difference(base, mine)
        tested = log_rank(base, mine)
        sentence = conclude_epochs(
            arm.name, difference, baseline=plan.baseline, target=say_target(plan)
        )
    summaries = [run.summary for run in runs.values() if run.summary is not None]
    return ArmResult(
        name=arm.name,
        control=arm.control,
        match=arm.match,
        accuracy=mean_se(list(_finals(runs, "accuracy").values())),
        loss=mean_se(list(_finals(runs, "loss").values())),
        train_loss=mean_se([run.rows[-1]["train_loss"] for run in runs.values() if run.rows]),
        paired=paired.get(arm.name),
        conclusion=conclusions.get(arm.name),
        epochs=mine,
        survival=None if mine is None else survival(mine),
        epochs_difference=difference,
        epochs_log_rank=tested,
        epochs_sentence=sentence,
        effect_size=_effect([(effect_size_of(s) or {}).get("mean") for s in summaries]),
        wall_s=_mean([s["wall_s"] for s in summaries]),
        curves={seed: _curve(run, plan.metric) for seed, run in runs.items() if run.rows},
        effect_curves={
            seed: tuple(row["effect_size"] for row in run.rows)
            for seed, run in runs.items()
            if run.rows
        },
    )


def say_target(plan: ComparisonPlan) -> str:
    """As people read it: ``accuracy 90 %``, ``loss 0.5``."""
    value = plan.target or 0.0
    return f"accuracy {100 * value:g} %" if plan.metric == "accuracy" else f"loss {value:g}"


def _finals(runs: Mapping[int, RunOutcome], metric: Metric) -> dict[int, float | None]:
    """Final values by seed: None where there is no result, NaN where the run diverged."""
    return {
        seed: _value(run.rows[-1], metric) if run.state == "finished" and run.rows else None
        for seed, run in runs.items()
    }


def _curve(run: RunOutcome, metric: Metric) -> tuple[float | None, ...]:
    return tuple(_value(row, metric) for row in run.rows)


def _value(row: Mapping[str, Any], metric: Metric) -> float | None:
    """A metric of one epoch; NaN once the loss is not finite, as argmax still picks a class then.

    metrics.jsonl has null for what is not finite.
    """
    if row["train_loss"] is None or row.get("loss", 0.0) is None:
        return math.nan
    if metric == "loss":
        return float(row.get("loss", row["train_loss"]))
    if "accuracy" not in row:
        return None
    return math.nan if row["accuracy"] is None else float(row["accuracy"])


def _epochs(
    plan: ComparisonPlan, found: Mapping[str, Mapping[int, RunOutcome]]
) -> dict[str, Epochs]:
    """Epochs to the target by arm; empty without a target."""
    if plan.target is None:
        return {}
    curves = {
        name: [_curve(run, plan.metric) if run.rows else None for run in runs.values()]
        for name, runs in found.items()
    }
    given = [len(curve) for some in curves.values() for curve in some if curve is not None]
    horizon = max(given, default=plan.epochs)
    return {
        name: Epochs.from_curves(some, target=plan.target, metric=plan.metric, horizon=horizon)
        for name, some in curves.items()
    }


def _notes(folder: Path, plan: ComparisonPlan) -> list[str]:
    notes = _code(folder, plan)
    for seed in plan.seeds:
        seen = {
            arm.name: witness.read(folder / RUNS / plan.key(arm.name, seed).name)
            for arm in plan.arms
        }
        if differ := witness.unpaired(seen):
            notes.append(
                f"Seed {seed} is not paired: {', '.join(differ)} did not start from the weights, "
                "batches and random states of the other arms. The task draws from a generator that "
                "its seed does not set; differences are noisier for it."
            )
    return notes


def _code(folder: Path, plan: ComparisonPlan) -> list[str]:
    """What of the task's code is not what runs were trained with."""
    runs = [RunFolder(folder / RUNS / key.name) for key in plan.every_run()]
    edited = {
        file
        for run in runs
        if run.config.exists()
        for file in edited_since(read_record(run).code, plan.source)
    }
    return [
        f"{file} was changed while or since runs were trained: not all of them have the code that "
        "is there now. Compare in a new folder (--out) for runs that do."
        for file in sorted(edited)
    ]


def _every_step(folder: Path, plan: ComparisonPlan) -> list[str]:
    """What a step of any run gets, where that is more than one learning rate."""
    done = (RunFolder(folder / RUNS / key.name) for key in plan.every_run())
    run = next((run for run in done if run.config.exists()), None)
    if run is None:
        return []
    config = read_record(run).config
    plain = not varies(config) and not config.clip_norm and config.precision == "float32"
    return [] if plain else [f"Every run has {describe(config)}."]


def _effect(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    finite = _mean([value for value in known if math.isfinite(value)])
    return math.nan if known and finite is None else finite


def _mean(values: list[float | None]) -> float | None:
    """Of those that are finite, which summary.json has as null otherwise."""
    kept = [value for value in values if value is not None]
    return sum(kept) / len(kept) if kept else None
