"""IBM's queued devices behind QSGD's :class:`Backend`, through IBM's own client.

Every method is one bounded piece of work; waiting for a queue is the caller's. ``submit`` lets at
most one ``POST /jobs`` through (:mod:`qsgd_ibm.transport`) and carries what is needed to read the
result back in the circuits' metadata, so that a job found by its tag alone is as good as a handle.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qsgd_core.backend import Backend
from qsgd_core.capabilities import Capabilities
from qsgd_core.errors import (
    AuthError,
    BackendError,
    BackendGoneError,
    ConfigError,
    JobFailedError,
    JobNotDoneError,
    ResultCorruptError,
    TransientError,
    before_any_job,
)
from qsgd_core.jobs import Cost, JobHandle, JobState, JobStatus, NoiseSnapshot, Result
from qsgd_ibm import devices as listing
from qsgd_ibm.connection import Connection
from qsgd_ibm.failures import LOGIN_HELP, refused, translating
from qsgd_ibm.hosts import require_safe
from qsgd_ibm.limits import max_execution_time, require_usage
from qsgd_ibm.mitigation import sampler_options
from qsgd_ibm.options import IBMOptions
from qsgd_ibm.pace import RateLimiter
from qsgd_ibm.pricing import DEFAULT_REP_DELAY_S, Rate, expected_s, quote, rate
from qsgd_ibm.results import read_result, sent_with
from qsgd_ibm.snapshot import snapshot, stamp_of
from qsgd_ibm.states import epoch_s, read_billed, read_state
from qsgd_ibm.translate import Compiler, Isa, pubs, require_isa

if TYPE_CHECKING:
    from qsgd_core.circuits import Workload
    from qsgd_core.jobs import Limit, Quote

logger = logging.getLogger(__name__)

TAG = "qsgd"
"""Second tag of every job."""
MAX_TAG = 60
MAX_QUBITS = 100
"""The transpiler finds a line of so many qubits on every device in service."""
LEAST_BUSY = "ibm:least_busy"
DAMAGE_S = 600.0
"""For this long a result that cannot be used is read again: it may be a gateway's page."""
CALIBRATION_S = 3600.0
"""How old the device's calibration may be before it is read again."""


class IBMBackend(Backend):
    """One device of the IBM Quantum Platform.

    Args:
        name: ``ibm_fez``, ``ibm:ibm_fez`` or ``ibm:least_busy``.
        options: vendor options; None for the defaults.
        clock: monotonic seconds.
        sleep: waits so many seconds; called before a submission that IBM's limit of five jobs a
            minute would refuse.
    """

    def __init__(
        self,
        name: str,
        options: IBMOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self._options = options or IBMOptions()
        self.capabilities = Capabilities(
            paid=True,
            noisy=True,
            max_qubits=min(MAX_QUBITS, len(self._options.initial_layout or range(MAX_QUBITS))),
            max_executions=10_000_000,
            default_shots=1024,
            find_horizon_s=self._options.find_horizon_s,
        )
        self._device_name = None if name == LEAST_BUSY else name.removeprefix("ibm:")
        self._clock = clock
        self._pace = RateLimiter(clock=clock, sleep=sleep)
        self._compiler = Compiler(self._options)
        self._open: Connection | None = None
        self._device: Any = None
        self._read_at = 0.0
        self._damaged: dict[str, float] = {}
        self._missing: dict[str, tuple[float, float]] = {}

    def resolve(self) -> str:
        """See :meth:`Backend.resolve`; ``ibm:least_busy`` is looked up once and then kept."""
        connection = self._connect()
        found = connection.devices()
        if self._device_name is None:
            self._device_name = listing.least_busy(found, account=connection.account()).name
        name = self._device_name
        device = next((d for d in found if d.name == name), None)
        if device is None:
            raise listing.not_available(name, found, account=connection.account())
        if not device.online:
            raise listing.offline(name, found, account=connection.account())
        return name

    def account(self) -> str:
        """See :meth:`Backend.account`: the instance that pays, as a digest of its CRN."""
        crn = str(self._connect().service.active_instance())
        return f"ibm-{hashlib.sha256(crn.encode()).hexdigest()[:12]}"

    def quote(self, work: Workload, *, shots: int) -> Quote:
        """QPU seconds by IBM's time model; dollars where the plan's price is known."""
        device = self._current()
        return quote(
            self._expected_s(work, shots, device),
            shots=work.n_rows * shots,
            rate=self._rate(),
        )

    def calibration(self, work: Workload) -> NoiseSnapshot:
        """IBM's figures for the qubits that ``work``'s widest circuit runs on."""
        device = self._current()
        return snapshot(device, self._widest(work, device))

    def submit(
        self,
        work: Workload,
        *,
        shots: int,
        tag: str,
        limit: Limit,
        seed: int | None = None,
    ) -> JobHandle:
        """Send one job with one PUB per batch, findable under ``tag``.

        ``seed`` has no effect: nothing that is random at IBM can be seeded.

        Raises:
            CapabilityError, ConfigError: it cannot run as asked; nothing was sent.
            BackendError: refused before sending (usage, limit, device offline) or by IBM;
                ``nothing_made`` unless a job may exist.
        """
        from qiskit_ibm_runtime.executor_sampler import Sampler

        with before_any_job():
            self.capabilities.require(self.name, work, shots=shots)
            if not tag or len(tag) > MAX_TAG:
                raise ConfigError(f"A tag has 1 to {MAX_TAG} characters; found {tag!r}.")
            connection, device = self._connect(), self._current()
            isas = [self._isa(batch.circuit, device) for batch in work.batches]
            require_isa([isa.circuit for isa in isas], device.target)
            expected = self._expected_s(work, shots, device)
            seconds = max_execution_time(
                expected, limit, executions=work.n_rows * shots, usd_per_s=self._usd_per_s()
            )
            options = sampler_options(
                self._options, shots=shots, tags=[TAG, tag], max_execution_time=seconds
            )
            layout = self._widest(work, device).layout
            extra = sent_with(work, shots=shots, layout=layout, stamp=stamp_of(device))
            entries = [
                pub
                for index, (isa, batch) in enumerate(zip(isas, work.batches, strict=True))
                for pub in pubs(isa, batch, {"qsgd": {**extra, "tag": tag, "batch": index}})
            ]
            self._require_ready(connection, device, expected)
            self._pace.wait()
        doing = f"submitting job {tag} to {device.name}"
        with connection.transport.one_post() as post:
            try:
                with connection.calling(doing):
                    Sampler(mode=device, options=options).run(entries, shots=shots)
            except Exception as error:  # noqa: BLE001  (SDK call: any class of error comes up)
                if post.job_id is None or post.may_have_spent is False:
                    raise refused(post, error, doing=doing, secret=connection.secret) from (
                        error.__cause__ or error
                    )
                logger.warning("Job %s was made, but the client failed: %s", post.job_id, error)
        if post.job_id is None:
            raise TransientError(
                f"IBM's answer to {doing} has no job id: {post.text[:200]!r}. The job may exist.",
                retryable=True,
                may_have_spent=True,
            )
        return JobHandle(device.name, post.job_id, tag, time.time(), extra)

    def status(self, handle: JobHandle) -> JobStatus:
        """Where the job is; once it has ended, with what was billed."""
        connection = self._connect()
        status = read_state(self._record(connection, handle))
        if not status.state.final:
            return status
        done = status.state is JobState.DONE and handle.extra
        billed = read_billed(
            _metrics(connection, handle.job_id),
            shots=sum(handle.extra["rows"]) * handle.extra["shots"] if done else None,
            usd_per_s=self._usd_per_s(),
        )
        return JobStatus(status.state, status.reason, billed=billed)

    def fetch(self, handle: JobHandle) -> Result:
        """See :meth:`Backend.fetch`; checked to be the result of this very job."""
        connection = self._connect()
        status = read_state(self._record(connection, handle))
        if not status.state.final:
            raise JobNotDoneError(
                f"Job {handle.job_id} of {handle.backend} is {status.state}; ask again later.",
                retryable=True,
                handle=handle.to_json(),
            )
        if status.state is not JobState.DONE:
            raise JobFailedError(
                f"Job {handle.job_id} of {handle.backend} ended as {status.state}: "
                f"{status.reason or 'IBM gives no reason'}.",
                handle=handle.to_json(),
                may_have_spent=True,
            )
        metrics = _metrics(connection, handle.job_id)
        price = self._usd_per_s()
        try:
            text = connection.results(handle.job_id)
            return read_result(handle, text, metrics, usd_per_s=price)
        except (ResultCorruptError, BackendGoneError) as error:
            said = "it is missing." if isinstance(error, BackendGoneError) else str(error)
            since = self._damaged.setdefault(handle.job_id, self._clock())
            raise ResultCorruptError(
                f"Job {handle.job_id} of {handle.backend} is complete, but its result cannot be "
                f"used: {said} See it at https://quantum.cloud.ibm.com/workloads.",
                retryable=self._clock() - since < DAMAGE_S,
                handle=handle.to_json(),
                may_have_spent=True,
            ) from error

    def find(self, tag: str) -> list[JobHandle]:
        """Every job under ``tag`` in every instance of the account, oldest first."""
        return [
            JobHandle(
                backend=str(job.get("backend") or self._device_name),
                job_id=str(job["id"]),
                tag=tag,
                submitted_at=epoch_s(job.get("created")) or time.time(),
            )
            for job in self._connect().jobs([TAG, tag])
        ]

    def billed(self, handle: JobHandle) -> Cost | None:
        """What IBM says by now was charged; unknown while it still counts."""
        connection = self._connect()
        state = read_state(self._record(connection, handle)).state
        if not state.final:
            return None
        shots = None
        if state is JobState.DONE:
            if not handle.extra:  # found by its tag alone: what was sent is in the result
                return self.fetch(handle).billed
            shots = sum(handle.extra["rows"]) * handle.extra["shots"]
        metrics = connection.metrics(handle.job_id)
        return read_billed(metrics, shots=shots, usd_per_s=self._usd_per_s())

    def list_jobs(self, *, since: float) -> list[JobHandle]:
        """Every job with our tag on this device, in every instance of the account."""
        found = self._connect().jobs([TAG], since=since)
        return [
            JobHandle(
                backend=str(job.get("backend") or self._device_name),
                job_id=str(job["id"]),
                tag=next((str(tag) for tag in job["tags"] if tag != TAG), ""),
                submitted_at=epoch_s(job.get("created")) or since,
            )
            for job in found
            if job.get("backend") in (None, self._device_name)
            and (epoch_s(job.get("created")) or since) >= since
        ]

    def cancel(self, handle: JobHandle) -> None:
        """See :meth:`Backend.cancel`. What a running job has used by then is charged."""
        self._connect().cancel(handle.job_id)

    def _connect(self) -> Connection:
        if self._open is None or self._open.stale:
            self._open = open_account(self._options.instance)
            self._device = None
        return self._open

    def _current(self) -> Any:
        """IBM's object for the device, with a calibration of the last hour."""
        connection = self._connect()
        if self._device is not None and self._clock() - self._read_at <= CALIBRATION_S:
            return self._device
        name = self.resolve()
        with connection.calling(f"reading the calibration of {name}"):
            if self._device is None:
                self._device = connection.service.backend(name)
                self._device.properties()
            else:
                self._device.refresh()
        self._read_at = self._clock()
        return self._device

    def _isa(self, circuit: Any, device: Any) -> Isa:
        return self._compiler.compile(circuit, device, stamp=stamp_of(device))

    def _widest(self, work: Workload, device: Any) -> Isa:
        batch = max(work.batches, key=lambda b: b.circuit.n_qubits)
        return self._isa(batch.circuit, device)

    def _expected_s(self, work: Workload, shots: int, device: Any) -> float:
        delay = self._options.rep_delay
        if delay is None:
            delay = getattr(device.configuration(), "default_rep_delay", None)
        executions = work.n_rows * shots
        circuit_s = sum(
            self._isa(b.circuit, device).duration_s * b.n_rows * shots for b in work.batches
        )
        return expected_s(
            executions,
            rep_delay_s=DEFAULT_REP_DELAY_S if delay is None else float(delay),
            circuit_s=circuit_s / executions,
        )

    def _rate(self) -> Rate:
        given = self._options.usd_per_s
        if given is not None:
            return rate(self.name, given=given, plan=None, free=False)
        connection = self._connect()
        plan, free = connection.plan(connection.service.active_instance())
        return rate(self._device_name or self.name, given=None, plan=plan, free=free)

    def _usd_per_s(self) -> float | None:
        return self._rate().usd_per_s

    def _require_ready(self, connection: Connection, device: Any, expected: float) -> None:
        """Refuse what IBM would leave unrun: no time left on the plan, or the device offline.

        IBM's client only warns of both, and sends the job.
        """
        with connection.calling(f"reading usage and status of {device.name}"):
            usage = connection.service.usage()
            status = device.status()
        require_usage(usage, expected, account=connection.account())
        if not status.operational:
            raise listing.offline(device.name, connection.devices(), account=connection.account())

    def _record(self, connection: Connection, handle: JobHandle) -> dict[str, Any]:
        try:
            return connection.job(handle.job_id)
        except BackendGoneError as error:
            now = self._clock()
            dated = (max(time.time() - handle.submitted_at, 0.0), now)
            age_s, then = self._missing.setdefault(handle.job_id, dated)
            if age_s + now - then > self.capabilities.find_horizon_s:
                raise
            # Accepted a moment ago and not listed yet.
            raise TransientError(str(error), retryable=True) from error


def open_account(instance: str | None) -> Connection:
    """Log in with the ecosystem's own credentials.

    ``QISKIT_IBM_TOKEN``, ``QISKIT_IBM_INSTANCE`` and ``QISKIT_IBM_URL``, or a saved account.

    Raises:
        AuthError: there are none, or IBM does not accept them.
        ConfigError: they would be sent unencrypted.
    """
    from qiskit_ibm_runtime import QiskitRuntimeService
    from qiskit_ibm_runtime.accounts import AccountManager

    with translating("reading the saved IBM account"):
        account = AccountManager.get()
    if not account.token:
        raise AuthError(f"No IBM API key was found. {LOGIN_HELP}")
    require_safe(account.url, source="QISKIT_IBM_URL (or the saved account's url)")
    for name in ("IAM_URL", "GLOBAL_SEARCH_URL", "GLOBAL_CATALOG_URL"):
        if url := os.environ.get(name):  # noqa: TID251 - where IBM's own client would send the key
            require_safe(url, source=name)
    with translating("logging in to IBM", secret=account.token):
        service = QiskitRuntimeService(instance=instance)
    return Connection(service, secret=account.token)


def _metrics(connection: Connection, job_id: str) -> dict[str, Any]:
    """Usage of a finished job; empty where IBM does not tell. The result matters more."""
    try:
        return connection.metrics(job_id)
    except BackendError as error:
        logger.warning("The usage of job %s is not known: %s", job_id, error)
        return {}
