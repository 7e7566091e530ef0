"""The line that rebuilds a result, whatever the environment says where it is typed."""

from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from qsgd_core.cli.commands.train import train
from qsgd_core.training.folder.environment import DEFAULT_SHOTS
from qsgd_core.training.folder.folder import RunRecord
from qsgd_lab.compare.plan import ArmPlan, ComparisonPlan
from qsgd_lab.compare.planning import FOLLOWED

_OPTIONS = {
    "perturbation_options": "--perturbation-option",
    "backend_options": "--option",
    "schedule": "--schedule",
}
"""Settings that are given NAME=VALUE by NAME=VALUE."""


def train_command(record: RunRecord) -> str | None:
    """``qsgd train …`` with every setting of the run that has a flag; the task knows the others.

    Those that were nobody's wish too: defaults are another version's, or another task's, later.
    A replay is repeated from its record. None for a task that was handed over in Python.
    """
    config = record.config
    if config.term.replay is not None:
        return shlex.join(["qsgd", "train", "--replay", config.term.replay])
    if record.source is None:
        return None
    words = ["qsgd", "train", record.source, *_flag("data", record.data)]
    flags = inspect.signature(train).parameters
    settings = config.to_dict()
    if settings["shots"] is None:
        settings["shots"] = record.environment.get(DEFAULT_SHOTS)
    for name, value in settings.items():
        if name in _OPTIONS:
            words += _options(_OPTIONS[name], value)
        elif name in flags:
            words += _flag(name, value)
    return shlex.join(words)


def compare_command(plan: ComparisonPlan) -> str:
    """``qsgd compare …`` with everything that the plan fixes."""
    first = plan.arms[0].config
    words = ["qsgd", "compare", plan.source]
    words += ["--arms", ",".join(arm.name for arm in plan.arms), "--seeds", str(len(plan.seeds))]
    words += _flag("epochs", first["epochs"]) + _flag("max_steps", first["max_steps"])
    words += _flag("target", plan.target) + _flag("data", plan.data)
    for name in ("backend", "shots", "every"):
        words += _flag(name, _common(plan, name))
    words += _options("--option", _common(plan, "backend_options"))
    words += _flag("budget", plan.budget) + _flag("threads", plan.threads)
    return " ".join([*_environment(plan.arms), shlex.join(words)])


def _common(plan: ComparisonPlan, name: str) -> Any:
    """A setting of the arms that take it from the line and not from their own name."""
    of = "backend" if name in ("backend_options", "shots") else name
    for arm in sorted((a for a in plan.arms if a.term), key=lambda a: a.control):
        names = {arm.name, arm.match or ""} if of in FOLLOWED else {arm.name}
        own = any(f":{word}=" in each for each in names for word in (name, of))
        if not own:
            return arm.config[name]
    return None


def _environment(arms: Iterable[ArmPlan]) -> list[str]:
    """What only the environment can say: how paid arms are scheduled."""
    paid = next((arm.config for arm in arms if arm.paid), None)
    default = {"policy": "tracked", "wait": "first"}
    if paid is None:
        return []
    return [
        f"QSGD_{name.upper()}={shlex.quote(paid[name])}"
        for name, value in default.items()
        if paid[name] != value
    ]


def _flag(name: str, value: Any) -> list[str]:
    return [] if value is None else [f"--{name.replace('_', '-')}", str(value)]


def _options(flag: str, options: Mapping[str, Any] | None) -> list[str]:
    words = []
    for name, value in (options or {}).items():
        words += [flag, f"{name}={json.dumps(value)}"]
    return words
