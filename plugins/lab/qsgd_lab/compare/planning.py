"""From what was asked to a plan: names resolved, refused what cannot work, nothing run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from qsgd_core.errors import ConfigError
from qsgd_core.plugins.registry import Registry
from qsgd_core.settings import Settings
from qsgd_core.task import Task
from qsgd_core.training import TrainConfig, open_task
from qsgd_core.training.code import code_of
from qsgd_core.training.config import resolve
from qsgd_core.training.optimizer import make_optimizer
from qsgd_lab.compare.arms import Arm, baseline_of, matching_arm, parse_arms
from qsgd_lab.compare.plan import ArmPlan, ComparisonPlan, metric_of, versions
from qsgd_lab.stats.pairs import Metric

TARGET = 0.9
"""The paper's: 90 % accuracy."""
FOLLOWED = ("n_qubits", "depth", "every", "shots", "backend")
"""What a control has as its match has it, unless its name says otherwise."""


@dataclass(frozen=True)
class Asked:
    """What a comparison was asked for, as on the command line.

    Attributes:
        task: a registered name or ``script.py:function``.
        arms: names.
        seeds: how many; they are 0, 1, ….
        epochs, max_steps: of every run; None for the task's.
        backend, backend_options, shots, every: of the arms that run circuits.
        budget: what all runs together may cost; None where nothing is paid for.
        data: folder for a task that takes one.
        target: of the primary metric; None for 90 % accuracy, and no target for a loss.
        threads: of torch in each run.
    """

    task: str
    arms: Sequence[str]
    seeds: int
    epochs: int | None = None
    max_steps: int | None = None
    backend: str | None = None
    backend_options: Mapping[str, Any] | None = None
    shots: int | None = None
    every: int | None = None
    budget: str | None = None
    data: Path | None = None
    target: float | None = None
    threads: int = 1


def make_plan(asked: Asked, registry: Registry) -> ComparisonPlan:
    """The plan of a comparison.

    Raises:
        ConfigError: something asked for cannot be done.
    """
    if asked.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, not {asked.seeds}; 10 show something.")
    settings = registry.settings
    arms = parse_arms(asked.arms, registry)
    task, source = open_task(asked.task, asked.data, settings)
    notes = tuple(task.check())
    planned = tuple(_plan_arm(arm, arms, asked, task, registry) for arm in arms)
    paid = [arm for arm in planned if arm.paid]
    if asked.budget is not None and not paid:
        raise ConfigError(
            f"--budget {asked.budget} pays for jobs on a queued service, and no arm uses one. "
            "Name it with --backend, or leave --budget out."
        )
    metric = metric_of(task)
    code = code_of(source, when_loaded=True)
    script = code.pop(Path(source.rpartition(":")[0]).name, None)
    return ComparisonPlan(
        task=task.name,
        source=source,
        script=script,
        imports=code,
        data=None if asked.data is None else str(asked.data.resolve()),
        metric=metric,
        target=_target(asked.target, metric),
        baseline=baseline_of(arms).name,
        seeds=tuple(range(asked.seeds)),
        arms=planned,
        budget=asked.budget,
        threads=asked.threads,
        versions=versions(),
        identity_of_task=dict(task.identity()),
        notes=notes,
    )


def _plan_arm(
    arm: Arm, arms: Sequence[Arm], asked: Asked, task: Task, registry: Registry
) -> ArmPlan:
    """One arm with every setting filled in."""
    match = matching_arm(arm, arms) if arm.control else None
    inherited = {} if match is None else match.settings
    own = {k: inherited[k] for k in FOLLOWED if k in inherited} | dict(arm.settings)
    backend = own.pop("backend", None)
    base = TrainConfig(
        optimizer=str(baseline_of(arms).settings["optimizer"]),
        epochs=asked.epochs,
        max_steps=asked.max_steps,
        quantum_weight=arm.quantum_weight,
        perturbation=arm.perturbation or "sine",
        perturbation_options=dict(arm.options) or None,
    )
    paid = False
    if arm.uses_backend:
        base, paid = _with_backend(base, backend, asked, registry)
    else:
        base = _without_backend(base, arm, registry.settings)
    try:
        full = resolve(replace(base, **own), task.defaults, registry.settings)
    except ConfigError as error:
        raise ConfigError(f"Arm {arm.name!r}: {error}") from error
    replays = paid and arm.control
    if replays:
        _check_replay(arm, match, full)
    else:
        _check(arm, full, task)
    return ArmPlan(
        name=arm.name,
        config={k: v for k, v in full.to_dict().items() if k != "seed"},
        term=arm.perturbation is not None,
        control=arm.control,
        match=None if match is None else match.name,
        replays=replays,
        paid=paid and not replays,
    )


def _with_backend(
    config: TrainConfig, own: str | None, asked: Asked, registry: Registry
) -> tuple[TrainConfig, bool]:
    """The backend of an arm that runs circuits, or has them run, and whether it is a service.

    Args:
        config: of the arm.
        own: backend that the arm itself names; the options and shots asked for are not for that.
        asked: for all arms.
        registry: knows the names.
    """
    settings = registry.settings
    name, options, shots = own, None, None
    if own is None:
        shots = asked.shots or settings.shots
        name, options = asked.backend, asked.backend_options
        if name is None:
            name, options = settings.backend, options or settings.backend_options or None
    assert name is not None  # noqa: S101 - one of the three
    paid = registry.resolve_backend(name).spec.kind == "backend"
    checked = registry.backend_options(name, options) or None
    every = asked.every
    chosen = config.with_term(backend=name, backend_options=checked, shots=shots, every=every)
    return chosen, paid


def _check(arm: Arm, config: TrainConfig, task: Task) -> None:
    """Make the arm's optimizer once, on a model of two weights: what cannot work says so now."""
    try:
        made = make_optimizer(nn.Linear(1, 1), config, task.defaults, [], total_steps=1000)
        made.term.close()
    except ConfigError as error:
        raise ConfigError(f"Arm {arm.name!r}: {error}") from error


def _check_replay(arm: Arm, match: Arm | None, config: TrainConfig) -> None:
    """A control on a service reads what was measured for its match, on the same coordinates."""
    if match is None:
        raise ConfigError(
            f"Arm {arm.name!r} takes its strength from what {config.term.backend!r} measures for "
            f"{arm.match!r}, and no arm measures that. Add {arm.match}@{arm.quantum_weight:g}, "
            "with no options of its own."
        )
    scope = match.settings.get("scope", "tensor")
    if scope != config.term.scope:
        raise ConfigError(
            f"Arm {arm.name!r} reads what is measured for {match.name!r}, which has the scope "
            f"{scope!r} and not {config.term.scope!r}. Write {arm.name}:{scope}."
        )


def _without_backend(config: TrainConfig, arm: Arm, settings: Settings) -> TrainConfig:
    """An arm that runs no circuit has the built-in simulator, whatever the environment says."""
    if settings.shots is not None:
        raise ConfigError(
            f"QSGD_SHOTS={settings.shots} would hold for {arm.name!r} too, which runs no circuit. "
            f"Unset it and give --shots {settings.shots}, which belongs to the arms that do."
        )
    return config.with_term(backend="exact", backend_options={})


def _target(asked: float | None, metric: Metric) -> float | None:
    if asked is None:
        return TARGET if metric == "accuracy" else None
    if metric == "accuracy" and not 0 < asked <= 1:
        raise ConfigError(
            f"--target {asked} is no accuracy: they are shares of 1. 90 % is --target 0.9."
        )
    return asked
