"""Finding a PennyLane device by name and building it, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pennylane as qml

from qsgd_core.errors import CapabilityError, ConfigError, PluginLoadError, UnknownBackendError

REMOTE = {
    "qiskit.remote": "'ibm_fez' or 'ibm:least_busy' (pip install qsgd-ibm)",
    "qiskit.ibmq*": "'ibm_fez' or 'ibm:least_busy' (pip install qsgd-ibm)",
    "braket.aws.*": "'braket:sv1' or a device's ARN (pip install qsgd-braket)",
    "ionq.*": "a device of IonQ's on Braket, by its ARN (pip install qsgd-braket)",
    "aqt.*": "a device of AQT's on Braket, by its ARN (pip install qsgd-braket)",
    "rigetti.*": "a device of Rigetti's on Braket, by its ARN (pip install qsgd-braket)",
    "iqm.*": "a device of IQM's on Braket, by its ARN (pip install qsgd-braket)",
    "honeywell.*": "",
    "quantinuum.*": "",
    "oqc.*": "",
    "*.remote": "",
    "*.cloud": "",
    "*.qpu": "",
}
"""Devices that send jobs to a service -> what to use instead, where there is something."""

PACKAGES = {
    "qiskit.*": "pennylane-qiskit",
    "braket.local.*": "amazon-braket-pennylane-plugin",
    "cirq.*": "pennylane-cirq",
    "lightning.qubit": "pennylane-lightning",
    "lightning.gpu": "pennylane-lightning-gpu",
    "lightning.kokkos": "pennylane-lightning-kokkos",
    "lightning.tensor": "pennylane-lightning-tensor",
    "qulacs.*": "pennylane-qulacs",
    "qrack.*": "pennylane-qrack",
}
"""Who provides well-known devices. Says what to install; resolves nothing."""


def find(device: str) -> EntryPoint:
    """The entry point of an installed device; its module can be imported.

    Raises:
        CapabilityError: the device sends jobs to a service.
        UnknownBackendError: no installed plugin provides it.
        PluginLoadError: its plugin cannot be imported; the cause is chained.
    """
    # Before anything of the plugin is imported: some log in as soon as they are.
    _refuse_remote(device)
    installed = {point.name: point for point in entry_points(group="pennylane.plugins")}
    if device not in installed:
        raise UnknownBackendError(_unknown(device, sorted(installed)))
    try:
        installed[device].load()
    except Exception as error:  # a third party's module runs here
        dist = installed[device].dist
        plugin = f"{dist.name} {dist.version}" if dist else installed[device].value
        raise PluginLoadError(
            f"Backend 'pennylane:{device}': the PennyLane plugin {plugin} cannot be imported: "
            f"{type(error).__name__}: {error}. Install what it needs, or use "
            "'pennylane:default.qubit'."
        ) from error
    return installed[device]


def build(
    device: str, options: Mapping[str, Any], *, n_wires: int, seed: int | None
) -> qml.devices.Device:
    """A new device on wires 0 … ``n_wires`` - 1; ``seed`` None leaves the argument out.

    Raises:
        PluginLoadError: something that the device needs is not installed; the cause is chained.
        ConfigError: the device refuses its arguments; the cause is chained.
    """
    seeded = {} if seed is None else {"seed": seed}
    try:
        return qml.device(device, wires=n_wires, **seeded, **options)
    except ImportError as error:
        told = " ".join(str(error).split())
        raise PluginLoadError(
            f"Backend 'pennylane:{device}' lacks something that it needs: {told} Install that, or "
            "use 'pennylane:default.qubit'."
        ) from error
    except Exception as error:  # the device's own constructor: any type may come
        given = ", ".join(f"{key}={value!r}" for key, value in options.items()) or "no options"
        raise ConfigError(
            f"Backend 'pennylane:{device}' cannot be built on {n_wires} wires with {given}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _refuse_remote(device: str) -> None:
    for pattern, instead in REMOTE.items():
        if fnmatchcase(device, pattern):
            advice = f"Use {instead}." if instead else "No QSGD provider is known for it."
            raise CapabilityError(
                f"Backend 'pennylane:{device}' is not a simulator on this machine.",
                [
                    "It sends jobs to a service, which can cost money, and QSGD spends none "
                    f"outside its ledger. {advice}"
                ],
            )


def _unknown(device: str, installed: list[str]) -> str:
    message = [f"Unknown backend 'pennylane:{device}': no installed PennyLane plugin has it."]
    if close := get_close_matches(device, installed):
        message.append(f"Did you mean {' or '.join(repr(f'pennylane:{c}') for c in close)}?")
    for pattern, package in PACKAGES.items():
        if fnmatchcase(device, pattern):
            message.append(f"To install it: pip install {package}.")
    message.append(f"Installed: {', '.join(installed)}.")
    return " ".join(message)
