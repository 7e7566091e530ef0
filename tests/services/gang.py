"""A few processes joined by torch.distributed (gloo, loopback) that run functions of a test file.

Starting them costs seconds, so a test module keeps one gang and sends each test's function to it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import sys
import tempfile
import traceback
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from patience import PATIENCE_S

COLLECTIVE_S = 300
"""How long a rank waits for the others, so for one that has failed as well."""


class Gang:
    """Workers, made at the first call and again after one that failed.

    Args:
        file: a Python file; its functions run on the workers.
        world: number of workers.
    """

    def __init__(self, file: str, world: int = 2) -> None:
        self._file, self._world = file, world
        self._workers: list[tuple[Any, Connection]] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def run(self, function: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Call a function on every worker; what each returned, by rank.

        Raises:
            AssertionError: a worker raised (with its traceback), died or took too long.
        """
        if not self._workers:
            self._start()
        for _, pipe in self._workers:
            pipe.send((function, args, kwargs))
        answers = [self._answer(rank, PATIENCE_S) for rank in range(self._world)]
        if failures := [text for ok, text in answers if not ok]:
            self.close()
            raise AssertionError("\n".join(failures))
        return [value for _, value in answers]

    def close(self) -> None:
        """End the workers."""
        for process, pipe in self._workers:
            pipe.close()
            process.kill()
            process.join()
        self._workers.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def _start(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        context = multiprocessing.get_context("spawn")
        for rank in range(self._world):
            ours, theirs = context.Pipe()
            args = (theirs, self._file, rank, self._world, self._folder.name)
            process = context.Process(target=_work, args=args, daemon=True)
            process.start()
            theirs.close()
            self._workers.append((process, ours))
        for rank in range(self._world):
            ok, text = self._answer(rank, PATIENCE_S)
            if not ok:
                self.close()
                raise AssertionError(text)

    def _answer(self, rank: int, timeout_s: float) -> tuple[bool, Any]:
        pipe = self._workers[rank][1]
        with contextlib.suppress(EOFError):
            if not pipe.poll(timeout_s):
                return False, f"rank {rank} gave no answer in {timeout_s} s"
            answer: tuple[bool, Any] = pipe.recv()
            return answer
        return False, f"rank {rank} died"


def _work(pipe: Connection, file: str, rank: int, world: int, folder: str) -> None:
    os.environ |= {"GLOO_SOCKET_IFNAME": "lo", "RANK": str(rank), "WORLD_SIZE": str(world)}
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=COLLECTIVE_S),
    )
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    pipe.send((True, None))
    with contextlib.suppress(EOFError):
        while True:
            function, args, kwargs = pipe.recv()
            try:
                answer = True, getattr(module, function)(*args, **kwargs)
            except Exception:  # noqa: BLE001  the test that asked shows it
                answer = False, f"rank {rank}:\n{traceback.format_exc()}"
            pipe.send(answer)
