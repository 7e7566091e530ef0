"""The courier as a child process: started, woken, watched and started again by the trainer.

Two pipes carry one-byte nudges and nothing else; the ledger is the mailbox. When the parent dies,
its end of the pipe closes and the courier exits. The courier says :data:`READY` once it has had its
first look, and :data:`CHANGED` whenever the ledger has something new.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from qsgd_core.errors import BackendError

COURIER_MODULE = "qsgd_core.cli.courier"
READY, CHANGED = b"r", b"c"
MAX_DEATHS = 5
"""Couriers that may die in a row without having changed anything before the run gives up."""


class CourierProcess:
    """One courier for one run.

    Args:
        ledger_url: the mailbox.
        run: whose jobs it serves; its row in the ledger names the backend and the options.
        log: file that the courier's log and tracebacks go to; None: this process's stderr.
    """

    def __init__(self, ledger_url: str, run: str, *, log: Path | None = None) -> None:
        self._config = _config(ledger_url, run, once=False)
        self._log = log
        self._owner = os.getpid()
        self._child: subprocess.Popen[bytes] | None = None
        self._deaths = 0

    def nudge(self) -> None:
        """Tell the courier that the ledger has something new; start it if it is not there.

        Raises:
            BackendError: it keeps dying.
        """
        if self._alive() is not None:
            self._send(b"\n")

    def wait(self, timeout_s: float) -> None:
        """Return when the courier says that something changed, dies, or after ``timeout_s``."""
        child = self._alive()
        if child is None or child.stdout is None:
            return
        mailbox = select.poll()  # select() takes no descriptor above 1023
        mailbox.register(child.stdout, select.POLLIN)
        if not mailbox.poll(timeout_s * 1000):
            return
        said = os.read(child.stdout.fileno(), 4096)
        if CHANGED in said:
            self._deaths = 0
        elif not said:
            self._reap()

    def stop(self) -> None:
        """End the courier; what it was doing stays on the ledger."""
        if self._child is None or os.getpid() != self._owner:
            return
        if self._child.stdin is not None:
            self._child.stdin.close()
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._child = None

    @property
    def pid(self) -> int | None:
        """The courier's process id, while there is one."""
        return None if self._child is None else self._child.pid

    def _alive(self) -> subprocess.Popen[bytes] | None:
        if os.getpid() != self._owner:
            return None  # a forked DataLoader worker never talks to a courier
        if self._child is not None and self._child.poll() is not None:
            self._reap()
        if self._child is None:
            self._start()
        return self._child

    def _start(self) -> None:
        if self._deaths >= MAX_DEATHS:
            where = f"; its log is {self._log}" if self._log else ""
            raise BackendError(
                f"The process that talks to the backend died {self._deaths} times in a row"
                f"{where}. What it was doing is on the ledger: see qsgd jobs list."
            )
        if self._deaths:
            time.sleep(min(0.1 * 2**self._deaths, 5.0))
        with _opened(self._log) as stderr:
            self._child = subprocess.Popen(  # noqa: S603  our own interpreter and module
                [sys.executable, "-m", COURIER_MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                start_new_session=True,  # a Ctrl-C in the terminal is the trainer's to handle
            )
        self._send(self._config)

    def _send(self, line: bytes) -> None:
        child = self._child
        try:
            if child is not None and child.stdin is not None:
                child.stdin.write(line)
        except OSError:  # it has died
            self._reap()

    def _reap(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        child.wait()
        self._deaths += 1


def look_once(ledger_url: str, run: str, *, log: Path | None = None) -> None:
    """Have a courier adopt what is in doubt and collect what is done; it submits nothing.

    Returns when it has looked at every job once, or at once if the run has a courier at work.
    """
    with _opened(log) as stderr:
        subprocess.run(  # noqa: S603  our own interpreter and module
            [sys.executable, "-m", COURIER_MODULE],
            input=_config(ledger_url, run, once=True),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            check=False,  # what it stopped with is on the ledger
        )


def _config(ledger_url: str, run: str, *, once: bool) -> bytes:
    return json.dumps({"ledger": ledger_url, "run": run, "once": once}).encode() + b"\n"


@contextmanager
def _opened(log: Path | None) -> Iterator[IO[bytes] | None]:
    if log is None:
        yield None
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        yield file
