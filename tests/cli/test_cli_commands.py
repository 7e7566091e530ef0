"""Commands: the core's own, and those of plugins, which cost nothing until they are named."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Annotated

import pytest
import typer

from qsgd_core.cli import app, main
from qsgd_core.hookspecs import hookimpl
from qsgd_core.plugins.loading import load_plugins
from qsgd_core.plugins.registry import Registry
from qsgd_core.settings import load_settings
from qsgd_core.specs import CommandSpec

CORE = {"train", "estimate", "report", "backends", "perturbations", "plugins", "doctor"}
CORE |= {"conform", "new"}


def provider(*specs: CommandSpec):
    class Commands:
        @hookimpl
        def qsgd_register_commands(self):
            return list(specs)

    return Commands()


@pytest.fixture
def plug_in(monkeypatch):
    """Make a registry with these providers the CLI's."""

    def install(**providers: object) -> Registry:
        settings = load_settings(load_plugins=())
        extra = [(f"qsgd-{name}", "1.0", plugin) for name, plugin in providers.items()]
        registry = Registry(settings, load_plugins(settings, extra=extra))
        monkeypatch.setattr(app, "default_registry", lambda: registry)
        return registry

    return install


@pytest.fixture
def lab(monkeypatch):
    """A module with a command, as a plugin would bring it."""
    module = ModuleType("qsgd_test_lab")

    def compare(runs: int, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
        typer.echo(f"{runs} runs{'!' if loud else ''}")

    module.compare = compare
    monkeypatch.setitem(sys.modules, "qsgd_test_lab", module)
    return provider(CommandSpec("compare", "qsgd_test_lab:compare", "Compare optimizers."))


def test_help_lists_every_command_with_its_summary(capsys, plug_in, lab):
    plug_in(lab=lab)
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in CORE)
    assert "Compare optimizers." in text


def test_a_plugins_command_takes_its_own_arguments(capsys, plug_in, lab):
    plug_in(lab=lab)
    assert main(["compare", "3", "--loud"]) == 0
    assert capsys.readouterr().out == "3 runs!\n"
    assert main(["compare", "three"]) == 2


def test_help_and_other_commands_do_not_import_a_plugins_command(capsys, plug_in):
    plug_in(slow=provider(CommandSpec("slow", "qsgd_module_that_is_not_there:slow", "Slow.")))
    assert main(["--help"]) == 0
    assert main(["plugins"]) == 0
    assert main(["slow"]) == 2
    assert "Command 'slow': qsgd_module_that_is_not_there:slow of qsgd-slow" in (
        capsys.readouterr().err
    )


def test_a_core_command_does_not_even_load_plugins(monkeypatch):
    monkeypatch.setattr(app, "default_registry", lambda: pytest.fail("loaded"))
    names = {c.name for c in app.make_app(["train", "--help"]).registered_commands}
    assert names == CORE | {"budget", "jobs"}  # groups, which are not imported either


def test_a_plugin_that_claims_a_core_command_is_refused_and_the_core_keeps_it(capsys, plug_in):
    registry = plug_in(thief=provider(CommandSpec("train", "qsgd_test_lab:steal", "Mine.")))
    record = {r.name: r for r in registry.plugins.records}["qsgd-thief"]
    assert record.status == "failed"
    assert "'train' belongs to qsgd-core" in record.error
    assert main(["--help"]) == 0
    assert "Mine." not in capsys.readouterr().out


def test_two_plugins_with_one_command_are_told_apart_by_name_only(capsys, plug_in, lab):
    plug_in(lab=lab, lab2=provider(CommandSpec("compare", "elsewhere:f", "Other.")))
    assert main(["compare", "3"]) == 2
    assert "'compare' is registered by" in capsys.readouterr().err


def test_an_unknown_command_points_to_plugins_that_failed(capsys, plug_in):
    plug_in(thief=provider(CommandSpec("train", "x:y")))
    assert main(["frobnicate"]) == 2
    said = capsys.readouterr().err
    assert "No such command 'frobnicate'" in said
    assert "qsgd-thief failed" in said


def test_no_arguments_print_the_help(capsys, plug_in):
    plug_in()
    main([])
    said = capsys.readouterr()
    assert "Usage: qsgd" in said.out + said.err


def test_ctrl_c_before_training_is_exit_code_130(monkeypatch, capsys):
    def press(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("qsgd_core.cli.commands.listing.default_registry", press)
    assert main(["plugins"]) == 130
    assert "Traceback" not in capsys.readouterr().err
