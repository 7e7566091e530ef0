"""What the scheduler of a paid backend takes from the training thread, step by step.

A model of 29 tensors is trained while jobs are out on a device that takes 500 steps to answer. The
device is the test double (tests/services/filebox) behind a real courier process, which polls,
learns and writes on the other core. Measured on the training thread, by its own CPU clock: the
scheduler's share (listening to the courier, deciding, asking, the twin), and all that s takes
(circuits planned, scheduler, values decoded). The goal: 99 of 100 steps under 1 ms for the
scheduler's share.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
TENSORS, WIDTH = 29, 64
GOAL_MS = 1.0
WARM_UP = 30
"""Steps at the beginning that are counted apart: circuits are compiled, the courier starts."""


class Stopwatch:
    """Time that calls of one method take, each call an entry."""

    def __init__(self, owner: type, name: str) -> None:
        self.cpu_s: list[float] = []
        self.wall_s: list[float] = []
        setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def timed(*args: Any, **kwargs: Any) -> Any:
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.cpu_s.append(time.thread_time() - cpu)
                self.wall_s.append(time.perf_counter() - wall)

        return timed

    def report(self, every: int) -> dict[str, float]:
        """Milliseconds a step, if every so-manieth step makes a call."""
        calls = len(self.cpu_s) - WARM_UP
        cpu, wall = np.zeros(calls * every), np.zeros(calls * every)
        cpu[::every], wall[::every] = (
            1e3 * np.array(x[WARM_UP:]) for x in (self.cpu_s, self.wall_s)
        )
        return {
            "cpu_ms_p50": float(np.percentile(cpu, 50)),
            "cpu_ms_p99": float(np.percentile(cpu, 99)),
            "cpu_ms_max": float(cpu.max()),
            "wall_ms_p50": float(np.percentile(wall, 50)),
            "wall_ms_p99": float(np.percentile(wall, 99)),
            "steps": len(cpu),
        }


def provide_filebox() -> None:
    """Install the test double into a folder of its own, for this process and its courier."""
    import subprocess

    site = tempfile.mkdtemp(prefix="filebox-")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    how = ["-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", site]
    subprocess.run([*pip, *how, ROOT / "tests" / "services" / "filebox"], check=True)
    sys.path[:0] = [site, str(ROOT)]
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
    os.environ["QSGD_LOAD_PLUGINS"] = "qsgd-filebox"


def train_step(x: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    """A loss in which every tensor takes part."""
    for weight in weights:
        x = x + 0.1 * torch.tanh(x @ weight)
    return (x**2).mean()


def seconds_a_step(qsgd: Any, args: argparse.Namespace, data: torch.Tensor) -> float:
    """Of the same training on a simulator."""
    weights = [torch.nn.Parameter(0.1 * torch.randn(WIDTH, WIDTH)) for _ in range(TENSORS)]
    opt = qsgd.QSGD(weights, perturbation=args.perturbation, n_qubits=4, depth=2, backend="exact")
    began = 0.0
    for step in range(120):
        if step == 20:
            began = time.perf_counter()
        opt.zero_grad()
        train_step(data, weights).backward()
        opt.step()
    return (time.perf_counter() - began) / 100


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train, and report."""
    import qsgd_core as qsgd
    from qsgd_core.events import Event, ScheduleChanged
    from qsgd_core.measure.paid import ScheduledRunner
    from qsgd_core.optim.source.modulation import Circuits

    torch.manual_seed(0)
    torch.set_num_threads(1)
    weights = [torch.nn.Parameter(0.1 * torch.randn(WIDTH, WIDTH)) for _ in range(TENSORS)]
    data = torch.randn(args.batch, WIDTH)
    happened: Counter[str] = Counter()

    def see(event: Event) -> None:
        if isinstance(event, ScheduleChanged):
            happened[event.what] += 1

    lag_s = args.delay * seconds_a_step(qsgd, args, data)
    scheduler = Stopwatch(ScheduledRunner, "run")
    whole = Stopwatch(Circuits, "modulate")
    opt = qsgd.QSGD(
        weights,
        perturbation=args.perturbation,
        n_qubits=4,
        depth=2,
        backend="filebox:x",
        backend_options={"folder": str(folder / "vendor"), "run_s": lag_s},
        policy=args.policy,
        wait="never",
        shots=args.shots,
        every=args.every,
        total_steps=args.steps,
        budget="$100",
        schedule={"twin_every": args.twin_every, "max_in_flight": args.in_flight},
        observers=[see],
    )
    began = time.perf_counter()
    for _ in range(args.steps):
        opt.zero_grad()
        train_step(data, weights).backward()
        opt.step()
    took_s = time.perf_counter() - began
    sources = dict(opt.qsgd_stats().sources)
    runner = opt._term.source.paid
    assert runner is not None
    delays = list(runner.state()["delays"])
    opt.close(finished=True)
    share = scheduler.report(args.twin_every)
    return {
        "scheduler": share,
        "all_of_s": whole.report(args.twin_every),
        "goal_ms": GOAL_MS,
        "reached": share["cpu_ms_p99"] <= GOAL_MS,
        "tensors": TENSORS,
        "qubits": 4,
        "depth": 2,
        "perturbation": args.perturbation,
        "policy": args.policy,
        "twin_every": args.twin_every,
        "steps": args.steps,
        "step_ms": 1e3 * took_s / args.steps,
        "delay_steps_median": float(np.median(delays)) if delays else None,
        "results": len(delays),
        "in_flight_most": args.in_flight,
        "sources": sources,
        "events": dict(happened),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    """Print a table, or one JSON object with ``--json``."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--delay", type=int, default=500, help="steps until the device answers")
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--shots", type=int, default=200)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--twin-every", type=int, default=1, help="1: the twin in every step")
    parser.add_argument("--policy", default="tracked")
    parser.add_argument("--perturbation", default="circuit")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    provide_filebox()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["QSGD_HOME"] = str(Path(folder) / "home")
        report = measure(args, Path(folder))
    if args.json:
        print(json.dumps(report))
        return
    for name in ("scheduler", "all_of_s"):
        print(name, {key: round(value, 3) for key, value in report[name].items()})
    for key, value in report.items():
        if key not in ("scheduler", "all_of_s"):
            print(f"{key}: {value}")


if __name__ == "__main__":
    main()
