"""The baseline: hold, as anyone would write it, with every advantage that costs nothing.

A refresh every k-th step, sent without waiting; each step uses the newest result that has arrived.
No limit on jobs in flight, no reserve, no step spent on anything else, and the caller picks the
number of shots with hindsight. The project's own ``hold`` runs beside it through the scheduler.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Workload
from qsgd_core.jobs import JobHandle, Limit
from scheduler_parts.device import SimulatedDevice

Floats = NDArray[np.float64]


def hold(
    steps: int,
    work_at: Callable[[int], Workload],
    device: SimulatedDevice,
    *,
    refreshes: int,
    shots: int,
    delay_steps: float,
    start_step: Callable[[int], None],
) -> Floats:
    """What every step used: float64 (steps, rows, n).

    Args:
        steps: of the run.
        work_at: the circuits of a step.
        device: the service.
        refreshes: that the budget pays for, at least one; spread evenly, so that a usual last one
            arrives before the end.
        shots: per circuit.
        delay_steps: the usual time in the queue.
        start_step: sets the clock.
    """
    due = set(np.floor(np.arange(refreshes) * (steps - delay_steps) / refreshes).astype(int))
    waiting: list[tuple[int, JobHandle, Workload]] = []
    newest, held = -1, np.empty(0)
    used = []
    for step in range(steps):
        start_step(step)
        if step in due:
            work = work_at(step)
            handle = device.submit(work, shots=shots, tag=f"{step}", limit=Limit(), seed=step)
            waiting.append((step, handle, work))
        for job in [job for job in waiting if device.status(job[1]).state.final]:
            waiting.remove(job)
            asked, handle, work = job
            if asked > newest:
                newest = asked
                held = np.concatenate(device.fetch(handle).expectations(work))
        used.append(held)
    return np.array(used)
