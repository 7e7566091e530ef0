"""One run of a comparison: found finished, taken up where it stopped, or started.

Called in a process of its own by the executors; everything it needs is in the comparison's folder,
and everything it has to say stays there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from filelock import FileLock

from qsgd_core import files
from qsgd_core.errors import ConfigError, QSGDError
from qsgd_core.events import BatchTrained, EpochEnded, Event, Observer, RunStarted
from qsgd_core.settings import load_settings
from qsgd_core.training import TrainConfig, open_task, resume, train
from qsgd_core.training.folder.folder import RunFolder
from qsgd_lab.compare import witness
from qsgd_lab.compare.money import budget_of
from qsgd_lab.compare.plan import FAILURES, RUNS, ComparisonPlan, RunKey, read_plan

State: TypeAlias = Literal["finished", "interrupted", "failed", "pending"]
PROGRESS = "progress.json"
TELL_S = 0.5
"""Seconds between two writings of how far a run has come."""
RELEASE_S = 30.0
"""How long a run waits for the process of a killed comparison to let go of its folder."""


@dataclass(frozen=True)
class RunOutcome:
    """What became of a run.

    Attributes:
        state: ``pending`` is not begun.
        error: of a failed one, type and message.
        summary: summary.json of a finished one.
        rows: lines of metrics.jsonl of a finished one.
    """

    state: State
    error: str | None = None
    summary: Mapping[str, Any] | None = None
    rows: tuple[Mapping[str, Any], ...] = ()


def run_one(folder: str, arm: str, seed: int) -> State:
    """Bring one run to its end, whatever has become of it before.

    Args:
        folder: the comparison's.
        arm: name of the arm.
        seed: of the run.

    Returns:
        ``finished``; ``interrupted`` after Ctrl-C; ``failed``, and the failure is on file.
    """
    home = Path(folder)
    plan = read_plan(home)
    key = plan.key(arm, seed)
    if outcome(home, key).state == "finished":
        return "finished"
    torch.set_num_threads(plan.threads)
    core = logging.getLogger("qsgd_core")
    if plan.arm(arm).replays:
        core.addFilter(_not_of_replay)
    try:
        state: State = _go_on(home, plan, key)
    except Exception as error:  # noqa: BLE001 - the task is somebody's script; the other runs go on
        write_failure(home, key, describe(error), traceback.format_exc())
        return "failed"
    finally:
        core.removeFilter(_not_of_replay)
    if state == "finished":
        _failure(home, key).unlink(missing_ok=True)
        RunFolder(home / RUNS / key.name).checkpoint.unlink(missing_ok=True)
    return state


def outcome(home: Path, key: RunKey) -> RunOutcome:
    """What the folder says of a run."""
    run = RunFolder(home / RUNS / key.name)
    summary = _read(run.summary)
    if summary is not None and summary.get("status") == "finished":
        lines = run.metrics.read_text(encoding="utf-8").splitlines()
        return RunOutcome("finished", summary=summary, rows=tuple(json.loads(x) for x in lines))
    if (failure := _read(_failure(home, key))) is not None:
        return RunOutcome("failed", error=str(failure["error"]))
    return RunOutcome("interrupted" if run.config.exists() else "pending")


def write_failure(home: Path, key: RunKey, error: str, trace: str = "") -> None:
    """Note why a run failed; it is tried again when the comparison is."""
    path = _failure(home, key)
    path.parent.mkdir(exist_ok=True)
    files.write_json(path, {"arm": key.arm, "seed": key.seed, "error": error, "traceback": trace})


def how_far(home: Path, key: RunKey) -> tuple[int, int | None]:
    """Steps taken and steps in all, by what the run last said."""
    found = _read(home / RUNS / key.name / PROGRESS) or {}
    return int(found.get("step", 0)), found.get("of")


def describe(error: BaseException) -> str:
    """Type and message in one line, and what to do about the ones that say too little."""
    text = " ".join(str(error).split())
    said = text if isinstance(error, QSGDError) else f"{type(error).__name__}: {text}".rstrip(": ")
    if out_of_memory(error):
        said = said.rstrip(".") + (
            ". The run ran out of memory: have fewer runs at once (--jobs), a smaller model or a "
            "smaller batch."
        )
    return said


def out_of_memory(error: BaseException) -> bool:
    """Python's, CUDA's, or torch's on the CPU, which is a RuntimeError."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


class Progress:
    """An observer that says in the run's folder how far it has come, now and then."""

    def __init__(self, run: Path) -> None:
        self._path = run / PROGRESS
        self._total: int | None = None
        self._said_at = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._total = event.total_steps
                self._say(event.step)
            case BatchTrained() if time.monotonic() - self._said_at >= TELL_S:
                self._say(event.step)
            case EpochEnded():
                self._say(event.step)

    def _say(self, step: int) -> None:
        self._said_at = time.monotonic()
        # Not flushed to disk as the run's own files are: nothing depends on it.
        half = self._path.with_suffix(".half")
        half.write_text(json.dumps({"step": step, "of": self._total}), encoding="utf-8")
        half.replace(self._path)


def _go_on(home: Path, plan: ComparisonPlan, key: RunKey) -> Literal["finished", "interrupted"]:
    """Start a run, or take it up at its last checkpoint."""
    settings = load_settings()
    data = None if plan.data is None else Path(plan.data)
    task, source = open_task(plan.source, data, settings)
    task = task.as_recorded(plan.identity_of_task)
    path = home / RUNS / key.name
    observers: list[str | Observer] = [*settings.observers, Progress(path)]
    if _taken_up(path):
        # What the plan says holds, whatever QSGD_BACKEND says now.
        term = plan.config(key).term
        asked = {name: getattr(term, name) for name in ("backend", "backend_options", "shots")}
        summary = resume(str(path), task, asked=asked, observers=observers)
    else:
        config = _configured(home, plan, key)
        seen = witness.watched(task, partial(witness.write, path))
        summary = train(seen, config, source=source, data=data, run_dir=path, observers=observers)
    return "finished" if summary.status == "finished" else "interrupted"


def _configured(home: Path, plan: ComparisonPlan, key: RunKey) -> TrainConfig:
    """The run's configuration, with its share of the budget or the record that it reads."""
    arm = plan.arm(key.arm)
    config = plan.config(key)
    if arm.paid:
        return config.with_term(budget=budget_of(plan, key))
    if not arm.replays or arm.match is None:
        return config
    match = plan.key(arm.match, key.seed)
    if outcome(home, match).state != "finished":
        raise ConfigError(
            f"{arm.name!r} reads what was measured for {arm.match!r}, whose run of seed {key.seed} "
            "is not finished."
        )
    record = RunFolder(home / RUNS / match.name).record
    return config.with_term(replay=str(record.resolve()))


def _taken_up(path: Path) -> bool:
    """Whether there is a run to go on with; one without a checkpoint trained nothing and goes."""
    if not path.exists():
        return False
    if (path / "config.json").exists():
        with FileLock(path / ".lock", timeout=RELEASE_S):
            pass
    if (path / "checkpoint.pt").exists():
        return True
    shutil.rmtree(path)
    return False


def _not_of_replay(record: logging.LogRecord) -> bool:
    """A control reads another run's s on purpose: that it is not that run is no news."""
    return record.module != "replay"


def _failure(home: Path, key: RunKey) -> Path:
    return home / FAILURES / f"{key.name}.json"


def _read(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    return None
