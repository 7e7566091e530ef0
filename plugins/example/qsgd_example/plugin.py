"""The plugin: which names there are. Imports qsgd_core's hooks and specs, and nothing else."""

from __future__ import annotations

from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import BackendSpec


@hookimpl
def qsgd_register_backends() -> list[BackendSpec]:
    """``example``."""
    return [
        BackendSpec(
            prefix="example",
            kind="simulator",
            names=("example",),
            factory="qsgd_example.simulator:ExampleSimulator",
            summary="Runs circuits in this process: exact values or seeded shots.",
        )
    ]
