"""The backend for AWS devices: one task for one submission, whatever is asked and whatever fails.

QPUs take program sets: one binding per batch, one input set per row, no observables; every ⟨Z⟩ is
computed from the measurements, because the task fee is then paid once and no number of the vendor's
is taken on trust. On-demand simulators take one program a task; rows run in it side by side.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from qsgd_braket import translate
from qsgd_braket.cloud import names, pricing
from qsgd_braket.cloud.device import Device, read_device
from qsgd_braket.cloud.layout import ResultLayout
from qsgd_braket.cloud.results import read_results
from qsgd_braket.cloud.service import Missing
from qsgd_braket.cloud.translate import Regions
from qsgd_braket.options import DeviceOptions
from qsgd_core.backend import Backend
from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import Workload
from qsgd_core.errors import (
    BackendError,
    BackendGoneError,
    CapabilityError,
    ConfigError,
    JobFailedError,
    JobNotDoneError,
    ResultCorruptError,
    TransientError,
    before_any_job,
)
from qsgd_core.jobs import Cost, JobHandle, JobState, JobStatus, Limit, Quote, Result

logger = logging.getLogger("qsgd_braket")

TAG, LAYOUT = "qsgd-tag", "qsgd-layout"
"""Keys of a task's tags: whose it is, and how to read its results."""

STATES = {
    "CREATED": JobState.QUEUED,
    "QUEUED": JobState.QUEUED,
    "RUNNING": JobState.RUNNING,
    "CANCELLING": JobState.RUNNING,
    "COMPLETED": JobState.DONE,
    "FAILED": JobState.FAILED,
    "CANCELLED": JobState.CANCELLED,
}

RESULT_LAG_S = 600.0
"""So long after a task has ended, its result may still be on its way to S3."""


class BraketDevice(Backend):
    """A QPU or an on-demand simulator of Amazon Braket.

    Args:
        name: ``braket:<device>`` or an ARN.
        options: validated options; None for the defaults.
        clock: seconds since the epoch, for dates.
        timer: seconds from any origin, never set back, for durations.
        pause: waits so many seconds between reads of S3.
    """

    def __init__(
        self,
        name: str,
        options: DeviceOptions | None = None,
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self._options = DeviceOptions() if options is None else options
        horizon_s = self._options.find_horizon_s
        self.capabilities = Capabilities(noisy=True, paid=True, find_horizon_s=horizon_s)
        self._clock = clock
        self._timer = timer
        self._ended: dict[str, tuple[float, float]] = {}
        self._aws = Regions(name, self._options.region, pause=pause)
        self._known: Device | None = None

    def resolve(self) -> str:
        """The device's ARN; from here on :attr:`capabilities` are its live limits.

        Raises:
            AuthError: credentials are missing or wrong.
            BackendGoneError: there is no such device, or it is retired or offline.
            CapabilityError: it runs no gate circuits.
        """
        answer = self._aws.describe()
        device = read_device(answer)
        if device.status != "ONLINE":
            raise BackendGoneError(
                f"Braket device {self.name!r} ({device.arn}) is {device.status}. "
                f"{self._aws.alternatives(names.region(device.arn))}",
                provider_code=device.status,
            )
        self._adopt(device)
        logger.info("%s is %s. %s", self.name, device.arn, self._window(device))
        return device.arn

    def account(self) -> str:
        """See :meth:`Backend.account`: the AWS account that pays."""
        return f"aws-{self._aws.service(self._device().arn).account()}"

    def quote(self, work: Workload, *, shots: int) -> Quote:
        """The price of the one task that ``work`` makes; when it would run is in ``source``.

        Raises:
            CapabilityError: it does not fit into one task.
        """
        device = self._device()
        layout = self._plan(device, work, shots)
        quote = pricing.quote(
            device,
            self._options,
            total_shots=self._total_shots(layout, shots),
            width=sum(b.n_rows * b.circuit.n_qubits for b in work.batches),
        )
        source = f"{quote.source}. {self._window(device)}"
        return Quote(quote.expected, quote.worst, source, quote.effective_date)

    def submit(
        self, work: Workload, *, shots: int, tag: str, limit: Limit, seed: int | None = None
    ) -> JobHandle:
        """Create one task: one request that is never repeated here. ``seed`` has no effect on AWS.

        Raises:
            CapabilityError: it does not fit into one task; nothing was sent.
            BackendError: refused, or above ``limit``; ``nothing_made`` unless the task may exist
                all the same: look for it with :meth:`find`.
        """
        with before_any_job():
            device = self._device()
            layout = self._plan(device, work, shots)
            self._within(limit, self.quote(work, shots=shots))
            service = self._aws.service(device.arn)
            action = translate.program_set if layout.route == "set" else translate.program
            request = {
                "deviceArn": device.arn,
                "shots": self._total_shots(layout, shots),
                "action": action(work.batches),
                "outputS3Bucket": self._options.s3_bucket or service.bucket(),
                "outputS3KeyPrefix": self._options.s3_prefix,
                "tags": {TAG: tag, LAYOUT: layout.text},
            }
        try:
            arn = service.create(token=hashlib.sha256(tag.encode()).hexdigest(), **request)
        except BackendGoneError as error:
            raise BackendGoneError(
                f"{error} {self._aws.alternatives(names.region(device.arn))}",
                provider_code=error.provider_code,
                nothing_made=error.nothing_made,
            ) from error
        return self._handle(arn, tag, layout.text, self._clock(), device.arn)

    def status(self, handle: JobHandle) -> JobStatus:
        """The task's state now, with the reason it failed for and its place in the queue."""
        task = self._aws.service(handle.job_id).task(handle.job_id, handle.to_json())
        said = str(task["status"])
        state = STATES.get(said, JobState.RUNNING)
        unusual = said == "CANCELLING" or said not in STATES
        reason = task.get("failureReason") or (said if unusual else None)
        position = str((task.get("queueInfo") or {}).get("position", ""))
        return JobStatus(
            state,
            reason=reason,
            queue_position=int(p) if (p := position.lstrip(">")).isdigit() else None,
            billed=self._unfinished_cost(task) if state.final else None,
        )

    def fetch(self, handle: JobHandle) -> Result:
        """The bits of a finished task, one part per batch.

        Raises:
            JobNotDoneError: it has not finished.
            JobFailedError: it failed or was cancelled, or some of its circuits did.
            TransientError: S3 or the network failed; ask again.
            ResultCorruptError: there is no result, or it is cut or another task's.
        """
        text = handle.to_json()
        service = self._aws.service(handle.job_id)
        task = service.task(handle.job_id, text)
        state = STATES.get(str(task["status"]), JobState.RUNNING)
        if not state.final:
            raise JobNotDoneError(
                f"Braket task {handle.job_id} is {task['status']}.", retryable=True, handle=text
            )
        if state is not JobState.DONE:
            raise JobFailedError(
                f"Braket task {handle.job_id} is {task['status']}: "
                f"{task.get('failureReason') or 'the service gives no reason'}.",
                provider_code=str(task["status"]),
                handle=text,
                may_have_spent=bool(task.get("numSuccessfulShots")),
            )
        layout = ResultLayout.parse(str(handle.extra["layout"]))
        shots = layout.shots(int(task["shots"]))

        def read(path: str) -> bytes:
            key = f"{task['outputS3Directory']}/{path}"
            body = service.read(str(task["outputS3Bucket"]), key, handle.job_id)
            if isinstance(body, Missing):
                raise self._missing(body, task, text)
            return body

        try:
            found = read_results(read, shots=shots)
            parts = layout.split(found.executables, shots)
        except ResultCorruptError as error:
            # The object may still be being written; what was paid for is read again for a while.
            error.retryable = self._just_ended(task)
            raise
        return Result(
            parts,
            executed_at=_seconds(task.get("endedAt")),
            billed=pricing.billed(
                self._device(), self._options, shots=int(task["shots"]), seconds=found.seconds
            ),
        )

    def find(self, tag: str) -> list[JobHandle]:
        """Every task under ``tag``, oldest first, as far as the service's list shows it by now."""
        return [handle for handle in self._tagged() if handle.tag == tag]

    def billed(self, handle: JobHandle) -> Cost | None:
        """What the task costs by the device's prices now: AWS tells no task's cost.

        Unknown in dollars where the device's description is newer than the task: a price of today
        says nothing of a task of last month.
        """
        task = self._aws.service(handle.job_id).task(handle.job_id, handle.to_json())
        state = STATES.get(str(task["status"]), JobState.RUNNING)
        if not state.final:
            return None
        if state is not JobState.DONE:
            cost = self._unfinished_cost(task)
        elif self._device().simulator:
            cost = self.fetch(handle).billed
        else:
            shots = int(task["shots"])
            cost = pricing.billed(self._device(), self._options, shots=shots)
        if cost is not None and cost.usd and self._prices_are_newer(task):
            return replace(cost, usd=None)
        return cost

    def list_jobs(self, *, since: float) -> list[JobHandle]:
        """Every task with our tag on this device."""
        return [handle for handle in self._tagged() if handle.submitted_at >= since]

    def cancel(self, handle: JobHandle) -> None:
        """Ask for the task to be cancelled; one that has ended is left alone."""
        self._aws.service(handle.job_id).cancel(handle.job_id)

    def guard(self, usd: float, *, until: float) -> str | None:
        """AWS's own spending limit on this device; quantum computers only.

        The limit counts every task of the AWS account on the device, not only this run's, and
        stands until it is lifted or its time is over.

        Args:
            usd: US dollars; rounded down to cents.
            until: end, seconds since the epoch.

        Returns:
            The limit's ARN; None for an on-demand simulator, for which AWS has no limits.

        Raises:
            ConfigError: less than a cent, or an end in the past.
            BackendError: AWS refused.
        """
        device = self._device()
        if device.simulator:
            return None
        now = int(self._clock())
        if usd < 0.01 or until <= now:
            raise ConfigError(
                f"A spending limit needs at least $0.01 and an end in the future; found ${usd:g} "
                f"until {until:g}."
            )
        amount = f"{math.floor(round(usd * 100, 6)) / 100:.2f}"
        end = math.ceil(until)
        token = hashlib.sha256(f"{device.arn} {amount} {now} {end}".encode()).hexdigest()
        return self._aws.service(device.arn).limit_spending(device.arn, amount, now, end, token)

    def unguard(self, guard: str) -> None:
        """Lift a spending limit; one that is gone is left alone."""
        self._aws.service(guard).lift_spending(guard)

    # --- the device -------------------------------------------------------------------------------

    def _device(self) -> Device:
        """What :meth:`resolve` found, in this or an earlier process."""
        return self._known or self._adopt(read_device(self._aws.describe()))

    def _adopt(self, device: Device) -> Device:
        """Its live limits are this backend's from here on."""
        horizon_s = self._options.find_horizon_s
        self.capabilities = replace(device.capabilities(), find_horizon_s=horizon_s)
        self._known = device
        return device

    def _window(self, device: Device) -> str:
        wait = device.opens_in(datetime.fromtimestamp(self._clock(), UTC))
        if wait is None:
            return "It names no hours in which it executes tasks."
        if wait <= timedelta():
            return "It executes tasks now."
        hours = wait.total_seconds() / 3600
        return f"It takes tasks now and executes them in {hours:.1f} hours, when its window opens."

    # --- one task ---------------------------------------------------------------------------------

    def _plan(self, device: Device, work: Workload, shots: int) -> ResultLayout:
        self.capabilities.require(self.name, work, shots=shots)
        layout = ResultLayout.of(work, device.route)
        fewest = device.total_shots[0]
        if fewest is not None and self._total_shots(layout, shots) < fewest:
            raise CapabilityError(
                f"Backend {self.name!r} cannot run this.",
                [
                    f"A program set needs at least {fewest} shots together; {layout.n_rows} rows "
                    f"of {shots} were asked for. Use shots={math.ceil(fewest / layout.n_rows)}."
                ],
            )
        return layout

    @staticmethod
    def _total_shots(layout: ResultLayout, shots: int) -> int:
        return shots * layout.n_rows if layout.route == "set" else shots

    def _within(self, limit: Limit, quote: Quote) -> None:
        worst = quote.worst
        bounds = (("$", limit.usd, worst.usd), ("shots ", limit.shots, worst.shots))
        for unit, most, asked in bounds:
            # A hold is rounded to whole micro-dollars.
            if most is not None and (asked is None or asked > most + 1e-6):
                raise BackendError(
                    f"The task on {self.name!r} may cost {unit}{asked}, and its limit is "
                    f"{unit}{most}. Nothing was sent. Price: {quote.source}"
                )

    def _handle(self, arn: str, tag: str, layout: str, at: float, device: str) -> JobHandle:
        return JobHandle(device, arn, tag, at, {"layout": layout})

    def _just_ended(self, task: dict[str, Any]) -> bool:
        ended = _seconds(task.get("endedAt"))
        if ended is None:
            return True
        now = self._timer()
        dated = (max(self._clock() - ended, 0.0), now)
        age_s, then = self._ended.setdefault(str(task["quantumTaskArn"]), dated)
        return age_s + now - then < RESULT_LAG_S

    def _missing(self, object_: Missing, task: dict[str, Any], handle: str) -> BackendError:
        where = f"s3://{object_.bucket}/{object_.key}"
        if self._just_ended(task):
            return TransientError(
                f"Braket says the task is complete, and {where} is not there yet.",
                retryable=True,
                handle=handle,
                may_have_spent=True,
            )
        return ResultCorruptError(
            f"Braket says the task is complete, and {where} is not there. Was it deleted, by hand "
            "or by a lifecycle rule of the bucket?",
            handle=handle,
            may_have_spent=True,
        )

    def _tagged(self) -> list[JobHandle]:
        """Every task on the device that has a tag of ours, oldest first."""
        device = self._device()
        found = [
            self._handle(
                str(task["quantumTaskArn"]),
                str(task["tags"][TAG]),
                str(task["tags"].get(LAYOUT, "")),
                _seconds(task.get("createdAt")) or self._clock(),
                device.arn,
            )
            for task in self._aws.service(device.arn).tasks(device.arn)
            if TAG in (task.get("tags") or {})
        ]
        return sorted(found, key=lambda handle: handle.submitted_at)

    def _prices_are_newer(self, task: dict[str, Any]) -> bool:
        ended, updated = _seconds(task.get("endedAt")), self._device().updated_at
        if ended is None or updated is None:
            return False
        try:
            moment = datetime.fromisoformat(updated)
        except ValueError:
            return False
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() > ended

    def _unfinished_cost(self, task: dict[str, Any]) -> Cost | None:
        """A task that failed or was cancelled costs what it ran, as in the SDK's own tracker.

        Where the shots are not told it is nothing, but not before AWS has had the time to tell.
        """
        if task["status"] == "COMPLETED":
            return None
        if task.get("numSuccessfulShots") is None and self._just_ended(task):
            return None
        shots = int(task.get("numSuccessfulShots") or 0)
        if not shots:
            return Cost(usd=0.0, shots=0)
        return pricing.billed(self._device(), self._options, shots=shots)


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
