"""The child that asks a service what it has of ours: ``python -m qsgd_core.children.audit``.

One JSON object on stdin, one on stdout; what an SDK prints goes to stderr. Submits nothing.
"""

from __future__ import annotations

import json
import logging
import os
import sys

from qsgd_core.backend import Backend
from qsgd_core.errors import BackendError, BackendGoneError, ConfigError, QSGDError
from qsgd_core.isolate import describe
from qsgd_core.jobs import JobHandle
from qsgd_core.plugins.registry import default_registry
from qsgd_core.schedule.audit.statement import ask
from qsgd_core.schedule.failures import pack_error

logger = logging.getLogger("qsgd_core.audit")


def main() -> None:
    """Answer the one question on stdin."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    pipe = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(pipe, "w") as out:
        out.write(answer(sys.stdin.read()))


def answer(question: str) -> str:
    """The answer to the question of :func:`~qsgd_core.schedule.audit.asking.ask_service`."""
    asked = json.loads(question)
    try:
        backend = default_registry().make_backend(asked["backend"], asked["options"] or None)
        if not isinstance(backend, Backend):
            raise ConfigError(f"{asked['backend']!r} is a simulator; it costs nothing.")
        try:
            backend.resolve()
        except BackendGoneError as error:  # what was run on it can be asked for all the same
            logger.warning("%s", error)
        known = [JobHandle.from_json(text) for text in asked["known"]]
        statement = ask(backend, since=asked["since"], tags=asked["tags"], known=known)
        return json.dumps({"statement": statement.to_json()})
    except QSGDError as error:
        return json.dumps({"error": pack_error(error)})
    except Exception as error:  # a plugin or an SDK: the parent says it
        logger.exception("The audit failed.")
        message = f"{asked['backend']!r} could not be audited: {describe(error)}."
        return json.dumps({"error": pack_error(BackendError(message))})


if __name__ == "__main__":
    main()
