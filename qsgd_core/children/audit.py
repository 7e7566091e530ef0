"""The child that asks a service what it has of ours: see :mod:`.question`. Submits nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from qsgd_core.children.question import answered, serve
from qsgd_core.children.service import make_service
from qsgd_core.errors import BackendGoneError
from qsgd_core.jobs import JobHandle
from qsgd_core.schedule.audit.statement import ask

logger = logging.getLogger("qsgd_core.audit")


def answer(question: str) -> str:
    """The answer to the question of :func:`~qsgd_core.schedule.audit.asking.ask_service`."""
    return answered(question, look, done="audited")


def look(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the service says of our jobs."""
    backend = make_service(asked["backend"], asked["options"], simulator="it costs nothing")
    try:
        backend.resolve()
    except BackendGoneError as error:  # what was run on it can be asked for all the same
        logger.warning("%s", error)
    known = [JobHandle.from_json(text) for text in asked["known"]]
    statement = ask(backend, since=asked["since"], tags=asked["tags"], known=known)
    return {"statement": statement.to_json()}


if __name__ == "__main__":
    serve(answer, log_format="%(asctime)s %(levelname)s %(message)s")
