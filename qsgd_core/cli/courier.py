"""The courier's entry point: ``python -m qsgd_core.cli.courier``, one JSON line on stdin.

The only process of a run that imports an SDK or opens a socket. It serves until its parent closes
its end of the pipe; with ``"once": true`` it submits nothing, has one look at everything, and ends.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import select
import sys
from collections.abc import Callable

from qsgd_core.backend import Backend
from qsgd_core.errors import BackendError, BackendGoneError, ConfigError, QSGDError
from qsgd_core.isolate import describe
from qsgd_core.registry import default_registry
from qsgd_core.schedule.courier import Courier
from qsgd_core.schedule.ledger import Ledger
from qsgd_core.schedule.process import CHANGED, READY
from qsgd_core.schedule.rows import Run

logger = logging.getLogger("qsgd_core.courier")

CLAIM_S = 0.2
"""Wait between two tries to become the run's only courier."""


def main() -> None:
    """Serve the run that stdin names."""
    # INFO is for QSGD and the adapter: an SDK's would bury them (Qiskit logs every compiler pass).
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("qsgd_core").setLevel(logging.INFO)
    config = json.loads(_read_line())
    tell = _parent()
    ledger = Ledger(config["ledger"])
    while True:
        with ledger.serve(config["run"]) as alone:
            if alone:
                _serve(ledger, config["run"], tell, once=config["once"])
                return
        if config["once"] or not _wait(CLAIM_S):
            return


def _serve(ledger: Ledger, name: str, tell: Callable[[bytes], None], *, once: bool) -> None:
    """Do the courier's work; what it cannot go on from is told to the trainer by the ledger."""
    try:
        backend = _look(ledger, ledger.run(name))
        tell(READY)
        courier = Courier(ledger, backend, run=name, submit=not once)
        while True:
            changed = courier.round()
            if changed:
                tell(CHANGED)
            over = not changed if once else not _wait(courier.idle_s())
            if over:
                return
    except QSGDError as error:
        logger.error("%s", error)
        ledger.stopped(name, error)
    except Exception as error:  # a plugin or an SDK: whoever waits for the run is told
        logger.exception("The courier cannot go on.")
        ledger.stopped(
            name,
            BackendError(
                f"The courier of run {name!r} cannot go on: {describe(error)}. Its jobs stay on "
                "the ledger: see qsgd jobs list."
            ),
        )
    raise SystemExit(1)


def _look(ledger: Ledger, run: Run) -> Backend:
    """The first look at the service: pins the run to a device and notes what it can do.

    ``resolve`` is what makes capabilities live, so it is called on the backend that is kept.
    """
    backend = open_backend(run)
    logging.getLogger(type(backend).__module__.partition(".")[0]).setLevel(logging.INFO)
    try:
        pinned = backend.resolve()
    except BackendGoneError as error:
        if run.pinned is None or run.capabilities is None:
            raise
        # What has been paid for on a device that is gone by now can still be collected.
        logger.warning("%s What was sent to it before is collected all the same.", error)
        ledger.looked(run.run, pinned=run.pinned, capabilities=run.capabilities)
        return backend
    if pinned != backend.name:
        backend = open_backend(dataclasses.replace(run, pinned=pinned))
        backend.resolve()
    capabilities = dataclasses.asdict(backend.capabilities)
    capabilities["gates"] = sorted(capabilities["gates"])
    ledger.looked(run.run, pinned=pinned, capabilities=json.dumps(capabilities))
    return backend


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


def _parent() -> Callable[[bytes], None]:
    """Takes stdout for nudges to the parent; what an SDK prints goes to stderr from now on."""
    pipe = os.dup(1)
    os.dup2(2, 1)

    def tell(byte: bytes) -> None:
        try:
            os.write(pipe, byte)
        except BrokenPipeError:
            raise SystemExit(0) from None

    return tell


if __name__ == "__main__":
    main()
