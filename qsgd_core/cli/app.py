"""Which commands there are, and what an error looks like to the person who typed one.

The core's commands are plugins' equals: they are registered through the same hook, so that a
plugin that claims one of their names is refused. They are found without loading any plugin.
"""

from __future__ import annotations

import pkgutil
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import typer

from qsgd_core.builtin.plugin import qsgd_register_commands
from qsgd_core.cli.options import Debug
from qsgd_core.cli.streams import unfailing_streams
from qsgd_core.errors import ConfigError, PluginLoadError, QSGDError
from qsgd_core.isolate import blame
from qsgd_core.plugins.naming import choose_named
from qsgd_core.plugins.registry import Registry, default_registry
from qsgd_core.settings import load_settings

UNEXPECTED = 1
KEPT = ("train", "compare")
"""Commands whose result is in a folder: what they print is a copy, and can be had again."""
WRITE_NOTHING = ("--help", "--dry-run")
"""Options with which they write no folder."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments after the program's name; None for the process's own.

    Returns:
        0 if it worked, 2 for a mistake in what was asked, 130 after Ctrl-C, else 1.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with unfailing_streams() as streams:
        code = _run(arguments)
    if streams.trouble is None:
        return code
    with unfailing_streams():  # of a terminal that is gone, both are
        typer.echo(f"Error: what was printed could not be written: {streams.trouble}.", err=True)
    kept = _named(arguments) in KEPT and not any(option in arguments for option in WRITE_NOTHING)
    return code or (0 if kept else UNEXPECTED)


def _run(arguments: list[str]) -> int:
    """One command; its exit code."""
    try:
        make_app(arguments)(arguments, prog_name="qsgd", obj=tuple(arguments))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except Exception as error:  # noqa: BLE001 - the end of the line: everything becomes a message
        return _report(error, debug="--debug" in arguments or _debug_is_set())
    return 0


def make_app(arguments: Sequence[str]) -> typer.Typer:
    """The commands; those of plugins only if ``arguments`` name none of the core's.

    Only the command that is named is imported; for the rest, their summary will do.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
    app.callback()(_qsgd)
    own = {spec.name: spec for spec in qsgd_register_commands()}
    named = _named(arguments)
    for spec in own.values():
        command = pkgutil.resolve_name(spec.factory) if spec.name == named else _not_called
        _add(app, spec.name, spec.summary, command)
    if named not in own:
        _add_plugin_commands(app, named, set(own), default_registry())
    return app


def _named(arguments: Sequence[str]) -> str | None:
    """The command that is asked for."""
    return next((word for word in arguments if not word.startswith("-")), None)


def _qsgd(debug: Debug = False) -> None:
    """Train PyTorch models with perturbations measured on quantum computers."""


def _add_plugin_commands(
    app: typer.Typer, named: str | None, own: set[str], registry: Registry
) -> None:
    """The same for plugins' commands: one that cannot be imported, or is ambiguous, says so."""
    registered = [r for r in registry.commands() if r.spec.name not in own]
    for name in sorted({r.spec.name for r in registered}):
        if name != named:
            summary = next(r.spec.summary for r in registered if r.spec.name == name)
            _add(app, name, summary, _not_called)
    chosen = choose_named("command", named, registered, registry.settings.prefer) if named else None
    if chosen is not None:
        what = f"Command {named!r}: {chosen.spec.factory} of {chosen.distribution}"
        with blame(PluginLoadError, f"{what} cannot be imported"):
            command = pkgutil.resolve_name(chosen.spec.factory)
        _add(app, chosen.spec.name, chosen.spec.summary, command)
    elif named is not None:
        for failure in registry.plugins.failures:
            typer.echo(
                f"Plugin {failure.record.name} failed, in case {named!r} is its command: "
                f"{failure.error}",
                err=True,
            )


def _add(
    app: typer.Typer, name: str, summary: str, command: typer.Typer | Callable[..., Any]
) -> None:
    """One command, or a group of them."""
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name, help=summary)
    else:
        app.command(name, help=summary)(command)


def _not_called() -> None:
    """Stands in the list of commands for one that was not named."""


def _report(error: Exception, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if isinstance(error, QSGDError):
        typer.echo(f"Error: {error}", err=True)
        return error.exit_code
    hint = "" if debug else " Run it again with --debug to see where."
    typer.echo(f"Error: {type(error).__name__}: {error}.{hint}", err=True)
    return UNEXPECTED


def _debug_is_set() -> bool:
    try:
        return load_settings().debug
    except ConfigError:
        return False
