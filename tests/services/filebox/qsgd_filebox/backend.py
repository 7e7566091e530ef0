"""The adapter: what QSGD calls."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qsgd_core.backend import Backend
from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import CircuitBatch, Workload
from qsgd_core.errors import (
    AuthError,
    BackendError,
    BackendGoneError,
    JobFailedError,
    JobNotDoneError,
    TransientError,
)
from qsgd_core.jobs import Bits, Cost, JobHandle, JobState, JobStatus, Limit, Quote, Result
from qsgd_core.schedule.storage import pack_workload, unpack_workload
from qsgd_core.seeds import derive_seed
from qsgd_filebox.options import FileboxOptions
from qsgd_filebox.vendor import Job, Vendor


def sample(batch: CircuitBatch, shots: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The circuits' own bits."""
    import torch

    from qsgd_core.simulate import statevector

    angles = torch.from_numpy(batch.angles)
    return statevector.sample(batch.circuit, angles, shots=shots, rng=rng)


def toss(batch: CircuitBatch, shots: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Fair coins of the same shape."""
    return rng.integers(0, 2, (batch.n_rows, shots, batch.circuit.n_qubits), dtype=np.uint8)


class Filebox(Backend):
    """Jobs are files; see :class:`FileboxOptions` for what can go wrong."""

    def __init__(
        self,
        name: str,
        options: FileboxOptions,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.options = options
        self.vendor = Vendor(options, clock)
        self._sleep = sleep
        self.capabilities = Capabilities(
            seeded=True,
            paid=True,
            max_qubits=10,
            max_rows=options.max_rows,
            find_horizon_s=options.horizon_s,
        )

    def resolve(self) -> str:
        if self.options.bad_key:
            raise AuthError("filebox does not know this key. Set another.")
        if self.options.offline:
            raise BackendGoneError(f"{self.name} is retired. There are: filebox:y.")
        return self.name

    def quote(self, work: Workload, *, shots: int) -> Quote:
        o, executions = self.options, work.n_rows * shots
        usd = (o.job_micro_usd + o.shot_micro_usd * executions) / 1e6 if o.priced else None
        qpu_s = (o.job_qpu_us + o.shot_qpu_us * executions) / 1e6
        cost = Cost(usd=usd, qpu_s=qpu_s, shots=executions)
        worst = Cost(usd and usd * o.worst, qpu_s * o.worst, executions * o.worst)
        return Quote(expected=cost, worst=worst, source="filebox")

    def submit(
        self, work: Workload, *, shots: int, tag: str, limit: Limit, seed: int | None = None
    ) -> JobHandle:
        vendor, n = self.vendor, self.vendor.call()
        self._sleep(self.options.before_s)
        if vendor.meets("refused", n):
            raise TransientError(
                "429: too many jobs.", retryable=True, provider_code="429", nothing_made=True
            )
        if vendor.meets("rejected", n):
            raise BackendError(
                "400: filebox does not like this circuit.", provider_code="400", nothing_made=True
            )
        if vendor.meets("dropped", n):
            raise TransientError("The connection broke.", retryable=True, may_have_spent=True)
        doubles = vendor.meets("twice", n) or vendor.meets("duplicated", n)
        job, *_ = (
            vendor.accept(
                tag,
                pack_workload(work),
                shots=shots,
                rows=work.n_rows,
                seed=seed or 0,
                n=n,
                by_itself=by_itself,
            )
            for by_itself in ((False, True) if doubles else (False,))
        )
        self._sleep(self.options.after_s)
        if vendor.meets("lost", n) or vendor.meets("twice", n):
            raise TransientError("The connection broke.", retryable=True, may_have_spent=True)
        if vendor.meets("blamed", n):
            raise BackendError("filebox could not read its own answer.")
        return self._handle(job)

    def status(self, handle: JobHandle) -> JobStatus:
        job = self._job(handle)
        state = JobState(job["state"])
        reason = "the vendor's reasons" if state in (JobState.FAILED, JobState.CANCELLED) else None
        place = 1 + self.vendor.ahead_of(job) if state is JobState.QUEUED else None
        return JobStatus(state, reason, place, billed=self._billed(job) if state.final else None)

    def fetch(self, handle: JobHandle) -> Result:
        job = self._job(handle)
        if job["state"] == "queued":
            raise JobNotDoneError(f"Job {handle.job_id} is queued.")
        if job["state"] != "done":
            raise JobFailedError(f"Job {handle.job_id} was {job['state']}.")
        work = unpack_workload(base64.b64decode(job["payload"]))
        parts = []
        for i, batch in enumerate(work.batches):
            rng = np.random.default_rng(derive_seed(job["seed"], i))
            first = 1 if job["corrupt"] else 0
            rows = CircuitBatch(batch.circuit, batch.angles[first:] + self.options.turned)
            measure = toss if self.options.coins else sample
            parts.append(Bits(measure(rows, job["shots"], rng)))
        return Result(tuple(parts), executed_at=job["accepted_at"], billed=self._billed(job))

    def find(self, tag: str) -> list[JobHandle]:
        return [self._handle(job) for job in self.vendor.listed(tag)]

    def list_jobs(self, *, since: float) -> list[JobHandle]:
        return [self._handle(job) for job in self.vendor.listed() if job["accepted_at"] >= since]

    def cancel(self, handle: JobHandle) -> None:
        self._job(handle)
        self.vendor.cancel(handle.job_id)

    def _job(self, handle: JobHandle) -> Job:
        try:
            return self.vendor.job(handle.job_id)
        except FileNotFoundError as error:
            raise BackendGoneError(f"404: there is no job {handle.job_id}.") from error

    def _handle(self, job: Job) -> JobHandle:
        return JobHandle(self.name, job["id"], job["tag"], job["accepted_at"])

    def _billed(self, job: Job) -> Cost | None:
        whole = self.vendor.clock() >= job["ended_at"] + self.options.usage_s
        if job["silent"] or not (whole or job.get("understated")):
            return None
        part = 1 if whole else 2
        return Cost(
            job["micro_usd"] // part / 1e6, job["qpu_us"] // part / 1e6, job["executions"] // part
        )
