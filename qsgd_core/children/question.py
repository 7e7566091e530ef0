"""A child that answers one question: a JSON object on stdin, one on stdout.

What an SDK prints goes to stderr, and whatever is raised goes back packed.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from qsgd_core.errors import BackendError, QSGDError
from qsgd_core.isolate import describe
from qsgd_core.schedule.failures import pack_error


def serve(answer: Callable[[str], str], *, log_format: str = logging.BASIC_FORMAT) -> None:
    """Answer the one question on stdin.

    Args:
        answer: the question's text to the answer's.
        log_format: of what is logged to stderr.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format=log_format)
    pipe = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(pipe, "w") as out:
        out.write(answer(sys.stdin.read()))


def answered(
    question: str, look: Callable[[Mapping[str, Any]], Mapping[str, Any]], *, done: str
) -> str:
    """What ``look`` finds, or the error that it raises, JSON to JSON.

    Args:
        question: a JSON object with the ``backend`` that is asked.
        look: from the question to the answer, both plain JSON values.
        done: what could not be done to the backend if it fails: asked, audited.
    """
    asked = json.loads(question)
    try:
        return json.dumps(look(asked))
    except QSGDError as error:
        return json.dumps({"error": pack_error(error)})
    except Exception as error:  # a plugin or an SDK: the parent says it
        logging.getLogger("qsgd_core.children").exception("It could not be %s.", done)
        message = f"{asked['backend']!r} could not be {done}: {describe(error)}."
        return json.dumps({"error": pack_error(BackendError(message))})
