"""The courier's entry point: ``python -m qsgd_core.cli.courier``, one JSON line on stdin.

The only process of a run that imports an SDK or opens a socket.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import select
import sys

from qsgd_core.backend import Backend
from qsgd_core.errors import BackendGoneError, ConfigError, QSGDError
from qsgd_core.registry import default_registry
from qsgd_core.schedule.courier import Courier
from qsgd_core.schedule.ledger import Ledger, Run


def main() -> None:
    """Serve until the parent closes its end of the pipe."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("qsgd_core").setLevel(logging.INFO)
    config = json.loads(_read_line())
    ledger = Ledger(config["ledger"])
    run = ledger.run(config["run"])
    try:
        backend = open_backend(run)
        pinned = run.pinned or backend.resolve()
        if pinned != run.backend and backend.name != pinned:
            backend = open_backend(dataclasses.replace(run, pinned=pinned))
    except QSGDError as error:
        record = {"type": _base(error), "message": str(error)}
        ledger.update_run(run.run, error=json.dumps(record))
        _tell()
        raise SystemExit(error.exit_code) from error
    capabilities = dataclasses.asdict(backend.capabilities)
    capabilities["gates"] = sorted(capabilities["gates"])
    ledger.update_run(run.run, pinned=pinned, capabilities=json.dumps(capabilities), error=None)
    _tell()
    courier = Courier(ledger, backend, run=run.run)
    while True:
        if courier.round():
            _tell()
        if not _wait(courier.idle_s()):
            return


def open_backend(run: Run) -> Backend:
    """The run's backend, by its pinned name where there is one.

    Raises:
        ConfigError: the name is not a queued service.
    """
    name = run.pinned or run.backend
    backend = default_registry().make_backend(name, json.loads(run.options) or None)
    if not isinstance(backend, Backend):
        raise ConfigError(f"{name!r} is a simulator; it needs no courier.")
    return backend


def _base(error: QSGDError) -> str:
    """The name of the error's class in the core's tree, for the trainer to raise."""
    for kind in type(error).__mro__:
        if kind.__module__ == BackendGoneError.__module__:
            return kind.__name__
    return "QSGDError"


def _read_line() -> str:
    """The first line of stdin, byte by byte: what follows it are nudges."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise SystemExit(0)
        line += byte
    return line.decode()


def _wait(timeout_s: float) -> bool:
    """Sleep until a nudge or the timeout. False when the parent is gone."""
    ready, _, _ = select.select([0], [], [], timeout_s)
    return not ready or bool(os.read(0, 4096))


def _tell() -> None:
    """Nudge the parent; if it is gone, the next wait notices."""
    try:
        os.write(1, b"\n")
    except BrokenPipeError:
        raise SystemExit(0) from None


if __name__ == "__main__":
    main()
