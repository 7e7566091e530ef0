"""The courier as a child process: started, spoken to, watched and started again by the trainer.

Two pipes carry frames. The trainer's ends never block: what the courier has not taken yet waits
here. When the parent dies, its end of the pipe closes and the courier exits.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from qsgd_core.errors import BackendError, ResultCorruptError
from qsgd_core.files import named_after
from qsgd_core.schedule.child import command
from qsgd_core.schedule.messages import Answer, Decoder, Finished, Frame, News, Written

COURIER_MODULE = "qsgd_core.children.courier"
MAX_DEATHS = 5
"""Couriers that may die in a row before that is an error, if none has brought anything forward."""
CHUNK = 1 << 16
STOP_S = 5.0
"""How long a courier has to end by itself."""
PROGRESS = (News.kind, Answer.kind, Finished.kind)
"""What a courier says when something has come of it; the rest each one says when it begins."""


class CourierProcess:
    """One courier for one run.

    Args:
        ledger_url: where its jobs are.
        run: whose jobs it serves; its row in the ledger names the backend and the options.
        ledger_id: which ledger must be there; None: whichever is.
        log: file that the courier's log and tracebacks go to; None: this process's stderr.

    Attributes:
        starts: how many couriers have been started. One more than before means that the old one
            died with what it had been told since: say it again.
    """

    def __init__(
        self, ledger_url: str, run: str, *, ledger_id: str | None = None, log: Path | None = None
    ) -> None:
        self.starts = 0
        self._config: dict[str, Any] = configuration(ledger_url, run, ledger_id, once=False)
        self._log = log
        self._owner = os.getpid()
        self._child: subprocess.Popen[bytes] | None = None
        self._unsent = bytearray()
        self._decoder = Decoder()
        self._deaths = 0
        self._rest_until = 0.0

    def send(self, frame: Frame) -> None:
        """Have the courier told, now or as soon as it takes it; lost if it dies before."""
        if self._alive(wait_s=0.0):
            self._unsent += frame.encode()
            self._flush()

    def receive(self, timeout_s: float = 0.0) -> list[Frame]:
        """What the courier has said; waits for it up to ``timeout_s``. Starts one if none is there.

        Raises:
            BackendError: it keeps dying.
        """
        if not self._alive(wait_s=timeout_s):
            return []
        self._flush()
        until = time.monotonic() + timeout_s
        frames: list[Frame] = []
        while self._child is not None:
            wait_s = 0.0 if frames else max(0.0, until - time.monotonic())
            mailbox = select.poll()  # select() takes no descriptor above 1023
            mailbox.register(_pipe(self._child.stdout), select.POLLIN)
            if self._unsent and wait_s:  # who has the time to wait has the time to send
                mailbox.register(_pipe(self._child.stdin), select.POLLOUT)
            ready = dict(mailbox.poll(wait_s * 1000))
            if not ready:
                break
            if ready.pop(_pipe(self._child.stdout), 0):
                frames += self._read(self._child)
            if ready:
                self._flush()
        if any(frame.kind in PROGRESS for frame in frames):
            self._deaths = 0
        return frames

    def _read(self, child: subprocess.Popen[bytes]) -> list[Frame]:
        data = os.read(_pipe(child.stdout), CHUNK)
        if not data:
            self._reap()
            return []
        try:
            return [frame for frame in self._decoder.feed(data) if not self._is_own(frame)]
        except ResultCorruptError:
            child.kill()
            self._reap()
            return []

    def _is_own(self, frame: Frame) -> bool:
        """Keep what the next courier is to be started with; whether it was that."""
        if frame.kind != Written.kind:
            return False
        self._config["seen"] = dict(frame.values)
        return True

    def nudge(self) -> None:
        """Tell the courier that the ledger has something new."""
        if self._alive(wait_s=5.0):
            self.send(News().to_frame())

    def wait(self, timeout_s: float) -> None:
        """Return when the courier says anything, dies, or after ``timeout_s``."""
        self.receive(timeout_s)

    def rest(self, seconds: float) -> None:
        """Start no courier for so long: the last one said that it cannot go on."""
        self._rest_until = time.monotonic() + seconds

    def hang_up(self) -> None:
        """Let the courier end by itself; :meth:`stop` waits for that."""
        if self._child is not None and self._child.stdin is not None and os.getpid() == self._owner:
            self._child.stdin.close()

    def stop(self, *, within_s: float = STOP_S) -> None:
        """End the courier; what it was doing stays on the ledger.

        Args:
            within_s: how long it has to end by itself.
        """
        if self._child is None or os.getpid() != self._owner:
            return
        self.hang_up()
        try:
            self._child.wait(timeout=within_s)
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

    def _alive(self, *, wait_s: float) -> bool:
        if os.getpid() != self._owner:
            return False  # a forked DataLoader worker never talks to a courier
        if self._child is not None and self._child.poll() is not None and not self._has_said():
            self._reap()
        if self._child is None:
            if self._deaths >= MAX_DEATHS:
                self._deaths = 0  # who goes on all the same may try as often again
                where = f"; its log is {self._log}" if self._log else ""
                raise BackendError(
                    f"The process that talks to the backend died {MAX_DEATHS} times in a row"
                    f"{where}. What it was doing is on the ledger: see qsgd jobs list."
                )
            resting = self._rest_until - time.monotonic()
            if resting > 0:
                time.sleep(min(resting, wait_s))
            if resting > wait_s:
                return False
            self._start()
        return True

    def _has_said(self) -> bool:
        """Whether there is still something to be read of a courier that has ended."""
        if self._child is None:
            return False
        mailbox = select.poll()
        mailbox.register(_pipe(self._child.stdout), select.POLLIN)
        return any(event & select.POLLIN for _, event in mailbox.poll(0))

    def _start(self) -> None:
        with _opened(self._log) as stderr:
            self._child = subprocess.Popen(  # noqa: S603  our own interpreter and module
                command(COURIER_MODULE),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                start_new_session=True,  # a Ctrl-C in the terminal is the trainer's to handle
            )
        os.set_blocking(_pipe(self._child.stdin), False)
        self.starts += 1
        self._decoder = Decoder()
        self._unsent = bytearray(_line(self._config))
        self._flush()

    def _flush(self) -> None:
        if self._child is None:
            return
        try:
            while self._unsent:
                sent = os.write(_pipe(self._child.stdin), self._unsent[:CHUNK])
                del self._unsent[:sent]
        except BlockingIOError:  # the pipe is full; the rest goes at the next step
            return
        except OSError:  # it has died; receive() sees to it
            self._unsent.clear()

    def _reap(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()
        child.wait()
        self._deaths += 1
        pause_s = min(0.1 * 2**self._deaths, 5.0)
        self._rest_until = max(self._rest_until, time.monotonic() + pause_s)


def log_of(run: str, home: Path) -> Path:
    """Where the couriers of a run write down what went wrong."""
    return home / "couriers" / named_after(run, ".log")


def look_once(
    ledger_url: str, run: str, *, ledger_id: str | None = None, log: Path | None = None
) -> None:
    """Have a courier adopt what is in doubt and collect what is done; it submits nothing.

    Returns when it has looked at every job once, or at once if the run has a courier at work.
    """
    with _opened(log) as stderr:
        subprocess.run(  # noqa: S603  our own interpreter and module
            command(COURIER_MODULE),
            input=_line(configuration(ledger_url, run, ledger_id, once=True)),
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,  # as above
            check=False,  # what it stopped with is on the ledger
        )


def _pipe(end: IO[bytes] | None) -> int:
    assert end is not None  # noqa: S101  both are pipes
    return end.fileno()


def configuration(
    ledger_url: str, run: str, ledger_id: str | None, *, once: bool
) -> dict[str, Any]:
    """What a courier is told in the line that it is started with, as JSON."""
    return {"ledger": ledger_url, "ledger_id": ledger_id, "seen": None, "run": run, "once": once}


def _line(config: Mapping[str, Any]) -> bytes:
    return json.dumps(config).encode() + b"\n"


@contextmanager
def _opened(log: Path | None) -> Iterator[IO[bytes] | None]:
    if log is None:
        yield None
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        yield file
