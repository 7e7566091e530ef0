"""Comparisons made up from numbers: a folder as ``qsgd compare`` leaves it, without training."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qsgd_core.files import plain
from qsgd_core.plugins.registry import default_registry
from qsgd_core.training.folder.folder import RunFolder, RunRecord, write_record
from qsgd_lab.compare.plan import RUNS, ComparisonPlan, RunKey, take_folder
from qsgd_lab.compare.planning import Asked, make_plan
from qsgd_lab.compare.presets import preset_arms
from qsgd_lab.compare.runs import run_one, write_failure

Curve = Sequence[Mapping[str, float | None]]
"""Lines of metrics.jsonl, but for epoch and step."""

MACHINE = {"python": "3.11.7", "torch": "2.13.0", "threads": 1, "processor": "x86_64 AVX2"}
PAPER = tuple(preset_arms("paper"))


def plan_of(
    arms: Sequence[str] = PAPER, *, task: str = "sequences", seeds: int = 10, **asked: Any
) -> ComparisonPlan:
    return make_plan(Asked(task, arms, seeds, **asked), default_registry())


def write(
    home: Path, plan: ComparisonPlan, curve: Callable[[str, int], Curve | str | None]
) -> tuple[Path, ComparisonPlan]:
    """The folder of a comparison whose runs went like ``curve(arm, seed)``.

    A text is the error of a run that failed; None is a run that has not begun.
    """
    take_folder(home, plan)
    for key in plan.every_run():
        rows = curve(key.arm, key.seed)
        if isinstance(rows, str):
            write_failure(home, key, rows)
        elif rows is not None:
            _write_run(home, plan, key, rows)
    return home, plan


def learning(
    *, epochs: int = 10, gain: Mapping[str, float] | None = None, spread: float = 0.004
) -> Callable[[str, int], Curve]:
    """Runs that approach 91 %, differ by seed, and by arm as ``gain`` says."""

    def curve(arm: str, seed: int) -> Curve:
        of_seed = np.random.default_rng(seed)
        own = np.random.default_rng([seed, *arm.encode()])
        end = 0.913 + of_seed.normal(0, 0.008) + (gain or {}).get(arm, 0.0)
        end += own.normal(0, spread) if arm != "adamw" else 0.0
        wobble = of_seed.normal(0, 0.003, epochs)
        term = 0.0 if arm == "adamw" else 0.005 * (0.2 if "@0.1" in arm else 1.0)
        rows = []
        for i in range(epochs):
            left = math.exp(-(i + 1) / 2.2)
            accuracy = end - 0.38 * left + wobble[i] * (i + 1 < epochs)
            rows.append(
                {
                    "train_loss": 0.18 + 0.5 * left,
                    "effect_size": term * (1 + 0.3 * left),
                    "accuracy": round(accuracy * 4000) / 4000,
                    "loss": 0.22 + 0.4 * left,
                }
            )
        return rows

    return curve


def losing(*, epochs: int = 3, cut: Mapping[str, float] | None = None) -> Callable[..., Curve]:
    """Runs of a task that has a loss and no accuracy."""

    def curve(arm: str, seed: int) -> Curve:
        own = np.random.default_rng([seed, *arm.encode()])
        start = 0.22 + np.random.default_rng(seed).normal(0, 0.004)
        start *= 1 - (cut or {}).get(arm, 0.0)
        noise = 0.0 if arm == "adamw" else float(own.normal(0, 3e-4))
        term = 0.0 if arm == "adamw" else 0.01
        return [
            {"train_loss": start + noise + 0.1 / (i + 1), "effect_size": term}
            for i in range(epochs)
        ]

    return curve


def _write_run(home: Path, plan: ComparisonPlan, key: RunKey, rows: Curve) -> None:
    folder = RunFolder(home / RUNS / key.name)
    folder.path.mkdir(parents=True)
    write_record(folder, RunRecord(plan.task, plan.source, plan.config(key), MACHINE))
    lines = [{"epoch": i + 1, "step": 125 * (i + 1), **row} for i, row in enumerate(rows)]
    folder.metrics.write_text("".join(json.dumps(plain(line)) + "\n" for line in lines))
    sizes = [float(row.get("effect_size") or 0.0) for row in rows]
    summary = {
        "status": "finished",
        "ended_at": 1.75e9 + 60 * key.seed,
        "epochs": len(rows),
        "steps": 125 * len(rows),
        "effect_size": {"mean": sum(sizes) / len(sizes), "max": max(sizes)},
        "wall_s": len(rows) * epoch_s(key.arm, key.seed),
    }
    folder.summary.write_text(json.dumps(summary))


def epoch_s(arm: str, seed: int) -> float:
    """Seconds of an epoch; 20 % more for an arm with a term."""
    slower = 1.0 if arm.startswith("adamw") else 1.2
    return slower * (1.5 + 0.01 * seed + 0.001 * len(arm))


def replaced(plan: ComparisonPlan) -> ComparisonPlan:
    """The same comparison by loss, without a target."""
    return dataclasses.replace(plan, metric="loss", target=None)


def renamed(plan: ComparisonPlan, suffix: str) -> ComparisonPlan:
    """The same comparison whose task and arms have names that end so."""
    arms = tuple(
        dataclasses.replace(
            arm, name=arm.name + suffix, match=None if arm.match is None else arm.match + suffix
        )
        for arm in plan.arms
    )
    return dataclasses.replace(
        plan,
        task=plan.task + suffix,
        source=plan.source + suffix,
        data=suffix,
        baseline=plan.baseline + suffix,
        arms=arms,
    )


class Here:
    """An executor that runs runs in this process: without the seconds that a new one takes."""

    def run(self, home: Path, keys: Sequence[RunKey]) -> Iterator[RunKey]:
        for key in keys:
            run_one(str(home), key.arm, key.seed)
            yield key


def here(*_: object, **__: object) -> Here:
    """Takes the place of ``qsgd_lab.compare.executors.make_executor``."""
    return Here()
