"""The courier as a child process: started, woken, watched and started again by the trainer.

Two pipes carry one-byte nudges and nothing else; the ledger is the mailbox. When the parent dies,
its end of the pipe closes and the courier exits.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from qsgd_core.errors import BackendError

COURIER_MODULE = "qsgd_core.cli.courier"
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
        self._config = json.dumps({"ledger": ledger_url, "run": run})
        self._log = log
        self._owner = os.getpid()
        self._child: subprocess.Popen[bytes] | None = None
        self._deaths = 0

    def nudge(self) -> None:
        """Tell the courier that the ledger has something new; start it if it is not there.

        Raises:
            BackendError: it keeps dying.
        """
        child = self._alive()
        if child is None or child.stdin is None:
            return
        try:
            child.stdin.write(b"\n")
            child.stdin.flush()
        except (BrokenPipeError, OSError):
            self._reap()

    def wait(self, timeout_s: float) -> None:
        """Return when the courier says that something changed, dies, or after ``timeout_s``."""
        child = self._alive()
        if child is None or child.stdout is None:
            return
        ready, _, _ = select.select([child.stdout], [], [], timeout_s)
        if not ready:
            return
        if os.read(child.stdout.fileno(), 4096):
            self._deaths = 0
        else:
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
        stderr = None
        if self._log is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            stderr = self._log.open("ab")
        try:
            self._child = subprocess.Popen(  # noqa: S603  our own interpreter and module
                [sys.executable, "-m", COURIER_MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # a Ctrl-C in the terminal is the trainer's to handle
            )
        finally:
            if stderr is not None:
                stderr.close()
        if self._child.stdin is not None:
            self._child.stdin.write(self._config.encode() + b"\n")
            self._child.stdin.flush()

    def _reap(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        child.wait()
        self._deaths += 1
