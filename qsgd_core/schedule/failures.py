"""Errors that cross from the courier to the trainer: as text on the ledger, and back."""

from __future__ import annotations

import json

from qsgd_core import errors
from qsgd_core.errors import BackendError, JobNotDoneError, QSGDError, TransientError

_PLAIN = (str, int, float, bool, type(None), list, tuple)


def pack_error(error: QSGDError) -> str:
    """An error as JSON: its class in the core's tree, its message, its plain attributes."""
    home = next(k for k in type(error).__mro__ if getattr(errors, k.__name__, None) is k)
    fields = {k: v for k, v in vars(error).items() if isinstance(v, _PLAIN) and k[0] != "_"}
    return json.dumps({"type": home.__name__, "message": str(error), "fields": fields}, default=str)


def unpack_error(text: str) -> QSGDError:
    """Read :func:`pack_error`: the same class, message and attributes, ready to be raised."""
    data = json.loads(text)
    kind = getattr(errors, data["type"], BackendError)
    error: QSGDError = kind.__new__(kind)
    Exception.__init__(error, data["message"])
    vars(error).update(data["fields"])
    return error


def may_work_later(error: QSGDError) -> bool:
    """Whether the same call may succeed in a while."""
    return isinstance(error, BackendError) and (
        error.retryable or isinstance(error, TransientError | JobNotDoneError)
    )


def say_error(error: Exception) -> str:
    """An error as a sentence: ours say it themselves, of any other the class says the most."""
    text = str(error) if isinstance(error, QSGDError) else f"{type(error).__name__}: {error}"
    return text if text.endswith(".") else f"{text}."
