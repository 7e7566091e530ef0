"""What the test double registers."""

from __future__ import annotations

from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import BackendSpec


@hookimpl
def qsgd_register_backends() -> list[BackendSpec]:
    return [
        BackendSpec(
            prefix="filebox",
            kind="backend",
            factory="qsgd_filebox.backend:Filebox",
            devices=("*",),
            options="qsgd_filebox.options:FileboxOptions",
            summary="Test double: jobs are files in a folder.",
            paid=True,
            examples=("filebox:x",),
        )
    ]
