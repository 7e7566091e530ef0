"""What the training loop asks for: this workload, measured, paid for once.

A workload's jobs are known by (run, step, part, attempt, digest). Asking again, after a crash or
from an older checkpoint, finds the jobs that are already on the ledger.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsgd_core import errors
from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import Workload
from qsgd_core.errors import BackendError, BudgetExceededError, JobFailedError, QSGDError
from qsgd_core.jobs import Result
from qsgd_core.schedule.ledger import Job, Ledger
from qsgd_core.schedule.money import UNITS
from qsgd_core.schedule.packing import join, split
from qsgd_core.schedule.process import CourierProcess

MAX_ATTEMPTS = 3
"""Submissions of one part that may come to nothing, without cost, before the refresh fails."""


@dataclass(frozen=True)
class Spending:
    """Jobs that exist at the vendor and what they cost; a hold counts until it is settled.

    None means that the vendor does not say.
    """

    jobs: int
    shots: int | None
    cost_usd: float | None
    qpu_s: float | None


class Measurements:
    """Measures workloads for one run through its courier.

    Args:
        ledger: the ledger.
        run: the run's id.
        backend: the full name asked for.
        options: validated vendor options, plain JSON values.
        budget: name of the budget that pays.
        log: where the courier writes; None: stderr.
        process: makes the courier process (for tests).
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        run: str,
        backend: str,
        options: Mapping[str, Any],
        budget: str,
        log: Path | None = None,
        process: Callable[..., CourierProcess] = CourierProcess,
    ) -> None:
        self._ledger = ledger
        self._budget = budget
        self.run = run
        self.name = backend
        self._options = dict(options)
        ledger.open_run(run, backend=backend, options=options)
        self._process = process(ledger.url, run, log=log)
        self._capabilities: Capabilities | None = None

    def capabilities(self) -> Capabilities:
        """The device's, as the courier found them; waits for its first look.

        Raises:
            QSGDError: what the courier's first look ended with, such as AuthError.
        """
        while self._capabilities is None:
            self._process.nudge()
            row = self._ledger.run(self.run)
            if row.error is not None:
                self.close()
                raise _revive(row.error)
            if row.capabilities is not None:
                data = json.loads(row.capabilities)
                data["gates"] = frozenset(data["gates"])
                self._capabilities = Capabilities(**data)
            else:
                self._process.wait(1.0)
        return self._capabilities

    def measure(self, work: Workload, *, shots: int, seed: int, step: int) -> Result:
        """Run ``work`` and wait for its result.

        Raises:
            CapabilityError: it does not fit the device.
            BudgetExceededError: the budget does not allow it; nothing was submitted.
            JobFailedError: a job ended without a result.
        """
        parts = split(work, self.capabilities(), shots=shots)
        results = []
        jobs = [self._ask(part, k, 0, shots, seed, step) for k, part in enumerate(parts)]
        for k, part in enumerate(parts):
            job = self._wait_for(jobs[k])
            while job.state == "refunded" and job.attempt + 1 < MAX_ATTEMPTS:
                job = self._wait_for(self._ask(part, k, job.attempt + 1, shots, seed, step))
            if job.state != "settled":
                raise _failure(job)
            results.append(self._ledger.result(job.tag))
            self._ledger.consume(job.tag, step)
        return join(work, results)

    def spending(self) -> Spending:
        """What this run's jobs have cost so far."""
        jobs = [j for j in self._ledger.jobs(run=self.run) if j.handle is not None]
        totals = {
            unit: [j.spent.of(unit) if j.settled_at else j.hold.of(unit) for j in jobs]
            for unit in UNITS
        }
        usd, qpu = _total(totals["micro_usd"]), _total(totals["qpu_us"])
        return Spending(
            jobs=len(jobs),
            shots=_total(totals["shots"]),
            cost_usd=None if usd is None else usd / 1e6,
            qpu_s=None if qpu is None else qpu / 1e6,
        )

    def close(self) -> None:
        """End the courier. Jobs that are out stay on the ledger: ``qsgd jobs resume``."""
        self._process.stop()

    def _ask(
        self, work: Workload, part: int, attempt: int, shots: int, seed: int, step: int
    ) -> Job:
        key = json.dumps([self.run, step, part, attempt, work.digest(), shots])
        return self._ledger.add_intent(
            work,
            tag="qsgd-" + hashlib.sha256(key.encode()).hexdigest()[:32],
            run=self.run,
            budget=self._budget,
            backend=self.name,
            options=self._options,
            step=step,
            part=part,
            attempt=attempt,
            shots=shots,
            seed=seed,
        )

    def _wait_for(self, job: Job) -> Job:
        while job.state not in ("settled", "failed", "refunded", "denied"):
            self._process.nudge()
            self._process.wait(1.0)
            job = self._ledger.job(job.tag)
        return job


def new_run_id(now: float, salt: str) -> str:
    """An id for a run that has none: date and time, and enough of a hash to be its own."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{stamp}-{hashlib.sha256(f'{now}{salt}'.encode()).hexdigest()[:6]}"


def _failure(job: Job) -> QSGDError:
    if job.state == "denied":
        return BudgetExceededError(job.error or "denied", asked=0, left=0, unit="")
    where = f" (job {job.handle.job_id})" if job.handle else ""
    return JobFailedError(
        f"The measurement at step {job.step} on {job.backend!r}{where} came to nothing: "
        f"{job.error}. See qsgd jobs list.",
        handle=job.handle.to_json() if job.handle else None,
        may_have_spent=job.state == "failed",
    )


def _revive(text: str) -> QSGDError:
    """The courier's error as the class it was."""
    data = json.loads(text)
    kind = getattr(errors, data["type"], BackendError)
    try:
        revived = kind(data["message"])
    except TypeError:
        revived = BackendError(data["message"])
    return revived if isinstance(revived, QSGDError) else BackendError(data["message"])


def _total(amounts: list[int | None]) -> int | None:
    known = [a for a in amounts if a is not None]
    return sum(known) if len(known) == len(amounts) else None
