"""From what IBM's client raises to QSGD's own errors, with the cause kept.

The client's classes overlap and some faults carry no status, so the rules look at the HTTP status
first, then at the class's name, then at the text.
"""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qsgd_core.errors import (
    AuthError,
    BackendError,
    BackendGoneError,
    QSGDError,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qsgd_ibm.transport import Post

KEY_FALLBACK = "Unable to retrieve IBM Cloud access token"
"""How the client's warning starts before it sends the raw API key in place of a token."""

LOGIN_HELP = (
    "Check QISKIT_IBM_TOKEN and QISKIT_IBM_INSTANCE, or the account saved with "
    "QiskitRuntimeService.save_account(token=..., instance=...)."
)
_CODE = re.compile(r"[Ee]rror code:?\s*(\d{3,5})|\"code\":\s*(\d{3,5})")
_STATUS = re.compile(r"\b([45]\d\d) (?:Client|Server) Error")
_LOGIN_CLASSES = {"AccountNotFoundError", "InvalidAccountError", "IBMNotAuthorizedError"}


@contextmanager
def translating(doing: str, *, secret: str | None = None) -> Iterator[None]:
    """Whatever the block's SDK calls raise comes out as a BackendError.

    Args:
        doing: what was asked, for the message: ``"reading job abc of ibm_fez"``.
        secret: the API key, which is cut out of every message.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=KEY_FALLBACK)
        try:
            yield
        except QSGDError:
            raise
        except Exception as error:
            raise translate(error, doing=doing, secret=secret) from error


def translate(error: Exception, *, doing: str, secret: str | None = None) -> BackendError:
    """The QSGD error for ``error``; the caller chains the cause."""
    status, text = status_of(error), _said(error, secret)
    code = provider_code(text)
    names = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, Warning) and text.startswith(KEY_FALLBACK):
        if re.search(r"\b40[0134]\b", text):
            return AuthError(f"IBM's login service refused the API key while {doing}. {LOGIN_HELP}")
        return TransientError(
            f"IBM's login service (IAM) did not answer while {doing}: {text}", retryable=True
        )
    if status in (429, 408) or (status is not None and status >= 500):
        return TransientError(
            f"IBM answered {status} while {doing}: {text}", retryable=True, provider_code=code
        )
    if status == 403:
        return AuthError(
            f"IBM answered 403 (forbidden) while {doing}: {text} This account may lack access, or "
            f"a gateway blocked the request. {LOGIN_HELP}",
            provider_code=code,
        )
    if status in (400, 401) and "ApiException" in names:  # of the login service
        return AuthError(f"IBM did not accept the API key while {doing}: {text} {LOGIN_HELP}")
    if status == 401:
        return AuthError(
            f"IBM answered 401 (not authorised) while {doing}: {text} {LOGIN_HELP}",
            provider_code=code,
        )
    if cause := _cause_of_login(error, names):
        found = translate(cause, doing=doing, secret=secret)
        return found if isinstance(found, (AuthError, TransientError)) else _login(doing, text)
    if names & _LOGIN_CLASSES or "does not have access" in text or "instance name" in text:
        return _login(doing, text)
    if "QiskitBackendNotFoundError" in names:
        return BackendGoneError(f"IBM has no such device while {doing}: {text}")
    if status is None and names & {"RequestException", "RequestsApiError", "ConnectionError"}:
        return TransientError(f"No usable answer from IBM while {doing}: {text}", retryable=True)
    if status == 404:
        return BackendGoneError(f"IBM answered 404 (not found) while {doing}: {text}")
    return BackendError(
        f"IBM's client failed while {doing}: {type(error).__name__}: {text}", provider_code=code
    )


def refused(post: Post, error: Exception, *, doing: str, secret: str | None) -> BackendError:
    """The error for a submission that gave no job id; it says whether there is no job.

    Args:
        post: what became of ``POST /jobs``.
        error: what the client raised, or its translation.
        doing: as in :func:`translate`.
        secret: as in :func:`translate`.
    """
    found = _refused(post, error, doing=doing, secret=secret)
    found.nothing_made = not post.may_have_spent and post.job_id is None
    return found


def _refused(post: Post, error: Exception, *, doing: str, secret: str | None) -> BackendError:
    root = error.__cause__ if isinstance(error.__cause__, Exception) else error
    if post.unreachable:
        return TransientError(
            f"IBM cannot be reached while {doing}: {_said(root, secret)} Nothing was sent.",
            retryable=True,
        )
    if not post.sent:
        if isinstance(error, BackendError):
            return error
        return translate(error, doing=doing, secret=secret)
    said = _clean(f"{post.status} {post.text}" if post.status else _said(root, secret), secret)
    code = provider_code(said)
    if post.may_have_spent:
        kind = AuthError if post.status == 401 else TransientError
        return kind(
            f"The submission got no usable answer while {doing}: {said} The job may exist; it "
            "must be looked for by its tag before anything is sent again.",
            retryable=True,
            provider_code=code,
            may_have_spent=True,
        )
    if post.status == 429:
        return TransientError(
            f"IBM takes no more jobs at the moment (429) while {doing}: {said} No job was made.",
            retryable=True,
            provider_code=code,
        )
    if post.status == 403:
        return AuthError(
            f"IBM refused the job (403) while {doing}: {said} No job was made. This account may "
            f"lack access to the device, or a gateway blocked the request. {LOGIN_HELP}",
            provider_code=code,
        )
    if post.status == 404:
        return BackendGoneError(
            f"IBM does not know the device or program (404) while {doing}: {said} No job was made.",
            provider_code=code,
        )
    return BackendError(
        f"IBM refused the job while {doing}: {said} No job was made.", provider_code=code
    )


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error of the client; None when there was no answer."""
    for attribute in ("status_code", "code"):
        status = getattr(error, attribute, None)
        if isinstance(status, int) and 400 <= status < 600:
            return status
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(status, int) and status >= 400:
        return status
    match = _STATUS.search(str(error))
    return int(match[1]) if match else None


def provider_code(text: str) -> str | None:
    """IBM's own error code in a message: ``Error code: 1305`` or ``"code": 1305``."""
    match = _CODE.search(text)
    return (match[1] or match[2]) if match else None


def _login(doing: str, text: str) -> AuthError:
    return AuthError(f"No access to IBM while {doing}: {text} {LOGIN_HELP}")


def _cause_of_login(error: Exception, names: set[str]) -> Exception | None:
    """Why listing instances failed: the client says "invalid token" for a dead network too."""
    cause = error.__cause__
    return cause if "InvalidAccountError" in names and isinstance(cause, Exception) else None


def _said(error: Exception, secret: str | None) -> str:
    message = getattr(error, "message", None)
    return _clean(message if isinstance(message, str) and message else str(error), secret)


def _clean(text: str, secret: str | None) -> str:
    """One line of at most 400 characters that ends in a full stop and holds no secret."""
    if secret:
        text = text.replace(secret, "***")
    text = " ".join(text.split()).strip("'\"")
    text = text if len(text) <= 400 else f"{text[:397]}..."
    return text if text.endswith((".", "!", "?")) else f"{text}."
