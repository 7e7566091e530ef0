"""The vendor: a folder. A job is a file that appears at once and whole; times are the clock's."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qsgd_filebox.options import Fault, FileboxOptions

Job = dict[str, Any]


class Vendor:
    """What runs at the other end; several processes may talk to it at once."""

    def __init__(self, options: FileboxOptions, clock: Callable[[], float]) -> None:
        self.options = options
        self.clock = clock
        for name in ("jobs", "tags", "cancelled", "calls", "deleted"):
            (options.folder / name).mkdir(parents=True, exist_ok=True)

    def call(self) -> int:
        """Count a submission that has arrived; its number."""
        number = len(list((self.options.folder / "calls").iterdir()))
        while True:
            try:
                path = self.options.folder / "calls" / str(number)
                os.close(os.open(path, os.O_CREAT | os.O_EXCL))
                return number
            except FileExistsError:
                number += 1

    def meets(self, fault: Fault, number: int) -> bool:
        """Whether this submission meets this fault."""
        return number in self.options.faults.get(fault, ())

    def accept(
        self,
        tag: str,
        payload: bytes,
        *,
        shots: int,
        rows: int,
        seed: int,
        n: int,
        by_itself: bool = False,
    ) -> Job:
        """Make a job, which nobody may have asked for; from here on it costs money."""
        o = self.options
        factor = 3 if self.meets("overbilled", n) else 1
        executions = shots * rows
        ends = "failed" if self.meets("fails", n) else "done"
        job = {
            "id": secrets.token_hex(6),
            "tag": tag,
            "by_itself": by_itself,
            "accepted_at": self.clock(),
            "payload": base64.b64encode(payload).decode(),
            "shots": shots,
            "seed": seed,
            "ends": "cancelled" if self.meets("cancelled", n) else ends,
            "corrupt": self.meets("corrupt", n),
            "silent": self.meets("unbilled", n),
            "understated": self.meets("understated", n),
            "micro_usd": factor * (o.job_micro_usd + o.shot_micro_usd * executions),
            "qpu_us": factor * (o.job_qpu_us + o.shot_qpu_us * executions),
            "executions": factor * executions,
        }
        index = o.folder / "tags" / tag
        index.mkdir(exist_ok=True)
        (index / job["id"]).touch()
        path = self._path("jobs", job["id"])
        path.with_suffix(".new").write_text(json.dumps(job))
        path.with_suffix(".new").rename(path)
        return job

    def job(self, job_id: str) -> Job:
        """A job with its state now; a job cancelled before its end costs nothing."""
        if self._path("deleted", job_id).exists():
            raise FileNotFoundError(job_id)
        return self._now(job_id)

    def _now(self, job_id: str) -> Job:
        job: Job = json.loads(self._path("jobs", job_id).read_text())
        cancelled, ends_at = (
            self._path("cancelled", job_id),
            job["accepted_at"] + self.options.run_s,
        )
        if cancelled.exists():
            free = {"micro_usd": 0, "qpu_us": 0, "executions": 0}
            return {**job, "state": "cancelled", "ended_at": float(cancelled.read_text()), **free}
        over = self.clock() >= ends_at
        return {**job, "state": job["ends"] if over else "queued", "ended_at": ends_at}

    def jobs(self) -> list[Job]:
        """Every job there has been, whatever the list shows."""
        folder = self.options.folder / "jobs"
        return [self._now(path.stem) for path in sorted(folder.glob("*.json"))]

    def ahead_of(self, job: Job) -> int:
        """How many queued jobs were accepted before this one."""
        waiting = (other for other in self.jobs() if other["state"] == "queued")
        return sum(other["accepted_at"] < job["accepted_at"] for other in waiting)

    def listed(self, tag: str | None = None) -> list[Job]:
        """What the list shows, under one tag or in all: the jobs that are old enough."""
        old = self.clock() - self.options.lag_s
        tags = self.options.folder / "tags"
        indices = [tags / tag] if tag is not None else sorted(tags.iterdir())
        names = [p.name for index in indices if index.exists() for p in sorted(index.iterdir())]
        there = [
            name
            for name in names
            if self._path("jobs", name).exists() and not self._path("deleted", name).exists()
        ]
        return [job for job in map(self.job, there) if job["accepted_at"] <= old]

    def cancel(self, job_id: str) -> None:
        """Cancel a job unless it has ended."""
        if self.job(job_id)["state"] == "queued":
            path = self._path("cancelled", job_id)
            path.with_suffix(".new").write_text(str(self.clock()))
            path.with_suffix(".new").rename(path)

    def delete(self, job_id: str) -> None:
        """Forget a job: it is not listed and cannot be asked for; its bill is sent all the same."""
        self._path("deleted", job_id).touch()

    def _path(self, folder: str, job_id: str) -> Path:
        return self.options.folder / folder / f"{job_id}.json"
