"""The folder of one run: what is in it, and that no run is ever written over another.

=================  =========================================================================
config.json        what was asked, with every default filled in, and where it ran
metrics.jsonl      one line per finished epoch; holds no clock, so equal runs give equal bytes
checkpoint.pt      everything needed to go on
summary.json       how the last session ended
plot.png           loss, accuracy and effect size, when matplotlib is there
record.sqlite      what the run was told, used and spent: read by qsgd report and --replay
=================  =========================================================================
"""

from __future__ import annotations

import errno
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from qsgd_core import files
from qsgd_core.errors import ConfigError
from qsgd_core.training.config import TrainConfig

FORMAT = 1
LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP)
"""What flock() fails with on a file system without it; for ENOSYS filelock has another way."""
LONGEST = 80
"""Characters of a task's name in a folder's, which file systems end at 255 bytes."""


class RunFolder:
    """Paths of a run's files, and the lock that keeps a second process out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.checkpoint = path / "checkpoint.pt"
        self.summary = path / "summary.json"
        self.plot = path / "plot.png"
        self.record = path / "record.sqlite"
        self._lock = FileLock(path / LOCK, timeout=0)

    def lock(self) -> None:
        """Take the folder for this process until :meth:`unlock`.

        Raises:
            ConfigError: another process has it, it cannot be written, or its file system knows no
                locks.
        """
        try:
            self._lock.acquire()
        except Timeout:
            raise ConfigError(
                f"Another process is training in {self.path}. Wait for it to end, or start a new "
                "run without --resume."
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise _unwritable(self.path, error) from error
            raise ConfigError(
                f"The run folder {self.path} cannot be locked ({error.strerror}): its file system "
                "knows no locks, so nothing keeps two processes from training in it at once. "
                "Choose one on another disk with --run-dir, or set QSGD_RUNS to it."
            ) from error

    def unlock(self) -> None:
        """Let others have the folder."""
        self._lock.release()


@contextmanager
def new_folder(
    asked: Path | None, *, runs: Path, task: str, seed: int, now: datetime
) -> Iterator[RunFolder]:
    """The folder of a new run, empty, until :func:`begin` takes it.

    One with a name of our own is made at once, so that no other process can choose the same; it
    goes again if the run fails before anything was written.

    Args:
        asked: a folder that was named; None for one under ``runs``, named after the rest.
        runs: where runs are.
        task: the task's name.
        seed: of the run.
        now: the time, for the name.

    Raises:
        ConfigError: it cannot be written.
    """
    if asked is not None:
        yield RunFolder(asked)
        return
    there = runs.exists()
    path = _make_fresh(runs, task, seed, now)
    try:
        yield RunFolder(path)
    except BaseException:
        with suppress(OSError):  # not empty: the run has begun
            path.rmdir()
            if not there:
                runs.rmdir()
        raise


def begin(folder: RunFolder) -> None:
    """Take the folder for a new run and this process, until :meth:`RunFolder.unlock`.

    Raises:
        ConfigError: there is something in it, another process has it, or it cannot be written.
    """
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        _check_empty(folder.path)
        folder.lock()
        try:
            _check_empty(folder.path)  # who had it a moment ago may have finished a run in it
        except BaseException:
            folder.unlock()
            raise
    except OSError as error:
        raise _unwritable(folder.path, error) from error


def _check_empty(path: Path) -> None:
    if any(found.name != LOCK for found in path.iterdir()):
        hint = f"--resume {path}" if (path / "config.json").exists() else "another --run-dir"
        raise ConfigError(
            f"The run folder {path} is not empty, and a new run never writes over what is there. "
            f"Use {hint}, or leave --run-dir out to get a fresh folder."
        )


def _make_fresh(runs: Path, task: str, seed: int, now: datetime) -> Path:
    """Make a folder under ``runs`` that nobody had: ``20260131-174501-digits-seed0``."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", task)[:LONGEST]
    stem = f"{now:%Y%m%d-%H%M%S}-{safe}-seed{seed}"
    for n in itertools.count(1):
        path = runs / (stem if n == 1 else f"{stem}-{n}")
        try:
            runs.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except (FileExistsError, FileNotFoundError) as error:  # taken, or an empty parent went
            if not runs.is_dir() and runs.exists():
                raise _unwritable(runs, error) from error
        except OSError as error:
            raise _unwritable(path, error) from error
        else:
            return path
    raise AssertionError("there is always another number")


def find_run(run: str, runs: Path) -> RunFolder:
    """The folder of an existing run, by path or by its name under ``runs``.

    Raises:
        ConfigError: there is no such run; the message lists the latest ones.
    """
    for path in (Path(run), runs / run):
        if (path / "config.json").is_file():
            return RunFolder(path)
    known = sorted((p.parent for p in runs.glob("*/config.json")), key=lambda p: p.name)[-3:]
    latest = (
        f"The latest runs are {', '.join(map(str, known))}." if known else "There are no runs yet."
    )
    raise ConfigError(
        f"There is no run {run!r}: neither {Path(run)} nor {runs / run} has a config.json. {latest}"
    )


@dataclass(frozen=True)
class RunRecord:
    """What config.json holds.

    Attributes:
        task: the task's name.
        source: how to find the task again: its name or ``/path/script.py:function``; None when it
            was handed over in python.
        data: folder that the task was given its data in; None for its own.
        identity: the task's.
        config: the full configuration.
        environment: versions, threads and processor the run was started on.
        code: of a task script, see :func:`qsgd_core.training.code.code_of`.
    """

    task: str
    source: str | None
    config: TrainConfig
    environment: dict[str, Any]
    data: str | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)


def write_record(folder: RunFolder, record: RunRecord) -> None:
    """Write config.json."""
    data = {
        "format": FORMAT,
        "task": record.task,
        "source": record.source,
        "data": record.data,
        "identity": record.identity,
        "config": record.config.to_dict(),
        "environment": record.environment,
        "code": record.code,
    }
    files.write_json(folder.config, data)


def read_record(folder: RunFolder) -> RunRecord:
    """Read config.json.

    Raises:
        ConfigError: it is damaged or of another format.
    """
    try:
        data = json.loads(folder.config.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ConfigError(
                f"{folder.config} has format {data['format']}; this version of qsgd-core reads "
                f"format {FORMAT}. Resume the run with the version that wrote it."
            )
        config = TrainConfig.from_dict(data["config"])
        return RunRecord(
            data["task"],
            data["source"],
            config,
            data["environment"],
            data=data.get("data"),
            identity=data.get("identity", {}),
            code=data.get("code", {}),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder.config} cannot be read ({type(error).__name__}: {error}), so the run cannot "
            "be resumed. Restore the file from a copy, or start a new run without --resume."
        ) from error


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"The run folder {path} cannot be written: {error.strerror or error}. Choose another one "
        "with --run-dir, or set QSGD_RUNS to a folder that can be written."
    )
