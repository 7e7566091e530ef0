"""The HTTP layer under IBM's client: bounded waits, and one ``POST /jobs`` per submission.

The client's own layer re-sends ``POST /jobs`` up to five times after a 5xx answer and reads
without a time limit. There is no idempotency key, so a gateway error after acceptance would
become several paid jobs. Mounting this adapter takes that decision away from it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectionError as RequestsConnectionError
from requests.exceptions import ConnectTimeout
from urllib3.exceptions import MaxRetryError, NewConnectionError
from urllib3.util.retry import Retry

from qsgd_core.errors import AuthError, BackendError, ConfigError
from qsgd_ibm.hosts import is_safe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from requests import PreparedRequest, Response

CONNECT_S = 5.0
READ_S = 60.0
SUBMIT_READ_S = 120.0
"""Seconds without a byte before a request is given up."""
BACKOFF_S = 0.25
"""Wait before a GET is tried again, doubling."""

_GATEWAY = (500, 502, 503, 504, 520, 521, 522, 524)
_NO_JOB = frozenset(range(400, 500)) - {401, 408}
"""Answers to ``POST /jobs`` that mean no job was made. 401 is not one of them: the job has been
seen to exist all the same (Qiskit/qiskit-ibm-runtime issue 1491)."""


@dataclass
class Post:
    """What became of one ``POST /jobs``.

    Attributes:
        sent: it left this machine, or may have.
        unreachable: no connection came about, so it cannot have left.
        status: the HTTP status that came back; None when none did.
        text: the beginning of the answer's body.
        job_id: the identifier in the answer, if there was one.
    """

    sent: bool = False
    unreachable: bool = False
    status: int | None = None
    text: str = ""
    job_id: str | None = None

    @property
    def may_have_spent(self) -> bool:
        """Whether a job may exist."""
        return self.sent and (self.status is None or self.status not in _NO_JOB)


class Transport(HTTPAdapter):
    """Mounted under ``https://`` and ``http://`` of every session of IBM's client.

    GET is retried twice after a connection or gateway error; nothing else is ever re-sent. Every
    request has a time limit. A raw API key and unencrypted connections to other machines are
    refused here, whatever led to them.
    """

    def __init__(self) -> None:
        self._post: Post | None = None
        super().__init__(
            max_retries=Retry(
                total=2,
                backoff_factor=BACKOFF_S,
                status_forcelist=_GATEWAY,
                allowed_methods=frozenset({"GET"}),
                # A server may ask for a wait of hours; the courier has its own pace.
                respect_retry_after_header=False,
                raise_on_status=False,
            )
        )

    @contextmanager
    def one_post(self) -> Iterator[Post]:
        """Let one ``POST /jobs`` through inside the block, and say what became of it."""
        self._post = Post()
        try:
            yield self._post
        finally:
            self._post = None

    def send(  # type: ignore[override]
        self, request: PreparedRequest, timeout: Any = None, **kwargs: Any
    ) -> Response:
        """Send one request within its time limit.

        Raises:
            AuthError: it carries the API key itself, which the client falls back to when no
                access token can be had.
            BackendError: a second ``POST /jobs`` in one submission.
        """
        url = str(request.url)
        if not is_safe(url):
            raise ConfigError(f"Refused to send credentials unencrypted to {url!r}. Use https.")
        if str(request.headers.get("Authorization", "")).lower().startswith("apikey"):
            raise AuthError(
                "IBM's login service (IAM) gave no access token, and the client was about to send "
                "the API key itself instead. Refused; nothing was sent. Try again later.",
                retryable=True,
            )
        if request.method == "POST" and urlsplit(url).path.endswith("/jobs"):
            return self._submit(request, **kwargs)
        return super().send(request, timeout=(CONNECT_S, READ_S), **kwargs)

    def _submit(self, request: PreparedRequest, **kwargs: Any) -> Response:
        post = self._post
        if post is None or post.sent:
            raise BackendError(
                "The client tried to send POST /jobs a second time; refused, because it could pay "
                "twice.",
                may_have_spent=post is not None,
            )
        post.sent = True
        try:
            response = super().send(request, timeout=(CONNECT_S, SUBMIT_READ_S), **kwargs)
        except RequestsConnectionError as error:
            post.unreachable = _never_connected(error)
            post.sent = not post.unreachable
            raise
        post.status = response.status_code
        post.text = response.text[:2000]
        post.job_id = _job_id(response)
        return response


def _never_connected(error: RequestsConnectionError) -> bool:
    """Whether not a byte of the request can have left this machine."""
    if isinstance(error, ConnectTimeout):
        return True
    cause = error.args[0] if error.args else None
    reason = cause.reason if isinstance(cause, MaxRetryError) else cause
    return isinstance(reason, NewConnectionError)


def _job_id(response: Response) -> str | None:
    try:
        found = response.json()
    except ValueError:
        return None
    job_id = found.get("id") if isinstance(found, dict) else None
    return job_id if isinstance(job_id, str) else None
