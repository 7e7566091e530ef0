"""The double's memory: devices, jobs from acceptance to bill, and what its users may set."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

from faults import Fault, Faults
from quantum import Program, now
from wiring import TOKEN

NOTHING_YET = {"qpu_charge_time_seconds": 0}
FINAL = ("Completed", "Failed", "Cancelled", "Cancelled - Ran too long")


@dataclass
class Settings:
    """What ``POST /__qsgd__/settings`` may change; applies to jobs accepted from then on.

    ``list_lag_s`` is the list's and ``outage`` and ``revoked`` the service's: they apply at once.
    """

    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> ``{"online": bool, "queue_length": int}``."""
    keys: list[str] = field(default_factory=lambda: [TOKEN])
    token_s: float = 3600.0
    """Life of an access token."""
    queue_polls: int = 0
    """A job stays Queued until it has been asked for so often."""
    hold: bool = False
    """Jobs stay Queued until ``POST /__qsgd__/release``."""
    list_lag: int = 0
    """A new job is left out of the first so many lists."""
    list_lag_s: float = 0.0
    """A new job is left out of lists for so long."""
    ending: str = "Completed"
    reason: str | None = None
    reason_code: int | None = None
    bill_s: float | None = None
    """What a job that ran is charged; None follows IBM's time model."""
    usage_limit_s: float = 600.0
    usage_consumed_s: float = 0.0
    plan: str = "open"
    pricing: str = "free"
    usage_pending: bool = False
    """What jobs were charged is not stated yet; applies at once, as the next two do."""
    pending: Any = field(default_factory=lambda: {"status": "pending"} | NOTHING_YET)
    """How that looks in the answer."""
    duplicates: int = 0
    """So many submissions are made into two jobs each, and answered with the first."""
    prompt: bool = False
    """Who asks for a job that runs is answered when it has ended: no clock has a part in it."""
    outage: str | None = None
    """``reset``: every connection is cut; ``503``: every answer is one."""
    revoked: bool = False
    """The key and every token that it got are refused."""


@dataclass
class Job:
    id: str
    number: int
    backend: str
    tags: list[str]
    cost: int | None
    program: Program
    settings: Settings
    created: str
    accepted_at: float
    status: str = "Queued"
    polls: int = 0
    lists: int = 0
    released: bool = False
    deleted: bool = False
    billed_s: float = 0.0
    running: str | None = None
    result: str = ""
    served: list[Any] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def record(self) -> dict[str, Any]:
        """As ``GET /jobs/{id}`` shows it."""
        state: dict[str, Any] = {"status": self.status}
        if self.status in FINAL and self.status != "Completed":
            state |= {"reason": self.settings.reason, "reason_code": self.settings.reason_code}
        return {
            "id": self.id,
            "backend": self.backend,
            "status": self.status,
            "state": state,
            "created": self.created,
            "tags": self.tags,
            "cost": self.cost,
            "program": {"id": "executor"},
        }

    def entry(self) -> dict[str, Any]:
        """As ``GET /__qsgd__/jobs`` shows it."""
        return {
            "id": self.id,
            "backend": self.backend,
            "tags": self.tags,
            "status": self.status,
            "max_execution_time": self.cost,
            "rows": self.program.rows,
            "shots": self.program.shots,
            "billed_s": self.billed_s,
            "served": self.served,
        }


class Service:
    def __init__(self, *, devices: list[str], noise: bool, seed: int) -> None:
        self._names = devices
        self._noise = noise
        self._seed = seed
        self._lock = threading.RLock()
        self._work: queue.Queue[Job] = queue.Queue()
        self.faults = Faults()
        self.reset()
        threading.Thread(target=self._run_jobs, daemon=True).start()

    def reset(self) -> None:
        """As new: no job, no fault, every device online."""
        with self._lock:
            self.settings = Settings(
                devices={name: {"online": True, "queue_length": 3} for name in self._names}
            )
            self.faults.set([])
            self.jobs: dict[str, Job] = {}
            self.posts = 0
            self.key_leaks = 0
            self.seen: dict[str, int] = {}

    def set(self, changes: dict[str, Any]) -> None:
        with self._lock:
            self.settings = Settings(**(vars(self.settings) | changes))

    def outage(self) -> Fault | None:
        """The fault that every request meets, if any."""
        how = self.settings.outage
        if how is None:
            return None
        if how == "reset":
            return Fault("any", "reset")
        return Fault("any", "status", status=int(how))

    def count(self, what: str) -> None:
        with self._lock:
            self.seen[what] = self.seen.get(what, 0) + 1

    def accept(self, payload: dict[str, Any]) -> Job:
        """Make a job.

        Raises:
            ValueError: the payload is not one of program ``executor``.
        """
        if payload.get("program_id") != "executor":
            raise ValueError(f"this double runs program 'executor' only, not {payload!r:.80}")
        program = Program(payload["params"])
        with self._lock:
            number = len(self.jobs)
            name = hashlib.sha256(str((self._seed, number)).encode()).hexdigest()[:12]
            job = Job(
                id=f"d{number:04d}-{name}",
                number=number,
                backend=payload["backend"],
                tags=payload.get("tags") or [],
                cost=payload.get("cost"),
                program=program,
                settings=self.settings,
                created=now(),
                accepted_at=time.monotonic(),
            )
            self.jobs[job.id] = job
            if not job.settings.hold and job.settings.queue_polls == 0:
                self._release(job)
        return job

    def usage_of(self, job: Job) -> Any:
        """As ``GET /jobs/{id}/metrics`` has it."""
        if self.settings.usage_pending or job.status not in FINAL:
            return self.settings.pending
        return {"status": "final", "qpu_charge_time_seconds": job.billed_s}

    def delete(self, job_id: str) -> None:
        """Forget a job: it is neither listed nor answered for; it was paid for all the same."""
        with self._lock:
            self.jobs[job_id].deleted = True

    def poll(self, job: Job) -> dict[str, Any]:
        with self._lock:
            job.polls += 1
            if not job.settings.hold and job.polls >= job.settings.queue_polls:
                self._release(job)
        if job.settings.prompt and job.released:
            job.ended.wait(30)
        with self._lock:
            return job.record()

    def release(self) -> None:
        with self._lock:
            for job in self.jobs.values():
                self._release(job)

    def cancel(self, job: Job) -> bool:
        """Whether it could still be cancelled."""
        with self._lock:
            if job.status in FINAL:
                return False
            job.status = "Cancelled"
            return True

    def listed(self, tags: list[str]) -> list[Job]:
        """Jobs with all the tags, newest first, as far as the list has caught up."""
        with self._lock:
            shown = []
            for job in reversed(self.jobs.values()):
                if not set(tags) <= set(job.tags) or job.deleted:
                    continue
                job.lists += 1
                age = time.monotonic() - job.accepted_at
                if job.lists > job.settings.list_lag and age >= self.settings.list_lag_s:
                    shown.append(job)
            return shown

    def usage(self) -> dict[str, Any]:
        consumed = self.settings.usage_consumed_s + sum(j.billed_s for j in self.jobs.values())
        return {
            "instance_id": "double-instance",
            "plan_id": "plan-open",
            "usage_consumed_seconds": consumed,
            "usage_limit_seconds": self.settings.usage_limit_s,
            "usage_limit_reached": consumed >= self.settings.usage_limit_s,
        }

    def ledger(self) -> dict[str, Any]:
        with self._lock:
            jobs = list(self.jobs.values())
            return {
                "posts": self.posts,
                "asked": len(jobs),
                "paid": sum(job.billed_s > 0 for job in jobs),
                "key_leaks": self.key_leaks,
                "requests": dict(self.seen),
                "jobs": [job.entry() for job in jobs],
            }

    def _release(self, job: Job) -> None:
        if not job.released and job.status == "Queued":
            job.released = True
            self._work.put(job)

    def _run_jobs(self) -> None:
        while True:
            job = self._work.get()
            with self._lock:
                if job.status != "Queued":
                    job.ended.set()
                    continue
                job.status, job.running = "Running", now()
            seed = int.from_bytes(
                hashlib.sha256(f"{self._seed}/{job.number}".encode()).digest()[:4], "big"
            )
            try:
                text, served = job.program.run(device=job.backend, seed=seed, noise=self._noise)
            except Exception:  # noqa: BLE001  # whatever a job does, the next one is served
                traceback.print_exc()
                with self._lock:
                    job.status, job.billed_s = "Failed", 0.0
            else:
                with self._lock:
                    self._finish(job, text, served)
            job.ended.set()

    def _finish(self, job: Job, text: str, served: list[Any]) -> None:
        settings = job.settings
        modelled = 2.0 + job.program.executions * 300e-6
        billed = modelled if settings.bill_s is None else settings.bill_s
        if job.status == "Cancelled" or settings.ending == "Cancelled":
            job.status, job.billed_s = "Cancelled", 1.0  # what it had used by then
        elif settings.ending == "Failed":
            job.status, job.billed_s = "Failed", settings.bill_s or 0.0
        elif settings.ending == "Cancelled - Ran too long":
            job.status, job.billed_s = settings.ending, float(job.cost or billed)
        else:
            job.result, job.served, job.billed_s = text, served, billed
            job.status = "Completed"
