"""Where the runs of a comparison run; the result does not depend on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from qsgd_core.errors import ConfigError
from qsgd_lab.compare.plan import RunKey

EXECUTORS = ("local", "ray")
DIED = (
    "The process of this run died: killed from outside, perhaps because memory ran out, or crashed "
    "in native code"
)


class Executor(Protocol):
    """Brings runs to their ends with :func:`~qsgd_lab.compare.runs.run_one`, in any order."""

    def run(self, home: Path, keys: Sequence[RunKey]) -> Iterator[RunKey]:
        """Run them, and yield each as it ends, in whatever way.

        A process that dies is noted as that run's failure. Left early, it stops what is running;
        checkpoints stay.
        """


def make_executor(name: str, *, jobs: int | None, threads: int) -> Executor:
    """The executor called ``name``.

    Args:
        name: ``local`` or ``ray``.
        jobs: runs at once, of ``local``; None for 1.
        threads: of each run, which ``ray`` takes as CPUs.

    Raises:
        ConfigError: no such executor, jobs for Ray, which counts CPUs, or Ray is not installed.
    """
    if name == "local":
        from qsgd_lab.compare.pool import LocalExecutor

        return LocalExecutor(1 if jobs is None else jobs)
    if name == "ray":
        if jobs is not None:
            raise ConfigError(
                f"--jobs {jobs} is for --executor local; Ray has as many runs at once as its "
                "cluster has CPUs for. Give each run more or fewer with --threads."
            )
        from qsgd_lab.compare.on_ray import RayExecutor

        return RayExecutor(threads)
    raise ConfigError(f"There is no executor {name!r}. There are {' and '.join(EXECUTORS)}.")
