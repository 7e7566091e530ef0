"""The child that looks at a service for an estimate: see :mod:`.question`. Submits nothing."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from qsgd_core.backend import Backend
from qsgd_core.children.question import answered, serve
from qsgd_core.children.service import make_service, pin
from qsgd_core.circuits import Workload
from qsgd_core.errors import BackendError
from qsgd_core.jobs import NoiseSnapshot
from qsgd_core.schedule.forecast.survey import JobQuote, Survey, expected_errors
from qsgd_core.schedule.packing.tiles import pack
from qsgd_core.schedule.packing.ways import Way, best_way
from qsgd_core.schedule.storage import unpack_workload

logger = logging.getLogger("qsgd_core.survey")


def answer(question: str) -> str:
    """The answer to :func:`qsgd_core.schedule.forecast.survey.survey`'s question, JSON to JSON."""
    return answered(question, lambda asked: {"survey": look(asked).to_json()}, done="asked")


def look(asked: Mapping[str, Any]) -> Survey:
    """What the service says of the jobs that one refresh makes."""
    backend = pin(
        asked["backend"],
        lambda name: make_service(name, asked["options"], simulator="it costs nothing"),
    )
    work = unpack_workload(base64.b64decode(asked["work"]))
    way = best_way(backend, work, shots=asked["shots"], tiles=asked["tiles"])
    packed = pack(work, tiles=way.tiles)
    snapshot = _calibration(backend, packed.work)
    return Survey(
        device=backend.name,
        shots=way.shots,
        tiles=way.tiles,
        quotes=_grouped(way),
        source=way.quotes[0].source,
        effective_date=way.quotes[0].effective_date,
        errors=expected_errors(work, snapshot, shots=way.shots, sites=packed.sites),
        account=backend.account(),
    )


def _grouped(way: Way) -> tuple[JobQuote, ...]:
    """One record for all jobs that cost the same, the most expensive first."""
    alike: dict[JobQuote, int] = {}
    for piece, quote in zip(way.pieces, way.quotes, strict=True):
        job = JobQuote(piece.packed.work.n_rows, 1, quote.expected, quote.worst)
        alike[job] = alike.get(job, 0) + 1
    found: Sequence[JobQuote] = [
        JobQuote(job.rows, count, job.expected, job.worst) for job, count in alike.items()
    ]
    return tuple(sorted(found, key=lambda job: -job.rows))


def _calibration(backend: Backend, work: Workload) -> NoiseSnapshot | None:
    """The vendor's noise figures; an estimate of costs does not fail for want of them."""
    try:
        return backend.calibration(work)
    except BackendError as error:
        logger.warning("No calibration: %s", error)
        return None


if __name__ == "__main__":
    serve(answer)
