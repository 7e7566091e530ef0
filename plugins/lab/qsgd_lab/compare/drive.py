"""From a plan to a folder of finished runs; a comparison that was killed goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from qsgd_core.errors import ConfigError
from qsgd_core.training.folder.folder import LOCK
from qsgd_lab.compare.executors import Executor
from qsgd_lab.compare.plan import ComparisonPlan, RunKey, make_folder, take_folder, unwritable
from qsgd_lab.compare.runs import RunOutcome, outcome

logger = logging.getLogger("qsgd_lab")


@contextmanager
def held(home: Path, plan: ComparisonPlan) -> Iterator[ComparisonPlan]:
    """Take the comparison's folder for this process; gives the plan to go on with.

    Raises:
        ConfigError: another process has it, it holds something else, or it cannot be written.
    """
    make_folder(home)
    lock = FileLock(home / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"Another process is running the comparison in {home}. Wait for it to end, or start "
            "another comparison with --out."
        ) from None
    except OSError as error:
        raise unwritable(home, error) from error
    try:
        found, changed = take_folder(home, plan)
        if changed:
            logger.warning(
                "The comparison goes on with other versions, so last bits may differ: %s.",
                "; ".join(changed),
            )
        yield found
    finally:
        lock.release()


def drive(
    home: Path, plan: ComparisonPlan, executor: Executor, tell: Callable[[RunKey, RunOutcome], None]
) -> bool:
    """Bring every run that is not finished to its end.

    Controls that read another run's record come after all others.

    Args:
        home: the comparison's folder.
        plan: what is in it.
        executor: runs the runs.
        tell: called for every run when it has ended, and first for those that had before.

    Returns:
        False if it was interrupted.
    """
    todo: list[RunKey] = []
    for key in plan.every_run():
        found = outcome(home, key)
        if found.state == "finished":
            tell(key, found)
        else:
            todo.append(key)
    later = [key for key in todo if plan.arm(key.arm).replays]
    for keys in ([key for key in todo if key not in later], later):
        for key in executor.run(home, keys):
            found = outcome(home, key)
            tell(key, found)
            if found.state not in ("finished", "failed"):
                return False
    return True
