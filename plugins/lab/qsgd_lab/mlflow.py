"""Observer ``mlflow``: settings, loss, accuracy and effect size as a run of MLflow."""

from __future__ import annotations

import contextlib
import importlib
import json
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qsgd_core.errors import ConfigError
from qsgd_core.events import Event, RunEnded, RunStarted
from qsgd_core.scalars import scalars

SEND_S = 5.0
"""Seconds between two messages to MLflow, each of which may be a request to a server."""
MOST = 1000
"""Metrics of one message: MLflow takes no more."""
RUN_ID = "mlflow_run_id"
"""File in the run's folder with the id of its MLflow run, on which a resumed run goes on."""
STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MLflowObserver:
    """Logs to the store that MLflow is set to (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME).

    Where a run of MLflow is active (``with mlflow.start_run():``) it logs there and leaves it open.
    Else it starts one. A resumed run logs once more what came after its checkpoint: MLflow cannot
    forget a metric.

    Args:
        run_dir: the run's folder, or None for library users.

    Raises:
        ConfigError: MLflow is not installed, or its store cannot be used.
    """

    def __init__(self, run_dir: Path | None) -> None:
        try:
            self._mlflow: Any = importlib.import_module("mlflow")
        except ImportError as error:
            raise ConfigError(
                f"Observer 'mlflow' needs MLflow ({error}). "
                "Install it: pip install 'qsgd-lab[mlflow]'"
            ) from error
        try:
            self._client: Any = self._mlflow.MlflowClient()
        except Exception as error:
            raise ConfigError(
                f"Observer 'mlflow' cannot use MLflow's store {self._mlflow.get_tracking_uri()!r} "
                f"({error}). Set MLFLOW_TRACKING_URI=http://localhost:5000, say, or install all of "
                "MLflow, which can keep a store on this machine: pip install mlflow"
            ) from error
        self._run_dir = run_dir
        self._outbox: _Outbox | None = None
        self._ours = False

    def __call__(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._begin(event.config, goes_on=event.step > 0)
            case RunEnded() if self._outbox is not None:
                self._end(event, self._outbox)
            case _:
                for name, value, step in scalars(event):
                    self._add(name, value, step)

    def _add(self, name: str, value: Any, step: int) -> None:
        outbox = self._outbox or self._begin({}, goes_on=False)
        outbox.add(name, float(value), step)

    def _begin(self, config: Mapping[str, Any], *, goes_on: bool) -> _Outbox:
        """Join the active run, go on with the one of this folder, or start one."""
        active = self._mlflow.active_run()
        self._ours = active is None
        if active is None:
            active = (self._found_again() if goes_on else None) or self._started()
        self._outbox = _Outbox(self._client, active.info.run_id)
        self._outbox.params(config)
        weakref.finalize(self, self._outbox.send)  # for library users, who get no RunEnded
        return self._outbox

    def _started(self) -> Any:
        if self._run_dir is None:
            return self._mlflow.start_run()
        run = self._mlflow.start_run(run_name=self._run_dir.name)
        (self._run_dir / RUN_ID).write_text(run.info.run_id, encoding="utf-8")
        return run

    def _found_again(self) -> Any:
        """The folder's run; None if it has none, or MLflow is set to another store now."""
        with contextlib.suppress(OSError, self._mlflow.MlflowException):
            if self._run_dir is not None:
                run_id = (self._run_dir / RUN_ID).read_text(encoding="utf-8")
                return self._mlflow.start_run(run_id=run_id)
        return None

    def _end(self, event: RunEnded, outbox: _Outbox) -> None:
        outbox.send()
        if sources := event.summary.get("sources"):
            self._client.set_tag(outbox.run_id, "qsgd.sources", json.dumps(sources))
        if self._ours:
            self._mlflow.end_run(STATUS[event.status])
        self._outbox = None


class _Outbox:
    """Metrics on their way to a run, many at a time."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.run_id = run_id
        self._client = client
        self._entities = importlib.import_module("mlflow.entities")
        self._waiting: list[Any] = []
        self._sent_at = time.monotonic()

    def add(self, name: str, value: float, step: int) -> None:
        now_ms = int(time.time() * 1000)
        self._waiting.append(self._entities.Metric(name, value, now_ms, step))
        if len(self._waiting) >= MOST or time.monotonic() - self._sent_at > SEND_S:
            self.send()

    def send(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._sent_at = time.monotonic()
        if waiting:
            self._client.log_batch(self.run_id, metrics=waiting)

    def params(self, config: Mapping[str, Any]) -> None:
        """Those that the run does not have: MLflow cannot change one."""
        if not config:
            return
        has = self._client.get_run(self.run_id).data.params
        new = [self._entities.Param(k, str(v)) for k, v in config.items() if k not in has]
        self._client.log_batch(self.run_id, params=new)
