"""The few calls of AWS that are used, each bounded, each with its errors translated.

Two sessions of the SDK: the one that creates tasks never repeats a request, because nobody promises
that the service would recognise the repeat; the one that reads does, three times.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import ClientError

from qsgd_braket.cloud.errors import translated
from qsgd_core.errors import AuthError, BackendError, ConfigError

CONNECT_S, READ_S = 10, 30
ONCE = Config(
    retries={"total_max_attempts": 1, "mode": "standard"},
    connect_timeout=CONNECT_S,
    read_timeout=READ_S,
)
THRICE = Config(
    retries={"total_max_attempts": 3, "mode": "standard"},
    connect_timeout=CONNECT_S,
    read_timeout=READ_S,
)

S3_PAUSES_S = (0.2, 0.8)
"""Waits between reads of a result that is not there yet: S3 may lag behind the task's status."""

MAX_PAGES = 200
"""Pages of 100 tasks that a search by tag goes through before it gives up rather than says no."""


class AwsSessionLike(Protocol):
    """What is used of the SDK's AwsSession."""

    boto_session: Any
    braket_client: Any
    region: str

    def default_bucket(self) -> str:
        """The bucket for results."""
        ...

    def create_quantum_task(self, **arguments: object) -> str:
        """Create a task; its ARN."""
        ...


@dataclass(frozen=True)
class Missing:
    """An object that is not in the bucket."""

    bucket: str
    key: str


class Service:
    """Braket and S3 in one region.

    Args:
        creating: session that sends each request once.
        reading: session that repeats requests.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        creating: AwsSessionLike,
        reading: AwsSessionLike,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._creating = creating
        self._api = reading.braket_client
        self._session = reading
        self._pause = pause
        for client in (creating.braket_client, reading.braket_client):
            _check_endpoint(client.meta.endpoint_url)
        self.region: str = reading.region
        self._account: str | None = None

    def device(self, arn: str) -> dict[str, Any] | None:
        """GetDevice; None when there is no such device here."""
        with translated(f"Asking for Braket device {arn}"):
            try:
                return dict(self._api.get_device(deviceArn=arn))
            except ClientError as error:
                if error.response["Error"]["Code"] == "ResourceNotFoundException":
                    return None
                raise

    def devices(self) -> list[dict[str, Any]]:
        """Every device that the region lists, retired ones included."""
        with translated(f"Listing Braket devices in {self.region}"):
            pages = self._api.get_paginator("search_devices").paginate(filters=[])
            return [device for page in pages for device in page["devices"]]

    def account(self) -> str:
        """The AWS account's number; asked for once. It is free, and every key may ask."""
        if self._account is None:
            with translated("Asking AWS whose credentials these are"):
                sts = self._session.boto_session.client(
                    "sts", region_name=self.region, config=THRICE
                )
                self._account = str(sts.get_caller_identity()["Account"])
        return self._account

    def bucket(self) -> str:
        """The default bucket for results, created if need be."""
        with translated("Finding the S3 bucket for Braket's results"):
            return str(self._session.default_bucket())

    def create(self, *, token: str, **arguments: object) -> str:
        """CreateQuantumTask, sent once; the new task's ARN.

        Args:
            token: identifies this one creation, in case anything on the way repeats it.
            arguments: of the API.
        """
        with translated(f"Creating a task on {arguments['deviceArn']}", creates=True):
            return str(self._creating.create_quantum_task(clientToken=token, **arguments))

    def task(self, arn: str, handle: str | None = None) -> dict[str, Any]:
        """GetQuantumTask with its place in the queue."""
        with translated(f"Asking for Braket task {arn}", task=arn, handle=handle):
            answer = dict(
                self._api.get_quantum_task(
                    quantumTaskArn=arn, additionalAttributeNames=["QueueInfo"]
                )
            )
            if "status" not in answer:
                raise ValueError("the answer has no status")
            return answer

    def cancel(self, arn: str) -> None:
        """CancelQuantumTask; a task that has ended or is being cancelled is left alone."""
        with translated(f"Cancelling Braket task {arn}", task=arn):
            try:
                self._api.cancel_quantum_task(quantumTaskArn=arn)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ConflictException":
                    raise

    def tasks(self, device_arn: str) -> Iterator[dict[str, Any]]:
        """Every task of this account on the device, with its tags.

        The API has no filter for tags (botocore's model names five others), so this lists them.

        Raises:
            BackendError: there are more than could be looked through.
        """
        wanted = [{"name": "deviceArn", "operator": "EQUAL", "values": [device_arn]}]
        arguments: dict[str, Any] = {"filters": wanted, "maxResults": 100}
        for _ in range(MAX_PAGES):
            with translated(f"Searching the Braket tasks on {device_arn}"):
                page = self._api.search_quantum_tasks(**arguments)
                found = list(page["quantumTasks"])
            yield from found
            if not page.get("nextToken"):
                return
            arguments["nextToken"] = page["nextToken"]
        raise BackendError(
            f"There are more than {MAX_PAGES * 100} Braket tasks on {device_arn}: whether one of "
            "them is this run's cannot be told. Look for its tag in the Braket console.",
            may_have_spent=True,
        )

    def read(self, bucket: str, key: str, task: str) -> bytes | Missing:
        """An object of S3, read up to three times; Missing if it is not there.

        Raises:
            AuthError: the bucket may not be read.
            TransientError: S3 failed.
        """
        doing = f"Reading the result of Braket task {task} from s3://{bucket}/{key}"
        for pause in (*S3_PAUSES_S, None):
            try:
                with translated(doing, task=task):
                    body = self._s3().get_object(Bucket=bucket, Key=key)["Body"]
                    return bytes(body.read())
            except AuthError:
                raise
            except BackendError as error:
                if pause is None:
                    if error.provider_code == "NoSuchKey":
                        return Missing(bucket, key)
                    raise
                self._pause(pause)
        raise AssertionError("the last round returns or raises")

    def limit_spending(self, device_arn: str, usd: str, start: int, end: int, token: str) -> str:
        """CreateSpendingLimit; the new limit's ARN."""
        with translated(f"Setting a spending limit of ${usd} on {device_arn}"):
            answer = self._api.create_spending_limit(
                clientToken=token,
                deviceArn=device_arn,
                spendingLimit=usd,
                timePeriod={"startAt": start, "endAt": end},
                tags={"made-by": "qsgd"},
            )
            return str(answer["spendingLimitArn"])

    def lift_spending(self, arn: str) -> None:
        """DeleteSpendingLimit; one that is gone is left alone."""
        with translated(f"Removing the spending limit {arn}"):
            try:
                self._api.delete_spending_limit(spendingLimitArn=arn)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceNotFoundException":
                    raise

    def _s3(self) -> Any:
        # AwsSession's own S3 client takes no timeouts.
        return self._session.boto_session.client("s3", region_name=self.region, config=THRICE)


def _check_endpoint(url: str) -> None:
    """Session tokens go over the wire in headers: plain http only to this machine."""
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigError(
            f"The AWS endpoint {url} is not https. Unset AWS_ENDPOINT_URL and BRAKET_ENDPOINT, or "
            "give an https address."
        )
