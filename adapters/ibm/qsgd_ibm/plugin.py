"""What this distribution registers. Imports no SDK: specs name their code by strings."""

from __future__ import annotations

from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import BackendSpec


@hookimpl
def qsgd_register_backends() -> list[BackendSpec]:
    """IBM's queued devices, and local simulators with the noise of recorded ones."""
    return [
        BackendSpec(
            prefix="ibm",
            kind="backend",
            factory="qsgd_ibm.backend:IBMBackend",
            patterns=("ibm_*",),
            devices=("least_busy", "ibm_*"),
            options="qsgd_ibm.options:IBMOptions",
            summary="IBM quantum computers of your account, through IBM's own client.",
            paid=True,
            examples=("ibm_fez", "ibm_kingston", "ibm:least_busy"),
        ),
        BackendSpec(
            prefix="fake",
            kind="simulator",
            factory="qsgd_ibm.fake.backend:FakeDevice",
            patterns=("fake_*",),
            options="qsgd_ibm.options:FakeOptions",
            summary="The recorded noise of an IBM device, simulated here; no account needed.",
            examples=("fake_brisbane", "fake_fez"),
        ),
    ]
