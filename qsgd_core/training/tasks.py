"""Finds a task by its registered name or in a script: ``digits``, ``my_task.py:make_task``."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from qsgd_core.errors import ConfigError
from qsgd_core.plugins.registry import default_registry
from qsgd_core.settings import Settings
from qsgd_core.task import Task
from qsgd_core.training import code
from qsgd_core.training.folder.folder import RunRecord


def load_task(source: str, settings: Settings) -> tuple[Task, str]:
    """The task, and a source from which a resumed run finds it from any folder.

    Args:
        source: a registered name, or ``path/script.py:function``; the function takes no argument
            and returns a Task. The script's folder goes on ``sys.path``, as python does with a
            script it runs.
        settings: for the registry.

    Raises:
        ConfigError: no such task, no such script, or one that does not give a Task.
    """
    path, colon, function = source.rpartition(":")
    if source.endswith(".py"):
        raise ConfigError(f"{source!r} names a script but no function. Add it: {source}:make_task")
    if not (colon and path.endswith(".py")):
        return default_registry(settings).make_task(source), source
    script = Path(path).resolve()
    if not script.is_file():
        raise ConfigError(
            f"There is no task script {path} (looked for {script}). Give the path of a python file "
            "and a function in it: qsgd train path/to/script.py:make_task"
        )
    with code.loading(script):
        task = _call(_run(script), script, function)
    return task, f"{script}:{function}"


def open_task(source: str, data: Path | None, settings: Settings) -> tuple[Task, str]:
    """The task with its data in the folder ``data``, if that is given; else :func:`load_task`.

    Raises:
        ConfigError: no such task or folder, or the task takes none.
    """
    task, found = load_task(source, settings)
    if data is None:
        return task, found
    if not data.is_dir():
        raise ConfigError(f"--data {data} is no folder (looked for {data.resolve()}).")
    made = task.with_data(data.resolve())
    if not isinstance(made, Task):
        raise ConfigError(
            f"with_data() of task {task.name!r} returned {_article(made)}, not a Task."
        )
    return made, found


def recorded_task(record: RunRecord, settings: Settings, where: Path) -> Task:
    """The task of a run, as it was when that was recorded.

    Args:
        record: of the run.
        settings: for the registry.
        where: the run's folder, for messages.

    Raises:
        ConfigError: it cannot be found, or is not that task any more.
    """
    if record.source is None:
        raise ConfigError(
            f"The run in {where} was started from python, so its task {record.task!r} cannot "
            "be found from here. Pass the task to resume() or replay(), or name it on the command "
            f"line: qsgd train script.py:make_task --resume {where}"
        )
    data = None if record.data is None else Path(record.data)
    return open_task(record.source, data, settings)[0]


def _run(script: Path) -> ModuleType:
    # Under its own name, spawned DataLoader workers can import it to unpickle the data set.
    name = f"qsgd_task_{script.stem}" if script.stem in sys.modules else script.stem
    spec = importlib.util.spec_from_file_location(name, script)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{script} cannot be imported as a python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(script.parent) not in sys.path:
        sys.path.insert(0, str(script.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _script_failed(script, error) from error
    return module


def _call(module: ModuleType, script: Path, function: str) -> Task:
    make = getattr(module, function, None)
    if not callable(make):
        raise ConfigError(
            f"{script} has no function {function!r}. Define it, taking no argument and returning "
            f"a qsgd_core.Task, or name another one: qsgd train {script}:make_task"
        )
    try:
        task = make()
    except (Exception, SystemExit) as error:
        raise _script_failed(script, error) from error
    if not isinstance(task, Task):
        raise ConfigError(
            f"{function}() in {script} returned {_article(task)}, not a qsgd_core.Task. Return an "
            "instance of a class that derives from qsgd_core.Task."
        )
    if not isinstance(getattr(task, "name", None), str):
        raise ConfigError(
            f"The task that {function}() in {script} returned has no name. Give its class one: "
            'name = "my-task"'
        )
    return task


def _script_failed(script: Path, error: BaseException) -> ConfigError:
    """The error, with the line of the script it came through."""
    if isinstance(error, SyntaxError):
        line = error.lineno
    else:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if Path(f.filename) == script]
        line = lines[-1] if lines else None
    where = f"{script}, line {line}" if line else str(script)
    return ConfigError(
        f"The task script raised {type(error).__name__}: {error} ({where}). Fix the script and "
        "run again; --debug shows the traceback."
    )


def _article(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
