"""What the AWS client raised, as the core's errors; and whether a task may exist all the same."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from botocore import exceptions as aws

from qsgd_core.errors import AuthError, BackendError, BackendGoneError, QSGDError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

CREDENTIALS = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.CredentialRetrievalError,
    aws.NoAuthTokenError,
    aws.TokenRetrievalError,
    aws.ProfileNotFound,
    aws.SSOError,
    aws.LoginError,
)
NEVER_SENT = (
    aws.EndpointConnectionError,
    aws.ConnectTimeoutError,
    aws.ProxyConnectionError,
    aws.SSLError,
    aws.ValidationError,
    aws.ParamValidationError,
    aws.BaseEndpointResolverError,
    aws.EndpointProviderError,
)
AUTH = {
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
THROTTLED = {
    "RequestLimitExceeded",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
REFUSALS = frozenset(range(300, 500)) - {408}
"""HTTP answers that mean that nothing was made; after a timeout (408) nobody knows."""
GONE = {"DeviceOfflineException", "DeviceRetiredException", "ResourceNotFoundException"}

LOG_IN = (
    "Give credentials the way AWS wants them: aws configure, aws sso login, AWS_PROFILE, or "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; see qsgd doctor. The policy "
    "AmazonBraketFullAccess allows all that is needed."
)
KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b")


@contextmanager
def translated(
    doing: str, *, creates: bool = False, task: str | None = None, handle: str | None = None
) -> Iterator[None]:
    """Turn whatever the AWS client raises inside the block into a BackendError, chained.

    Args:
        doing: what was being done, as in "Creating a task on <device>".
        creates: the block sends the request that creates a task. An error says ``nothing_made`` if
            the request was refused or never sent, else ``may_have_spent``.
        task: ARN of the task that the block is about; it may have cost something already.
        handle: JSON form of that task's handle.
    """
    try:
        yield
    except QSGDError:
        raise
    # botocore raises KeyError and worse on answers that it does not know.
    except Exception as error:  # noqa: BLE001
        found = _translation(error, doing, creates=creates, spent=task is not None, handle=handle)
        found.nothing_made = creates and not found.may_have_spent
        raise found from (None if _code(error) in AUTH else error)


def _translation(
    error: Exception, doing: str, *, creates: bool, spent: bool, handle: str | None
) -> BackendError:
    code = _code(error)
    if isinstance(error, CREDENTIALS) or code in AUTH:
        said = code or type(error).__name__
        # The text of a signature error quotes the signed headers, the session token among them.
        why = f": {_short(error)}" if "AccessDenied" in said else ""
        return AuthError(
            f"{doing} was refused: {said}{why}. {LOG_IN}",
            provider_code=code,
            handle=handle,
            may_have_spent=spent,
        )
    if isinstance(error, aws.ClientError) and _status(error) in REFUSALS:
        return _rejection(error, doing, code or "", spent=spent, handle=handle)
    if isinstance(error, NEVER_SENT):
        return TransientError(
            f"{doing} failed before anything was sent: {_short(error)}. Check the network, "
            "AWS_REGION and AWS_ENDPOINT_URL.",
            retryable=True,
            handle=handle,
            may_have_spent=spent,
        )
    doubt = " Whether the task exists is not known." if creates else ""
    return TransientError(
        f"{doing} failed: {_short(error)}.{doubt}",
        retryable=True,
        provider_code=code,
        handle=handle,
        may_have_spent=creates or spent,
    )


def _rejection(
    error: aws.ClientError, doing: str, code: str, *, spent: bool, handle: str | None
) -> BackendError:
    """The service said no: nothing was created by this request."""
    said = f"{doing} was refused: {code}: {_short(error)}"
    if code in THROTTLED or _status(error) == 429:
        return TransientError(
            f"{said}. Try again later.",
            retryable=True,
            provider_code=code,
            handle=handle,
            may_have_spent=spent,
        )
    if code in GONE:
        return BackendGoneError(f"{said}.", provider_code=code, handle=handle)
    if code == "ServiceQuotaExceededException":
        return TransientError(
            f"{said}. Wait until tasks have finished, or ask for a higher quota of Amazon Braket "
            "in AWS Service Quotas.",
            retryable=True,
            provider_code=code,
            handle=handle,
            may_have_spent=spent,
        )
    if "spending limit" in str(error).lower():
        said += (
            ". A spending limit of this AWS account stands in the way: raise it or wait until its "
            "period ends (Amazon Braket console, Spending limits)"
        )
    return BackendError(f"{said}.", provider_code=code, handle=handle, may_have_spent=spent)


def _code(error: Exception) -> str | None:
    if not isinstance(error, aws.ClientError):
        return None
    return str(error.response.get("Error", {}).get("Code", "")) or None


def _status(error: aws.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _short(error: Exception) -> str:
    """One line, without access keys."""
    if isinstance(error, aws.ClientError):
        text = str(error.response.get("Error", {}).get("Message", "")) or str(error)
        failures = error.response.get("programSetValidationFailures") or []
        text += f" First failure: {failures[0]}" if failures else ""
    else:
        text = f"{type(error).__name__}: {error}"
    return KEY_ID.sub("…", " ".join(text.split()))[:400].rstrip(". ")
