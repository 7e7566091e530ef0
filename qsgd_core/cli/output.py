"""Printing: JSON, tables, and a stdout that nobody else writes to."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from qsgd_core.files import plain


def print_json(data: Any) -> None:
    """One line of JSON on stdout; NaN and infinities, which JSON does not have, become null."""
    typer.echo(json.dumps(plain(data), ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout, as wide as the terminal; the last column wraps first."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets are not markup
    Console(soft_wrap=False).print(table)


@contextlib.contextmanager
def quiet_stdout(quiet: bool) -> Iterator[None]:
    """While entered, what tasks and plugins print goes to stderr, so that JSON stays alone."""
    if not quiet:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield
