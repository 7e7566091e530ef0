"""The provider: ``pennylane:DEVICE``. Light; PennyLane is imported when a device is made."""

from __future__ import annotations

from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import BackendSpec


@hookimpl
def qsgd_register_backends() -> list[BackendSpec]:
    """Every device that PennyLane finds by name, those of third-party plugins included."""
    return [
        BackendSpec(
            prefix="pennylane",
            kind="simulator",
            devices=("?*",),
            factory="qsgd_pennylane.backend:PennyLane",
            options="qsgd_pennylane.options:PennyLaneOptions",
            summary="Any installed PennyLane device that simulates on this machine. "
            "Options: the device's own.",
            examples=("pennylane:default.qubit", "pennylane:lightning.qubit"),
        )
    ]
