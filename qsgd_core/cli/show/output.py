"""Printing: JSON, tables, and a stdout that nobody else writes to."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any

import typer

from qsgd_core.files import plain

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 10_000
"""Columns that no table fills: what a line may have where there is no terminal."""


def print_json(data: Any) -> None:
    """One line of JSON on stdout; NaN and infinities, which JSON does not have, become null.

    In ASCII, so that it means the same whatever the encoding of stdout is.
    """
    typer.echo(json.dumps(plain(data), allow_nan=False))


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, file: IO[str] | None = None
) -> None:
    """A table, as wide as the terminal; where stdout is a file or a pipe nothing wraps.

    Args:
        columns: their heads.
        rows: a cell for each column.
        file: where it goes, laid out as on stdout; None: to stdout.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets are not markup
    console = Console(soft_wrap=False)
    if not console.is_terminal and not shutil.get_terminal_size((0, 0)).columns:
        console.width = WIDE
    if file is not None:
        console = Console(file=file, width=console.width)
    console.print(table)


def print_pairs(rows: Sequence[tuple[str, str]], console: Console) -> None:
    """Names and what they are, a line each; what does not fit is folded.

    Args:
        rows: name and value. Both are shown as they are: a task's author may have named them.
        console: where they go.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    console.print(table)


@contextlib.contextmanager
def quiet_stdout(quiet: bool) -> Iterator[None]:
    """While entered, what tasks and plugins print goes to stderr, so that JSON stays alone."""
    if not quiet:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield
