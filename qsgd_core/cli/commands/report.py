"""``qsgd report FOLDER``: what a run measured, what that cost, and whether it was worth it.

Runs are the core's own. Other folders, and pages of either, are somebody's who registers reports
(:class:`~qsgd_core.specs.ReportSpec`); comparisons and all pages come with qsgd-lab.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qsgd_core.cli.options import Debug, Json
from qsgd_core.cli.show.output import print_json
from qsgd_core.errors import ConfigError
from qsgd_core.specs import ReportSpec

if TYPE_CHECKING:
    from qsgd_core.plugins.registry import Registry

RUN, COMPARISON = "run", "comparison"
PAGES = {"html": "report.html", "markdown": "report.md"}
"""Form -> name of its file, in the folder that it is about."""


def report(
    folder: Annotated[
        str,
        typer.Argument(metavar="FOLDER", help="A run or a comparison: its folder, or its name."),
    ],
    html: Annotated[
        bool,
        typer.Option("--html", help="Write one self-contained page: report.html in the folder."),
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Write the same as text: report.md in the folder.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the page to this file instead."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a run or a comparison came to: what was measured, what that cost, what it shows.

    Changes nothing but the pages that are asked for.
    """
    from qsgd_core.plugins.registry import default_registry
    from qsgd_core.settings import load_settings

    settings = load_settings()
    registry = default_registry(settings)
    forms = [form for form, asked in (("html", html), ("markdown", markdown)) if asked]
    _check_out(out, forms)
    kind, path = _find(folder, settings.runs, registry)
    written = [
        write_page(registry.make_report(kind, path, form), path, form, out) for form in forms
    ]
    if as_json or not forms:
        _print(kind, path, registry, as_json=as_json)
    for page in written:
        typer.echo(page, err=as_json)


def _check_out(out: Path | None, forms: list[str]) -> None:
    """Raise ConfigError unless ``--out`` names the file of exactly one page, in a folder."""
    if out is None:
        return
    if len(forms) != 1:
        has = " and ".join(f"--{form}" for form in forms) or "no page"
        raise ConfigError(
            f"--out {out} is the file of one page, and {has} was asked for. Give --html or "
            "--markdown, one of them, with --out."
        )
    if out.is_dir() or not out.absolute().parent.is_dir():
        what = "is a folder" if out.is_dir() else "is in no folder that exists"
        raise ConfigError(f"--out {out} {what}. Name a file, such as {PAGES[forms[0]]}.")


def _find(name: str, runs: Path, registry: Registry) -> tuple[str, Path]:
    """Kind and path of the folder that is meant.

    Raises:
        ConfigError: there is no such run, and no such folder of a registered kind.
    """
    from qsgd_core.plugins.hints import unserved
    from qsgd_core.training.folder.folder import find_run

    kinds = registry.reports()
    for path in (Path(name), runs / name):
        if (path / "config.json").is_file():
            return RUN, path
        for kind in kinds:
            if (path / kind.spec.marker).is_file():
                return kind.spec.name, path
    try:
        return RUN, find_run(name, runs).path
    except ConfigError as error:
        there = Path(name).is_dir() or (runs / name).is_dir()
        if not there or any(kind.spec.name == COMPARISON for kind in kinds):
            raise
        missing = unserved(ReportSpec, COMPARISON, (), registry.plugins)
        raise ConfigError(f"{error} If the folder is a comparison's: {missing}") from missing


def write_page(text: str, folder: Path, form: str, out: Path | None = None) -> Path:
    """Write the page of a folder, as one of :data:`PAGES` in it or as ``out``; its path."""
    from qsgd_core import files

    page = folder / PAGES[form] if out is None else out
    files.write_atomically(page, lambda file: file.write(text.encode()))
    return page


def _print(kind: str, path: Path, registry: Registry, *, as_json: bool) -> None:
    """The report on stdout, as JSON or for people."""
    if kind != RUN:
        typer.echo(registry.make_report(kind, path, "json" if as_json else "text").rstrip("\n"))
        return
    from rich.console import Console

    from qsgd_core.cli.commands.budget import open_ledger
    from qsgd_core.cli.show.report import print_report
    from qsgd_core.training.folder.folder import RunFolder
    from qsgd_core.training.folder.report import report as gather

    found = gather(RunFolder(path), open_ledger)
    if as_json:
        print_json(found.to_dict())
    else:
        print_report(found, Console())
