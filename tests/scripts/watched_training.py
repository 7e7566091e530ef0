"""Trains on a paid backend and tells, as JSON, what the scheduler did on the training thread.

Every audited event (files, sockets, databases, processes, sleeps, imports) and every lock that is
waited for inside the scheduler's share of a step, once it has asked for the first refresh. Given
the vendor's folder and a policy.
"""

from __future__ import annotations

import _thread
import json
import sys
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any

TRAINER = _thread.get_ident()
watching = False
seen: Counter[str] = Counter()
HARMLESS = ("builtins.id", "object.__getattr__", "sys._getframe")
"""Audited, and read this process's own memory only."""


def note(what: str) -> None:
    if watching and what not in HARMLESS and _thread.get_ident() == TRAINER:
        seen[what] += 1


class Watched:
    """A lock that says when it is taken."""

    def __init__(self, make: Any) -> None:
        self._lock = make()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if blocking:
            note("lock of " + sys._getframe(1).f_globals["__name__"])
        return self._lock.acquire(blocking, timeout)

    def __enter__(self) -> bool:
        note("lock of " + sys._getframe(1).f_globals["__name__"])
        return self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)


# Before anything else makes one.
real_lock, real_rlock = threading.Lock, threading.RLock
threading.Lock = lambda: Watched(real_lock)  # type: ignore[assignment, misc]
threading.RLock = lambda: Watched(real_rlock)  # type: ignore[assignment, misc]
sys.addaudithook(lambda event, arguments: note(event))

import torch  # noqa: E402

import qsgd_core as qsgd  # noqa: E402
from qsgd_core.events import Event, ScheduleChanged  # noqa: E402
from qsgd_core.measure.paid import ScheduledRunner  # noqa: E402

NEEDED = {"asked": 4, "answered": 3, "applied": 3}
happened: Counter[str] = Counter()


def see(event: Event) -> None:
    if isinstance(event, ScheduleChanged):
        happened[event.what] += 1


def watched(run: Any) -> Any:
    def call(*arguments: Any, **more: Any) -> Any:
        global watching
        watching = happened["asked"] > 0
        try:
            return run(*arguments, **more)
        finally:
            watching = False

    return call


def main() -> None:
    """Train until enough has happened."""
    ScheduledRunner.run = watched(ScheduledRunner.run)  # type: ignore[method-assign]
    weights = [torch.nn.Parameter(torch.randn(8, 8)) for _ in range(3)]
    opt = qsgd.QSGD(
        weights,
        perturbation="circuit",
        n_qubits=4,
        depth=2,
        backend="filebox:x",
        backend_options={"folder": sys.argv[1], "run_s": 0.01},
        policy=sys.argv[2],
        wait="never",
        shots=20,
        every=5,
        budget="$10",
        schedule={"twin_every": 1},
        observers=[see],
    )
    end = time.monotonic() + 100
    while any(happened[what] < count for what, count in NEEDED.items()):
        assert time.monotonic() < end, happened
        opt.zero_grad()
        sum((w**2).mean() for w in weights).backward()  # type: ignore[union-attr]
        opt.step()
    opt.close(finished=False)
    sys.stdout.write(json.dumps({"seen": seen, "happened": happened}))


if __name__ == "__main__":
    main()
