"""One account's REST calls, each bounded in time, on the sessions of IBM's own client.

The public methods of the client wait for ever, page for ever or re-send; the calls here go to the
layer right under them. That layer is not a public interface: :func:`check_client` names every part
that is used, and is run before the first call and in the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from requests import Session

from qsgd_core.errors import BackendError, BackendGoneError, PluginLoadError, TransientError
from qsgd_ibm.devices import ListedDevice, read_devices
from qsgd_ibm.failures import status_of, translating
from qsgd_ibm.transport import Transport

PAGE = 50
MAX_PAGES = 200

_SERVICE_PARTS = ("_active_api_client", "_api_clients")
_CLIENT_PARTS = (
    "_session",
    "list_backends",
    "job_get",
    "jobs_get",
    "job_results",
    "job_metadata",
    "job_cancel",
)


class Connection:
    """An open account.

    Attributes:
        stale: it must not be used any more; open another one.

    Args:
        service: a ``QiskitRuntimeService``.
        secret: the API key, cut out of every message.

    Raises:
        PluginLoadError: this version of the client is built differently.
    """

    def __init__(self, service: Any, *, secret: str | None) -> None:
        check_client(service)
        self.service = service
        self.secret = secret
        self.transport = Transport()
        self.stale = False
        for client in self._clients(every=True):
            client._session.mount("https://", self.transport)
            client._session.mount("http://", self.transport)

    @contextmanager
    def calling(self, doing: str) -> Iterator[None]:
        """Like :func:`translating`; a failed login makes this connection :attr:`stale`.

        After a failure the client's login would sleep for up to a minute before it tries again.
        """
        try:
            with translating(doing, secret=self.secret):
                yield
        except BackendError as error:
            self.stale = self.stale or isinstance(error.__cause__, Warning)
            raise

    def devices(self) -> list[ListedDevice]:
        """Every quantum computer that the account's instances offer, least busy first."""
        with self.calling("listing devices"):
            return read_devices(
                entry for client in self._clients() for entry in client.list_backends()
            )

    def account(self) -> str:
        """Instance and plan for messages: ``instance my-instance, plan open``."""
        shown = [
            f"instance {found.get('name')}, plan {found.get('plan')}" for found in self._instances()
        ]
        return "; ".join(shown) or "instance unknown"

    def plan(self, instance: str) -> tuple[str | None, bool]:
        """The instance's plan in IBM's words, and whether it is known to cost no money."""
        for found in self._instances():
            if found.get("crn") == instance:
                return found.get("plan"), found.get("pricing_type") == "free"
        return None, False

    def job(self, job_id: str) -> dict[str, Any]:
        """The record of a job.

        Raises:
            BackendGoneError: no instance of the account has it.
        """
        record = self._of_job(job_id, "reading", "job_get")
        if not isinstance(record, dict):
            raise TransientError(f"IBM's record of job {job_id} is {record!r}.", retryable=True)
        return record

    def metrics(self, job_id: str) -> dict[str, Any]:
        """Timestamps and usage of a job."""
        found = self._of_job(job_id, "reading metrics of", "job_metadata")
        return found if isinstance(found, dict) else {}

    def results(self, job_id: str) -> str:
        """The text of a finished job's result, as it came."""
        return str(self._of_job(job_id, "reading results of", "job_results") or "")

    def cancel(self, job_id: str) -> None:
        """Cancel a job; one that has finished already is left alone."""
        self._of_job(job_id, "cancelling", "job_cancel", ignore=409)

    def jobs(self, tags: list[str], *, since: float | None = None) -> list[dict[str, Any]]:
        """Every job that carries all ``tags``, oldest first, in all instances.

        Raises:
            BackendError: the list has no end.
        """
        found: dict[str, dict[str, Any]] = {}
        with self.calling(f"looking for jobs tagged {tags[-1]}"):
            for client in self._clients():
                for job in _pages(client, tags, since=since):
                    found.setdefault(str(job["id"]), job)
        return sorted(found.values(), key=lambda job: str(job.get("created") or ""))

    def _of_job(self, job_id: str, verb: str, method: str, *, ignore: int | None = None) -> Any:
        doing = f"{verb} job {job_id}"
        last: Exception | None = None
        with self.calling(doing):
            for client in self._clients():
                try:
                    return getattr(client, method)(job_id)
                except Exception as error:
                    if (status := status_of(error)) == ignore and status is not None:
                        return None
                    if status != 404:
                        raise
                    last = error
        assert last is not None  # noqa: S101  (an account has at least one client)
        raise BackendGoneError(
            f"IBM has no job {job_id} in this account ({self.account()}). "
            "Is QISKIT_IBM_INSTANCE the instance it was submitted with?"
        ) from last

    def _instances(self) -> list[dict[str, Any]]:
        with self.calling("listing instances"):
            known = list(self.service.instances())
            mine = set(self.service._api_clients)
            return [found for found in known if found.get("crn") in mine] or known

    def _clients(self, *, every: bool = False) -> list[Any]:
        clients = list(self.service._api_clients.values())
        if every or not clients:
            clients.append(self.service._active_api_client)
        return clients


def check_client(service: Any) -> None:
    """See that the parts of IBM's client that are used here are where they were.

    Raises:
        PluginLoadError: one is missing.
    """
    missing = [name for name in _SERVICE_PARTS if not hasattr(service, name)]
    if not missing:
        client = service._active_api_client
        missing = [name for name in _CLIENT_PARTS if not hasattr(client, name)]
        if not missing and not isinstance(client._session, Session):
            missing = ["_session"]
    if missing:
        from importlib.metadata import version

        raise PluginLoadError(
            f"qiskit-ibm-runtime {version('qiskit-ibm-runtime')} is built differently from the "
            f"versions qsgd-ibm was written for: {', '.join(missing)} is missing. Without it a "
            "submission could be sent, and paid for, twice. "
            "Fix: pip install --upgrade qsgd-ibm, or pip install 'qiskit-ibm-runtime==0.51.0'"
        )


def _pages(client: Any, tags: list[str], *, since: float | None) -> list[dict[str, Any]]:
    """All pages of the list, and never more than there can be: the client's own loop has no end
    when the count in the answer is wrong.
    """
    jobs: list[dict[str, Any]] = []
    after = None if since is None else datetime.fromtimestamp(since, UTC)
    for _ in range(MAX_PAGES):
        answer = client.jobs_get(limit=PAGE, skip=len(jobs), job_tags=tags, created_after=after)
        page = answer.get("jobs") if isinstance(answer, dict) else None
        if not isinstance(page, list):
            raise TransientError(f"IBM's job list is {answer!r}.", retryable=True)
        jobs += page
        if not page or len(jobs) >= int(answer.get("count") or 0):
            break
    else:
        raise BackendError(
            f"IBM lists more than {len(jobs)} jobs tagged {tags[-1]}: it has not been read to the "
            "end. Ask for a shorter time: qsgd jobs audit --since DATE."
        )
    # A service that did not know the filter would list every job of the account.
    return [job for job in jobs if set(tags) <= set(job.get("tags") or ())]
