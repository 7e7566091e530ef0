"""``qsgd new``: a provider to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qsgd_core.cli.options import Debug, Json
from qsgd_core.cli.show.output import print_json
from qsgd_core.errors import ConfigError, QSGDError
from qsgd_core.template import KINDS, Kind, Names, render


def new(
    name: Annotated[str, typer.Argument(help="What users will type, e.g. my-device.")],
    kind: Annotated[
        str, typer.Option(metavar="|".join(KINDS), help="What it brings.")
    ] = "simulator",
    into: Annotated[
        Path, typer.Option(metavar="DIR", help="An existing folder; the new one is made in it.")
    ] = Path(),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a provider that works: a distribution with a plugin, tests and a README."""
    names = Names.of(name)
    written = render(name, _kind(kind))
    folder = into / names.name
    write(folder, written)
    if as_json:
        record = {"name": names.name, "kind": kind, "distribution": names.distribution}
        print_json({**record, "folder": str(folder), "files": list(written)})
        return
    typer.echo(f"{folder}: {len(written)} files. What to do next:")
    typer.echo(f"  cd {folder}")
    typer.echo("  pip install -e '.[test]'")
    typer.echo("  pytest")
    typer.echo(f"  qsgd conform {names.name}")


def write(folder: Path, files: dict[str, str]) -> None:
    """Make ``folder`` and write path -> text into it.

    Raises:
        ConfigError: it exists, or the folder it is to be made in does not.
        QSGDError: it could not be written.
    """
    if folder.exists() or folder.is_symlink():
        raise ConfigError(
            f"{folder} exists, and nothing is overwritten. Choose another name, or another folder "
            "with --into."
        )
    if not folder.parent.is_dir():
        raise ConfigError(f"There is no folder {folder.parent}. Make it: mkdir -p {folder.parent}")
    try:
        folder.mkdir()
        for path, text in files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise QSGDError(
            f"{folder} could not be written: {error}. Choose a folder that can be, with --into."
        ) from error


def _kind(asked: str) -> Kind:
    for kind in KINDS:
        if kind == asked:
            return kind
    raise ConfigError(f"--kind must be {', '.join(KINDS[:-1])} or {KINDS[-1]}, not {asked!r}.")
