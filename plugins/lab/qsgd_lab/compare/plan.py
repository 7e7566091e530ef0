"""Everything about a comparison that is fixed before its first run: plan.json.

Arms, seeds, metric and target cannot be changed afterwards: a comparison that grows until it finds
something finds something. So the same command goes on with the same comparison, and another one is
another comparison, in a folder of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from qsgd_core import files
from qsgd_core.errors import ConfigError
from qsgd_core.installed import version
from qsgd_core.task import Task
from qsgd_core.task import differences as task_differences
from qsgd_core.training import TrainConfig
from qsgd_core.training.folder.folder import LOCK, LONGEST
from qsgd_lab.stats.pairs import Metric

FORMAT = 1
NAME = "plan.json"
RUNS = "runs"
FAILURES = "failures"
_MAY_DIFFER = ("id", "format", "threads", "versions", "notes")
"""Of plan.json, what another session may bring otherwise; the first one's id and threads stay."""


@dataclass(frozen=True)
class ArmPlan:
    """One arm with every setting filled in.

    Attributes:
        name: as typed.
        config: TrainConfig's fields; the seed is the run's.
        term: whether it has one.
        control: whether it is a classical rule.
        match: name of the arm it takes its strength from; None for most.
        replays: it reads s from the record of that arm's run instead of paying for it again.
        paid: its circuits go to a queued service.
    """

    name: str
    config: dict[str, Any]
    term: bool
    control: bool = False
    match: str | None = None
    replays: bool = False
    paid: bool = False


@dataclass(frozen=True)
class RunKey:
    """One run of a comparison.

    Attributes:
        arm: name of the arm.
        seed: of everything random.
        name: of its folder.
    """

    arm: str
    seed: int
    name: str


@dataclass(frozen=True)
class ComparisonPlan:
    """A comparison.

    Attributes:
        task: its name.
        source: how to find it: a registered name or ``/path/script.py:function``.
        script: SHA-256 of that script; None for a registered task.
        imports: SHA-256 of each file of its own folder that it imports, by its path from there.
        data: folder handed to the task; None for its own data.
        metric: what is compared first.
        target: of that metric, for epochs-to-target; None where there is none.
        baseline: name of the arm the others are compared with.
        seeds: one run of every arm each.
        arms: the baseline among them.
        budget: as typed.
        threads: of torch, in every run.
        versions: what it was planned with.
        identity_of_task: what was chosen about it, see :meth:`qsgd_core.Task.identity`.
        notes: what the task says that a reader must know.
        id: its own; budgets on the ledger are named after it.
        format: of this file.
    """

    task: str
    source: str
    script: str | None
    data: str | None
    metric: Metric
    target: float | None
    baseline: str
    seeds: tuple[int, ...]
    arms: tuple[ArmPlan, ...]
    budget: str | None
    threads: int
    versions: dict[str, str]
    identity_of_task: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    imports: dict[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid4().hex[:12])
    format: int = FORMAT

    @property
    def epochs(self) -> int:
        """Epochs that each run is given."""
        return int(self.arms[0].config["epochs"])

    @property
    def others(self) -> tuple[ArmPlan, ...]:
        """The arms that are compared with the baseline."""
        return tuple(arm for arm in self.arms if arm.name != self.baseline)

    def arm(self, name: str) -> ArmPlan:
        """The arm called ``name``."""
        return next(arm for arm in self.arms if arm.name == name)

    def key(self, arm: str, seed: int) -> RunKey:
        """One run; its folder's name is safe on any file system, and sorts by arm."""
        index = [a.name for a in self.arms].index(arm)
        safe = re.sub(r"[^A-Za-z0-9._@-]+", "-", arm)[:60]
        return RunKey(arm, seed, f"{index:02d}-{safe}-seed{seed}")

    def every_run(self) -> Iterator[RunKey]:
        """Every run, all arms of a seed before the next seed: pairs are complete early."""
        for seed in self.seeds:
            for arm in self.arms:
                yield self.key(arm.name, seed)

    def config(self, key: RunKey) -> TrainConfig:
        """The configuration of one run, but for the record that it may replay."""
        return TrainConfig.from_dict(self.arm(key.arm).config | {"seed": key.seed})

    def identity(self) -> dict[str, Any]:
        """What makes it this comparison and no other, plain JSON values."""
        data = {k: v for k, v in asdict(self).items() if k not in _MAY_DIFFER}
        if not self.imports:  # plans of before there were any keep their digest
            del data["imports"]
        plain: dict[str, Any] = json.loads(json.dumps(data))
        return plain

    def digest(self) -> str:
        """Eight hexadecimal digits of :meth:`identity`."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def default_folder(plan: ComparisonPlan, runs: Path) -> Path:
    """Where this comparison is, each time it is asked for: ``runs/compare-digits-1a2b3c4d``."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", plan.task)[:LONGEST]
    return runs / f"compare-{safe}-{plan.digest()}"


def write_plan(folder: Path, plan: ComparisonPlan) -> None:
    """Write plan.json."""
    files.write_json(folder / NAME, asdict(plan))


def read_plan(folder: Path) -> ComparisonPlan:
    """Read plan.json.

    Raises:
        ConfigError: there is none, it is damaged, or of another format.
    """
    path = folder / NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ConfigError(
                f"{path} has format {data['format']}; this version of qsgd-lab reads format "
                f"{FORMAT}. Go on with the version that wrote it."
            )
        arms = tuple(ArmPlan(**arm) for arm in data.pop("arms"))
        seeds, notes = tuple(data.pop("seeds")), tuple(data.pop("notes", ()))
        return ComparisonPlan(arms=arms, seeds=seeds, notes=notes, **data)
    except FileNotFoundError:
        raise ConfigError(
            f"{folder} holds no comparison: it has no {NAME}. Give the folder of one, or start "
            "one: qsgd compare TASK --arms adamw,sine@0.5"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Restore it from a copy, or "
            "start the comparison in another folder with --out."
        ) from error


def make_folder(folder: Path) -> None:
    """Make the folder of a comparison, or see that it holds nothing else.

    Raises:
        ConfigError: it holds something else, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise unwritable(folder, error) from error
    if NAME not in there and there - {LOCK}:
        raise ConfigError(
            f"The folder {folder} is not empty and holds no comparison. Choose another one "
            "with --out, or leave --out out."
        )


def unwritable(folder: Path, error: OSError) -> ConfigError:
    """What to say of a comparison's folder that cannot be written."""
    return ConfigError(
        f"The folder {folder} cannot be written: {error.strerror or error}. Choose another one "
        "with --out, or set QSGD_RUNS to a folder that can be written."
    )


def take_folder(folder: Path, plan: ComparisonPlan) -> tuple[ComparisonPlan, list[str]]:
    """Write the plan of a new comparison, or find that the folder holds this one.

    Args:
        folder: as :func:`make_folder` left it, and no other process's.
        plan: what is asked for.

    Returns:
        The plan to go on with, whose threads are the ones that it was begun with; and what of the
        installation is not as it was then.

    Raises:
        ConfigError: the folder holds another comparison.
    """
    make_folder(folder)
    if not (folder / NAME).exists():
        write_plan(folder, plan)
        return plan, []
    begun = read_plan(folder)
    if different := _differences(begun, plan):
        raise ConfigError(
            f"The comparison in {folder} was planned with {'; '.join(different)}. Its plan is "
            "fixed, so that nobody can run it until it shows something. Ask for the same to go on "
            "with it, or leave --out out to start another."
        )
    then, now = begun.versions, plan.versions
    return begun, [
        f"{name} was {then.get(name, 'not there')} and is {now.get(name, 'not there')}"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def metric_of(task: Task) -> Metric:
    """The task's first metric that is ``accuracy`` or ``loss``; its training loss without one."""
    first = next((metric for metric in task.metrics if metric in ("accuracy", "loss")), "loss")
    return "accuracy" if first == "accuracy" else "loss"


def versions() -> dict[str, str]:
    """Of what computes the numbers."""
    names = ("qsgd-core", "qsgd-lab", "torch", "numpy", "scipy")
    return {name: version(name) or "unknown" for name in names}


def _differences(begun: ComparisonPlan, asked: ComparisonPlan) -> list[str]:
    """What the plan in the folder has, where it is not what is asked for now."""
    then, now = begun.identity(), asked.identity()
    arms = then.pop("arms"), now.pop("arms")
    tasks = then.pop("identity_of_task"), now.pop("identity_of_task")
    imports = then.pop("imports", {}), now.pop("imports", {})
    different = [
        f"{name} {_shown(then[name])} instead of {_shown(now[name])}"
        for name in then
        if then[name] != now[name]
    ]
    different += [
        f"another {file}"
        for file in sorted(imports[0].keys() | imports[1].keys())
        if imports[0].get(file) != imports[1].get(file)
    ]
    different += [f"task's {text}" for text in task_differences(tasks[1], tasks[0])]
    names = tuple(",".join(arm["name"] for arm in some) for some in arms)
    if names[0] != names[1]:
        return [*different, f"arms {names[0]} instead of {names[1]}"]
    for old, new in zip(*arms, strict=True):
        for key in old["config"]:
            if old["config"][key] != new["config"].get(key):
                different.append(
                    f"{key} {old['config'][key]!r} instead of {new['config'].get(key)!r} (arm "
                    f"{old['name']})"
                )
    return different or ([] if arms[0] == arms[1] else ["other arms"])


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value)
    return f"{len(value)} ({value[0]} to {value[-1]})" if isinstance(value, list) else repr(value)
