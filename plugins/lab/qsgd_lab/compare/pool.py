"""Runs in processes of this machine: one that dies takes no other run with it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from qsgd_core.cli.streams import replace_what_cannot_be_shown
from qsgd_core.errors import ConfigError
from qsgd_lab.compare.executors import DIED
from qsgd_lab.compare.plan import RunKey
from qsgd_lab.compare.runs import State, describe, run_one, write_failure

logger = logging.getLogger(__name__)

SAFE_PATH = "PYTHONSAFEPATH"

SAVE_S = 8.0
"""After Ctrl-C, how long runs may take to finish their step and save."""


class LocalExecutor:
    """A fixed number of processes, each of which has one run at a time.

    Every process is a pool of its own: when one dies, it is known which run it had.
    """

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise ConfigError(f"--jobs must be at least 1, not {jobs}.")
        self.jobs = jobs

    def run(self, home: Path, keys: Sequence[RunKey]) -> Iterator[RunKey]:
        """See :class:`~qsgd_lab.compare.executors.Executor`."""
        waiting = list(reversed(keys))
        idle = [_pool() for _ in range(min(self.jobs, len(keys)))]
        busy: dict[Future[State], tuple[RunKey, ProcessPoolExecutor]] = {}
        try:
            while waiting or busy:
                while waiting and idle:
                    key, pool = waiting.pop(), idle.pop()
                    with _no_current_folder(), _no_main_program():
                        future = pool.submit(run_one, str(home), key.arm, key.seed)
                    busy[future] = (key, pool)
                done, _ = wait(busy, return_when=FIRST_COMPLETED)
                for future in done:
                    key, pool = busy.pop(future)
                    idle.append(_after(future, key, pool, home))
                    yield key
        except KeyboardInterrupt:
            logger.warning(
                "%d runs are under way: each has %.0f s to finish its step and save; one that "
                "waits for a service stops waiting. A second Ctrl-C ends them at once.",
                len(busy),
                SAVE_S,
            )
            raise
        finally:
            # The terminal's Ctrl-C has reached the processes too.
            wait(busy, timeout=SAVE_S if busy else 0)
            for pool in (*idle, *(pool for _, pool in busy.values())):
                pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children() if busy else ():
                process.terminate()


def _after(
    future: Future[State], key: RunKey, pool: ProcessPoolExecutor, home: Path
) -> ProcessPoolExecutor:
    """The pool for the next run: the same, or a new one where its process died."""
    try:
        future.result()
    except BrokenProcessPool:
        write_failure(home, key, f"{DIED}.")
        pool.shutdown(wait=False)
        return _pool()
    except SystemExit as error:  # a script that calls sys.exit(): the end of that run, not of all
        write_failure(home, key, describe(error))
    return pool


def _pool() -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    own = sys.flags.safe_path
    return ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin, initargs=(own,))


@contextmanager
def _no_current_folder() -> Iterator[None]:
    """Processes that start meanwhile take the standard library from where it is.

    ``spawn`` starts them by ``python -c``, whose path begins with the current folder: a socket.py
    that lies there would be imported before the child has this process's path.
    """
    if sys.flags.safe_path:
        yield
        return
    os.environ[SAFE_PATH] = "1"  # noqa: TID251  for children; nothing is read
    try:
        yield
    finally:
        del os.environ[SAFE_PATH]  # noqa: TID251


@contextmanager
def _no_main_program() -> Iterator[None]:
    """Processes that start meanwhile do not run this process's program again.

    ``spawn`` has them import it, which they need for nothing: one that came from standard input is
    in no file, and one without ``if __name__ == "__main__"`` would start a comparison of its own.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _begin(own: bool) -> None:
    """In a new process: leave Ctrl-C to the training loop, and do not outlive the parent.

    What a task prints goes to stderr, as stdout is the comparison's own.

    Args:
        own: whether the parent itself runs without the current folder; else what a script starts
            is not to see the variable.
    """
    if not own:
        os.environ.pop(SAFE_PATH, None)  # noqa: TID251
    sys.stdout = sys.stderr
    os.dup2(2, 1)
    replace_what_cannot_be_shown()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
