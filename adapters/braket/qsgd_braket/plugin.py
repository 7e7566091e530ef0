"""The provider: names of Braket's simulators and devices. Light; no SDK is imported here."""

from __future__ import annotations

from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import BackendSpec


@hookimpl
def qsgd_register_backends() -> list[BackendSpec]:
    """Two local simulators by their whole names, and every AWS device by prefix or ARN.

    A whole name goes before a glob, so ``braket:local`` is never taken for a device.
    """
    return [
        BackendSpec(
            prefix="braket",
            kind="simulator",
            factory="qsgd_braket.local.backend:BraketLocal",
            names=("braket:local",),
            summary="Braket's local state vector, with or without shots, seeded.",
        ),
        BackendSpec(
            prefix="braket",
            kind="simulator",
            factory="qsgd_braket.local.backend:BraketLocal",
            names=("braket:dm",),
            options="qsgd_braket.options:DensityMatrixOptions",
            summary="Braket's local density matrix. Option: noise_model.",
        ),
        BackendSpec(
            prefix="braket",
            kind="backend",
            factory="qsgd_braket.cloud.backend:BraketDevice",
            patterns=("arn:aws:braket:*",),
            devices=("*",),
            options="qsgd_braket.options:DeviceOptions",
            summary="QPUs and on-demand simulators of Amazon Braket, one task for a refresh.",
            paid=True,
            examples=("braket:sv1", "braket:garnet", "braket:forte-1"),
        ),
    ]
