"""Runs as tasks of a Ray cluster: the one that RAY_ADDRESS names, else one of this machine.

The comparison's folder must be the same for all nodes, as on a network file system, and so must
QSGD_HOME or QSGD_LEDGER where runs are paid for.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qsgd_core.errors import ConfigError
from qsgd_lab.compare.executors import DIED
from qsgd_lab.compare.plan import RunKey
from qsgd_lab.compare.runs import describe, run_one, write_failure


class RayExecutor:
    """As many runs at once as the cluster has CPUs for; each has a GPU where there are any."""

    def __init__(self, threads: int) -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise ConfigError(
                f"--executor ray needs the ray package ({error}). "
                "Install it: pip install 'qsgd-lab[ray]'"
            ) from error
        self._threads = threads

    def run(self, home: Path, keys: Sequence[RunKey]) -> Iterator[RunKey]:
        """See :class:`~qsgd_lab.compare.executors.Executor`."""
        ray = self._ray
        ours = not ray.is_initialized()
        if ours:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
        try:
            yield from self._run(home, keys)
        finally:
            if ours:
                ray.shutdown()

    def _run(self, home: Path, keys: Sequence[RunKey]) -> Iterator[RunKey]:
        ray = self._ray
        resources = ray.cluster_resources()
        if resources.get("CPU", 0) < self._threads:
            raise ConfigError(
                f"A run has {self._threads} threads, and the Ray cluster has "
                f"{resources.get('CPU', 0):g} CPUs: no run would ever start. Give fewer --threads."
            )
        task = ray.remote(run_one).options(
            num_cpus=self._threads,
            num_gpus=1 if resources.get("GPU", 0) >= 1 else 0,
            max_retries=0,
        )
        pending = {task.remote(str(home), key.arm, key.seed): key for key in keys}
        try:
            while pending:
                done, _ = ray.wait(list(pending), num_returns=1)
                for reference in done:
                    key = pending.pop(reference)
                    self._note(reference, key, home)
                    yield key
        finally:
            for reference in pending:
                ray.cancel(reference)

    def _note(self, reference: Any, key: RunKey, home: Path) -> None:
        """Note a run whose process died, or that Ray could not start."""
        try:
            self._ray.get(reference)
        except self._ray.exceptions.WorkerCrashedError:
            write_failure(home, key, f"{DIED}.")
        except self._ray.exceptions.RayError as error:
            write_failure(home, key, describe(error))
