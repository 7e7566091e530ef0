"""A queued device in simulated time, behind the same interface as any vendor's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qsgd_core.backend import Backend
from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import Workload
from qsgd_core.errors import JobFailedError, JobNotDoneError
from qsgd_core.jobs import (
    Bits,
    Cost,
    JobHandle,
    JobState,
    JobStatus,
    Limit,
    NoiseSnapshot,
    Quote,
    Result,
)
from qsgd_core.seeds import derive_seed
from qsgd_core.simulate.noise import average_gate_error
from scheduler_parts.physics import Errors, sample

START_S = 1_767_225_600.0
"""When every simulated run begins: 2026-01-01 UTC."""
STEP_S = 86.4
"""Simulated seconds of a training step: 2,000 steps are two days."""
N_QUBITS = 4
DELAY_SPREAD = 0.5
"""Standard deviation of the logarithm of the time in the queue."""
PUBLISHED_DEPOLARISING = 0.010
PUBLISHED_READOUT = (0.012, 0.024)


@dataclass(frozen=True)
class Tariff:
    """What a job of ``rows`` circuits with ``shots`` each costs."""

    name: str
    cost: Callable[[int, int], Cost]


def _ibm(rows: int, shots: int) -> Cost:
    return Cost(usd=None, qpu_s=2.0 + 350e-6 * rows * shots, shots=rows * shots)


def _rigetti(rows: int, shots: int) -> Cost:
    program_sets = -(-rows // 100)
    return Cost(usd=0.30 * program_sets + 0.0009 * rows * shots, shots=rows * shots)


IBM = Tariff("ibm", _ibm)
"""2 s a job and 350 µs an execution."""
RIGETTI = Tariff("rigetti", _rigetti)
"""$0.30 a program set of up to 100 executables and $0.0009 a shot."""


@dataclass(frozen=True, eq=False)
class _Job:
    handle: JobHandle
    work: Workload
    shots: int
    seed: int
    ready_at: float
    cost: Cost


class SimulatedDevice(Backend):
    """Four qubits with errors that drift and are recalibrated at half time.

    A job waits for a lognormal time, runs at its end under the errors of that moment, and is
    billed what was quoted. The first job does not wait.

    Args:
        tariff: what it costs.
        errors: at every step, the truth; no method but :meth:`fetch` looks at it.
        delay_steps: median time in the queue.
        seed: of queue and shots.
        clock: simulated seconds.
    """

    def __init__(
        self,
        tariff: Tariff,
        errors: Errors,
        *,
        delay_steps: float,
        seed: int,
        clock: Callable[[], float],
    ) -> None:
        self.name = f"simulated_{tariff.name}"
        self.capabilities = Capabilities(paid=True, noisy=True, seeded=True, max_qubits=N_QUBITS)
        self._tariff = tariff
        self._errors = errors
        self._delay_s = delay_steps * STEP_S
        self._queue = np.random.default_rng(derive_seed("queue", seed))
        self._seed = seed
        self._clock = clock
        self._jobs: dict[str, _Job] = {}
        self._cancelled: set[str] = set()

    def quote(self, work: Workload, *, shots: int) -> Quote:
        """Exact: expected and worst are the same."""
        cost = self._tariff.cost(work.n_rows, shots)
        return Quote(expected=cost, worst=cost, source="simulated")

    def calibration(self, work: Workload) -> NoiseSnapshot:
        """What the vendor publishes: round figures, the same for all qubits and at all times."""
        error = average_gate_error(PUBLISHED_DEPOLARISING)
        pairs = [(i, (i + 1) % N_QUBITS) for i in range(N_QUBITS)]
        return NoiseSnapshot(
            stamp="published",
            physical_qubits=tuple(range(work.n_qubits)),
            readout=(PUBLISHED_READOUT,) * work.n_qubits,
            gate_error={"cx": dict.fromkeys(pairs, error)},
        )

    def submit(
        self, work: Workload, *, shots: int, tag: str, limit: Limit, seed: int | None = None
    ) -> JobHandle:
        """Put a job into the queue."""
        number = len(self._jobs)
        wait = self._delay_s * float(self._queue.lognormal(0.0, DELAY_SPREAD)) if number else 0.0
        handle = JobHandle(self.name, f"job-{number}", tag, self._clock())
        self._jobs[handle.job_id] = _Job(
            handle,
            work,
            shots,
            derive_seed("sample", self._seed, seed or 0, number),
            self._clock() + wait,
            self._tariff.cost(work.n_rows, shots),
        )
        return handle

    def status(self, handle: JobHandle) -> JobStatus:
        """Queued, done or cancelled; running takes no time."""
        job = self._jobs[handle.job_id]
        if handle.job_id in self._cancelled:
            return JobStatus(JobState.CANCELLED, "asked for", billed=Cost(0.0, 0.0, 0))
        done = self._clock() >= job.ready_at
        return JobStatus(JobState.DONE if done else JobState.QUEUED)

    def fetch(self, handle: JobHandle) -> Result:
        """Bits drawn from the distribution of the moment it ran."""
        job = self._jobs[handle.job_id]
        if handle.job_id in self._cancelled:
            raise JobFailedError(f"Job {handle.job_id} was cancelled.")
        if self._clock() < job.ready_at:
            raise JobNotDoneError(f"Job {handle.job_id} is queued.")
        step = min(int((job.ready_at - START_S) / STEP_S), self._errors.offset.shape[1] - 1)
        rng = np.random.default_rng(job.seed)
        parts = []
        for batch in job.work.batches:
            now = self._errors.rows(np.full(batch.n_rows, step))
            parts.append(Bits(sample(batch.circuit, batch.angles, now, shots=job.shots, rng=rng)))
        return Result(
            tuple(parts),
            executed_at=job.ready_at,
            physical_qubits=tuple(range(job.work.n_qubits)),
            billed=job.cost,
        )

    def find(self, tag: str) -> list[JobHandle]:
        """Every job under the tag."""
        return [job.handle for job in self._jobs.values() if job.handle.tag == tag]

    def cancel(self, handle: JobHandle) -> None:
        """Take a job out of the queue."""
        if self._clock() < self._jobs[handle.job_id].ready_at:
            self._cancelled.add(handle.job_id)

    def next_change(self) -> float:
        """When the next job that is still queued will be done; infinite if none is."""
        now = self._clock()
        waiting = [
            job.ready_at
            for name, job in self._jobs.items()
            if job.ready_at > now and name not in self._cancelled
        ]
        return min(waiting, default=float("inf"))

    def bills(self) -> list[Cost]:
        """The provider's own books: what every job that was not cancelled in the queue costs."""
        return [job.cost for name, job in self._jobs.items() if name not in self._cancelled]
