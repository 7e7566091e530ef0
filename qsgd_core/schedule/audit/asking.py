"""The statement of a service, asked for in a child process, which imports the SDK and ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qsgd_core.errors import BackendError
from qsgd_core.jobs import JobHandle
from qsgd_core.schedule.audit.statement import Statement
from qsgd_core.schedule.child import command
from qsgd_core.schedule.failures import unpack_error

AUDIT_MODULE = "qsgd_core.children.audit"
TIMEOUT_S, EACH_S = 300.0, 10.0
"""How long an audit may take: logging in and listing, and each job."""


def ask_service(
    backend: str,
    options: Mapping[str, Any],
    *,
    since: float,
    tags: Sequence[str],
    known: Sequence[JobHandle],
    log: Path,
) -> Statement:
    """See :func:`~qsgd_core.schedule.audit.statement.ask`; the SDK's own words go to ``log``.

    Raises:
        QSGDError: what the child raised.
        BackendError: it died, or took too long.
    """
    question = {
        "backend": backend,
        "options": dict(options),
        "since": since,
        "tags": list(tags),
        "known": [handle.to_json() for handle in known],
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("ab") as stderr:
            done = subprocess.run(  # noqa: S603  our own interpreter and module
                command(AUDIT_MODULE),
                input=json.dumps(question),
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                timeout=TIMEOUT_S + EACH_S * len(known),
                check=False,
            )
        answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise BackendError(
            f"{backend!r} could not be audited: its process ended without an answer. Its log is "
            f"{log}."
        ) from error
    if "error" in answer:
        raise unpack_error(answer["error"])
    return Statement.from_json(answer["statement"])
