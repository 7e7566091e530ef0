"""Options that every command has, under the same names."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print JSON on stdout and everything else on stderr.")
]
Debug: TypeAlias = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error. Or set QSGD_DEBUG=1.")
]
"""Read by :func:`qsgd_core.cli.app.main` from the arguments, so that it holds while parsing."""
