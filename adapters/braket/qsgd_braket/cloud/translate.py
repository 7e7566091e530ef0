"""From what somebody typed to a device, and from an ARN to the service in its region."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import boto3
from botocore.exceptions import NoRegionError
from braket.aws import AwsDevice, AwsSession
from braket.devices import Devices

from qsgd_braket.cloud import names
from qsgd_braket.cloud.errors import translated
from qsgd_braket.cloud.service import ONCE, THRICE, Service
from qsgd_core.errors import AuthError, BackendError, BackendGoneError, ConfigError


class Regions:
    """AWS as one name needs it: opened region by region, each once.

    Args:
        name: ``braket:<device>`` or an ARN.
        region: where an on-demand simulator is asked for; None: as AWS is configured.
        pause: waits so many seconds between reads of S3.
    """

    def __init__(self, name: str, region: str | None, *, pause: Callable[[float], None]) -> None:
        self._name = name
        self._region = region
        self._pause = pause
        self._services: dict[str | None, Service] = {}

    def service(self, arn: str) -> Service:
        """The service in the region of a device, task or limit."""
        return self._in_region(names.region(arn) or self._region)

    def describe(self) -> dict[str, Any]:
        """GetDevice of what the name means.

        Raises:
            AuthError: credentials are missing or wrong.
            BackendGoneError: there is no such device.
        """
        for arn in self._candidates():
            if (answer := self.service(arn).device(arn)) is not None:
                return answer
        raise BackendGoneError(
            f"There is no Braket device {self._name!r}.{names.meant(self._name, sdk_arns())} "
            f"{self.alternatives(None)}"
        )

    def alternatives(self, region: str | None) -> str:
        """What there is instead, if the service can say so; None: in all regions."""
        try:
            found = self._listed(AwsDevice.REGIONS if region is None else [region])
        except AuthError:
            raise
        except BackendError as error:
            return f"What is available could not be listed ({error})"
        online = [d["deviceArn"] for d in found if d["deviceStatus"] == "ONLINE"]
        where = "" if region is None else f" in {region}"
        return f"Online{where}: {names.listed(online)}; without an account: braket:local."

    def _candidates(self) -> list[str]:
        """ARNs that the name may mean: itself, those that the SDK knows, or found by search."""
        if names.is_arn(self._name):
            return [self._name]
        if known := names.match(self._name, sdk_arns()):
            return known
        try:
            found = self._listed(AwsDevice.REGIONS)
        except AuthError as error:
            hint = names.meant(self._name, sdk_arns())
            raise AuthError(f"The SDK knows no device {self._name!r}.{hint} {error}") from error
        arns = names.match(self._name, (d["deviceArn"] for d in found))
        wanted = names.normal(self._name)
        arns += [d["deviceArn"] for d in found if names.normal(d["deviceName"]) == wanted]
        return list(dict.fromkeys(arns))

    def _listed(self, regions: Iterable[str]) -> list[dict[str, Any]]:
        return [device for region in regions for device in self._in_region(region).devices()]

    def _in_region(self, region: str | None) -> Service:
        if region not in self._services:
            with translated("Opening a session with AWS"):
                self._services[region] = self._open(region)
        return self._services[region]

    def _open(self, region: str | None) -> Service:
        # Without a region the SDK's own rule holds: AWS_REGION, else as boto3 finds it.
        boto = None if region is None else boto3.Session(region_name=region)
        try:
            creating = AwsSession(boto, config=ONCE)
        except NoRegionError as error:
            raise ConfigError(
                f"{self._name!r} is in several AWS regions, and none is chosen. Set "
                "AWS_REGION=us-east-1 or the option region=us-east-1."
            ) from error
        reading = AwsSession(creating.boto_session, config=THRICE)
        return Service(creating, reading, pause=self._pause)


def sdk_arns() -> list[str]:
    """Every ARN that the installed SDK names, retired ones included; their status is read live."""
    groups = [g for g in vars(Devices).values() if isinstance(g, type)]
    return [str(arn) for group in dict.fromkeys(groups) for arn in group]  # type: ignore[attr-defined]
