"""A service's own word on our jobs: which there are, and what each has cost."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from qsgd_core.backend import Backend
from qsgd_core.errors import AuthError, BackendGoneError, QSGDError
from qsgd_core.jobs import JobHandle
from qsgd_core.schedule.money import Amount

logger = logging.getLogger("qsgd_core.audit")


@dataclass(frozen=True)
class Stated:
    """One job as the service has it.

    Attributes:
        handle: names it.
        billed: what it has cost, where the service says so.
        problem: why it could not be asked; ``gone`` says that the service has it no more.
        gone: see there.
    """

    handle: JobHandle
    billed: Amount = field(default_factory=Amount)
    problem: str | None = None
    gone: bool = False


@dataclass(frozen=True)
class Statement:
    """What a service says.

    Attributes:
        backend: its full name.
        complete: it has listed all that is ours; else only the tags on the ledger were looked up.
        jobs: those it has, and those it was asked for.
    """

    backend: str
    complete: bool
    jobs: tuple[Stated, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        jobs = [
            {
                "handle": job.handle.to_json(),
                "billed": asdict(job.billed),
                "problem": job.problem,
                "gone": job.gone,
            }
            for job in self.jobs
        ]
        return {"backend": self.backend, "complete": self.complete, "jobs": jobs}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Statement:
        """Read the JSON form."""
        jobs = tuple(
            Stated(
                JobHandle.from_json(job["handle"]),
                Amount(**job["billed"]),
                job["problem"],
                job["gone"],
            )
            for job in data["jobs"]
        )
        return cls(data["backend"], data["complete"], jobs)


def listed(
    backend: Backend, *, since: float, tags: Iterable[str]
) -> tuple[bool, dict[str, JobHandle]]:
    """Our jobs at a service by their ids, and whether those are all.

    Args:
        backend: the service.
        since: seconds since the epoch; what was submitted before is left out.
        tags: looked up one by one where the service cannot list.

    Raises:
        BackendError: it could not be asked.
    """
    found = backend.list_jobs(since=since)
    complete = found is not None
    if found is None:
        found = [handle for tag in tags for handle in backend.find(tag)]
    return complete, {handle.job_id: handle for handle in found}


def ask(
    backend: Backend, *, since: float, tags: Iterable[str], known: Iterable[JobHandle]
) -> Statement:
    """List our jobs at a service, and ask what each of them, and each of ``known``, has cost.

    Raises:
        BackendError: it could not be asked at all; one job that cannot be is noted.
    """
    complete, handles = listed(backend, since=since, tags=tags)
    handles |= {handle.job_id: handle for handle in known}
    return Statement(backend.name, complete, tuple(_bill(backend, h) for h in handles.values()))


def _bill(backend: Backend, handle: JobHandle) -> Stated:
    try:
        return Stated(handle, Amount.from_cost(backend.billed(handle)))
    except AuthError:
        raise
    except BackendGoneError as error:
        return Stated(handle, problem=str(error), gone=True)
    except QSGDError as error:
        logger.warning("%s: %s", handle.job_id, error)
        return Stated(handle, problem=str(error))
