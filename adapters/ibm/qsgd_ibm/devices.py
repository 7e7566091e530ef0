"""The devices an account sees, and what to say of one it does not see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from qsgd_core.errors import BackendGoneError


@dataclass(frozen=True)
class ListedDevice:
    """One line of ``GET /backends``."""

    name: str
    qubits: int
    pending: int
    online: bool

    def __str__(self) -> str:
        state = "" if self.online else ", offline"
        return f"{self.name} ({self.qubits} q, {self.pending} pending{state})"


def read_devices(listing: Iterable[dict[str, Any]]) -> list[ListedDevice]:
    """Quantum computers in IBM's list, least busy first; simulators and mocks left out."""
    devices: dict[str, ListedDevice] = {}
    for entry in listing:
        if entry.get("class") in ("mock", "simulator") or entry.get("is_simulator"):
            continue
        status = entry.get("status")
        name = status.get("name") if isinstance(status, dict) else status
        device = ListedDevice(
            name=str(entry["name"]),
            qubits=int(entry.get("qubits") or 0),
            pending=int(entry.get("queue_length") or 0),
            online=name == "online",
        )
        devices.setdefault(device.name, device)
    return sorted(devices.values(), key=lambda d: (not d.online, d.pending, d.name))


def least_busy(devices: list[ListedDevice], *, account: str) -> ListedDevice:
    """The device that is online with the fewest pending jobs.

    Raises:
        BackendGoneError: none is online.
    """
    if devices and devices[0].online:
        return devices[0]
    raise BackendGoneError(
        f"ibm:least_busy found no device that is online ({account}). Devices: {_listed(devices)}. "
        "Try again later, or use QSGD_BACKEND=fake_fez: recorded noise, simulated here, no account "
        "and no QPU time.",
        retryable=True,
    )


def not_available(name: str, devices: list[ListedDevice], *, account: str) -> BackendGoneError:
    """The error for a device that is not in the account: never a silent stand-in.

    Args:
        name: as asked for.
        devices: what there is.
        account: instance and plan, for people.
    """
    recording, retired = _recording_of(name)
    online = [d for d in devices if d.online]
    ways = [f"QSGD_BACKEND={online[0].name}", "QSGD_BACKEND=ibm:least_busy"] if online else []
    if recording:
        ways.append(
            f"QSGD_BACKEND={recording} to run the noise recorded of that device on this machine "
            "(no account, no QPU time)"
        )
    said = [f"{name} is not available to this account ({account})."]
    said += ["IBM has retired it."] if retired else []
    said += [f"Available now: {_listed(devices)}."]
    said += [f"Set {', or '.join(ways)}."] if ways else []
    said += ["Jobs that already ran there can still be read: qsgd jobs fetch."]
    return BackendGoneError(" ".join(said))


def offline(name: str, devices: list[ListedDevice], *, account: str) -> BackendGoneError:
    """The error for a device of the account that takes no jobs now."""
    online = _listed([d for d in devices if d.online])
    return BackendGoneError(
        f"{name} is offline ({account}). Available now: {online}. "
        "Try again later, or set QSGD_BACKEND=ibm:least_busy.",
        retryable=True,
    )


def _recording_of(name: str) -> tuple[str | None, bool]:
    """The ``fake_*`` simulator of a device, and whether IBM has taken the device out of service."""
    from qsgd_ibm.fake.backend import recordings

    recording = f"fake_{name.removeprefix('ibm_')}"
    cls = recordings().get(recording)
    # The client sets the number of physical qubits for devices that are in service only.
    return (None, False) if cls is None else (recording, cls().physical_qubits is None)


def _listed(devices: list[ListedDevice]) -> str:
    return ", ".join(map(str, devices)) or "none"
