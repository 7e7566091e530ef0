"""What the training loop asks for: this workload, measured, paid for once.

A workload's jobs are known by (run, step, part, attempt, digest, shots). Asking again, after a
crash or from an older checkpoint, finds the jobs that are already on the ledger.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import Workload
from qsgd_core.errors import JobFailedError
from qsgd_core.jobs import Result
from qsgd_core.schedule.ledger import Ledger
from qsgd_core.schedule.money import UNITS, Amount
from qsgd_core.schedule.packing import join, split
from qsgd_core.schedule.process import CourierProcess
from qsgd_core.schedule.rows import Job, Run

MAX_ATTEMPTS = 3
"""Submissions of one part that may come to nothing, without cost, before the refresh fails."""
LOST = ("failed", "refunded", "stray")
"""States of jobs that will not give a result. Who asks again, after a crash or with --resume, asks
for another attempt."""


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
            row = self._look()
            if row.capabilities is not None:
                data = json.loads(row.capabilities)
                data["gates"] = frozenset(data["gates"])
                self._capabilities = Capabilities(**data)
            else:
                self._process.nudge()
                self._process.wait(1.0)
        return self._capabilities

    def measure(self, work: Workload, *, shots: int, seed: int, step: int) -> Result:
        """Run ``work`` and wait for its result.

        Raises:
            CapabilityError: it does not fit the device.
            BudgetExceededError: the budget does not allow it; nothing was submitted.
            BackendError: a job ended without a result, or the courier cannot go on.
        """
        parts = split(work, self.capabilities(), shots=shots)
        for part in parts:
            self.capabilities().require(self.name, part, shots=shots)
        jobs = [self._ask(part, k, shots, seed, step) for k, part in enumerate(parts)]
        results = []
        for job in jobs:
            done = self._wait_for(job)
            results.append(self._ledger.result(done.tag))
            self._ledger.consume(done.tag, step)
        return join(work, results)

    def close(self) -> None:
        """End the courier. Jobs that are out stay on the ledger: ``qsgd jobs resume``."""
        self._process.stop()

    def _ask(self, work: Workload, part: int, shots: int, seed: int, step: int) -> Job:
        """The part's job: the one that is on the ledger, or a new one if those came to nothing."""
        digest = work.digest()
        attempt = 0
        while True:
            key = json.dumps([self.run, step, part, attempt, digest, shots])
            job = self._ledger.add_intent(
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
            if job.state not in LOST:
                return job
            attempt += 1

    def _wait_for(self, job: Job) -> Job:
        """The settled job, after a refund the next attempt's."""
        refunds = 0
        while job.state != "settled":
            if job.state == "refunded" and refunds + 1 < MAX_ATTEMPTS:
                refunds += 1
                work = self._ledger.workload(job.tag)
                job = self._ask(work, job.part, job.shots, job.seed, job.step)
            elif job.state in (*LOST, "denied"):
                raise job.error or JobFailedError(f"Job {job.tag} is {job.state}.")
            else:
                self._look()
                self._process.nudge()
                self._process.wait(1.0)
                job = self._ledger.job(job.tag)
        return job

    def _look(self) -> Run:
        """The run's row; raises what its courier stopped with."""
        row = self._ledger.run(self.run)
        if row.error is not None:
            self.close()
            raise row.error
        return row


def spending(ledger: Ledger, run: str) -> Spending:
    """What a run's jobs have cost so far."""
    jobs = [j for j in ledger.jobs(run=run) if j.handle is not None]
    totals = {
        unit: _total([(j.hold if j.settled_at is None else j.spent).of(unit) for j in jobs])
        for unit in UNITS
    }
    cost = Amount(**totals).to_cost()
    return Spending(jobs=len(jobs), shots=cost.shots, cost_usd=cost.usd, qpu_s=cost.qpu_s)


def _total(amounts: list[int | None]) -> int | None:
    known = [a for a in amounts if a is not None]
    return sum(known) if len(known) == len(amounts) else None
