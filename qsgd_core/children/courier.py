"""The courier's entry point: one JSON line, then frames on two pipes.

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

from qsgd_core.backend import Backend
from qsgd_core.children.service import make_service, pin
from qsgd_core.errors import (
    BackendError,
    BackendGoneError,
    QSGDError,
    TransientError,
)
from qsgd_core.isolate import describe
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.courier.desk import Desk
from qsgd_core.schedule.failures import pack_error
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.rows import Run
from qsgd_core.schedule.ledger.writes import NONE, Write
from qsgd_core.schedule.messages import Decoder, Frame, Ready, Stopped, Written
from qsgd_core.schedule.trainer.process import CHUNK

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
    parent = Parent()
    config = json.loads(parent.line())
    try:
        seen = Write(**config["seen"]) if config["seen"] else NONE
        ledger = Ledger(config["ledger"], known_as=config["ledger_id"], seen=seen)
        while True:
            with ledger.serve(config["run"]) as alone:
                if alone:
                    _serve(ledger, config["run"], parent, once=config["once"])
                    return
            if config["once"] or not parent.wait(CLAIM_S):
                return
    except TransientError:
        raise  # the ledger is busy or its server away: another courier is started
    except QSGDError as error:
        logger.error("%s", error)
        parent.tell(Stopped(pack_error(error)).to_frame())
        raise SystemExit(1) from None


def _serve(ledger: Ledger, name: str, parent: Parent, *, once: bool) -> None:
    """Do the courier's work; what it cannot go on from is told to the trainer and the ledger."""
    try:
        backend = _look(ledger, ledger.run(name))
        courier = Courier(ledger, backend, run=name, submit=not once)
        desk = Desk(ledger, backend, courier, run=name)
        parent.tell(Ready().to_frame())
        told = NONE
        while True:
            for frame in parent.heard():
                desk.take(frame)
            changed = courier.round()
            for frame in desk.news(changed=changed):
                parent.tell(frame)
            if (seen := ledger.seen) != told:
                parent.tell(Written(seen.number, seen.name).to_frame())
                told = seen
            if changed and once:
                continue
            if once:
                courier.require_none_stuck()
                return
            if not parent.wait(courier.idle_s()):
                return
    except QSGDError as error:
        logger.error("%s", error)
        stop = error
    except Exception as error:  # a plugin or an SDK: whoever waits for the run is told
        logger.exception("The courier cannot go on.")
        stop = BackendError(
            f"The courier of run {name!r} cannot go on: {describe(error)}. Its jobs stay on "
            "the ledger: see qsgd jobs list."
        )
    parent.tell(Stopped(pack_error(stop)).to_frame())
    try:
        ledger.stopped(name, stop)
    except QSGDError as error:  # it is the ledger that is lost
        logger.error("%s", error)
    raise SystemExit(1)


def _look(ledger: Ledger, run: Run) -> Backend:
    """The first look at the service: pins the run to a device and notes what it can do."""
    try:
        backend = pin(run.pinned or run.backend, lambda name: open_backend(run, name))
    except BackendGoneError as error:
        if run.pinned is None or run.capabilities is None:
            raise
        # What has been paid for on a device that is gone by now can still be collected.
        logger.warning("%s What was sent to it before is collected all the same.", error)
        ledger.looked(run.run, pinned=run.pinned, capabilities=run.capabilities)
        return open_backend(run, run.pinned)
    capabilities = dataclasses.asdict(backend.capabilities)
    capabilities["gates"] = sorted(capabilities["gates"])
    ledger.looked(run.run, pinned=backend.name, capabilities=json.dumps(capabilities))
    return backend


def open_backend(run: Run, name: str) -> Backend:
    """The run's backend by a name of it; its adapter logs at INFO from now on.

    Raises:
        ConfigError: the name is not a queued service.
    """
    backend = make_service(name, json.loads(run.options), simulator="it needs no courier")
    logging.getLogger(type(backend).__module__.partition(".")[0]).setLevel(logging.INFO)
    return backend


class Parent:
    """The trainer, at the other end of two pipes.

    Takes stdout for itself: what an SDK prints goes to stderr from now on.
    """

    def __init__(self) -> None:
        self._pipe = os.dup(1)
        os.dup2(2, 1)
        self._decoder = Decoder()
        self._heard: list[Frame] = []

    def line(self) -> bytes:
        """The first line, byte by byte: what follows it are frames."""
        line = b""
        while not line.endswith(b"\n"):
            byte = os.read(0, 1)
            if not byte:
                raise SystemExit(0)
            line += byte
        return line

    def wait(self, timeout_s: float) -> bool:
        """Sleep until the trainer says something or the timeout. False when it is gone."""
        ready, _, _ = select.select([0], [], [], timeout_s)
        if not ready:
            return True
        data = os.read(0, CHUNK)
        self._heard += self._decoder.feed(data)
        return bool(data)

    def heard(self) -> list[Frame]:
        """What the trainer has said since the last call."""
        heard, self._heard = self._heard, []
        return heard

    def tell(self, frame: Frame) -> None:
        """Say something to the trainer."""
        data = memoryview(frame.encode())
        try:
            while data:
                data = data[os.write(self._pipe, data) :]
        except BrokenPipeError:
            raise SystemExit(0) from None


if __name__ == "__main__":
    main()
