"""The plugin contract is what its documentation says."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import FunctionType

import pluggy
import pytest

from qsgd_core import specs
from qsgd_core.hookspecs import HOOK_API, PROJECT, PerturbationProvider, hookimpl
from qsgd_core.plugins.checks import HOOKS

ARGUMENTS = {
    "qsgd_register_backends": ["self", "settings"],
    "qsgd_register_perturbations": ["self", "settings"],
    "qsgd_register_policies": ["self", "settings"],
    "qsgd_register_observers": ["self", "settings"],
    "qsgd_register_tasks": ["self", "settings"],
    "qsgd_register_commands": ["self", "settings"],
    "qsgd_register_reports": ["self", "settings"],
}
"""The contract of HOOK_API 1. To add an argument is compatible; to rename or drop one is not."""

FUNCTIONS = {
    name: value
    for name, value in vars(PerturbationProvider).items()
    if isinstance(value, FunctionType)
}
DOCS = Path(__file__).parents[2] / "docs" / "architecture.md"


def test_the_hooks_of_api_1_have_exactly_these_names_and_arguments():
    assert HOOK_API == 1
    found = {name: list(inspect.signature(f).parameters) for name, f in FUNCTIONS.items()}
    assert found == ARGUMENTS


def test_every_hook_is_marked_called_and_given_a_spec_class():
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(PerturbationProvider)
    assert all(getattr(manager.hook, name).has_spec() for name in FUNCTIONS)
    assert list(HOOKS) == list(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_docstring_of_a_hook_says_what_it_registers_and_when_it_is_called(name):
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    assert text.splitlines()[0].endswith(".")
    assert "Called once per process" in text


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_annotation_of_a_hook_names_the_spec_that_is_checked(name):
    assert FUNCTIONS[name].__annotations__ == {
        "settings": "Settings",
        "return": f"Iterable[{HOOKS[name].__name__}]",
    }
    assert getattr(specs, HOOKS[name].__name__) is HOOKS[name]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_architecture_document_names_every_hook(name):
    assert f"`{name}" in DOCS.read_text(encoding="utf-8"), f"write `{name}` into {DOCS.name}"


def test_the_architecture_document_states_the_version_of_the_contract():
    text = DOCS.read_text(encoding="utf-8")
    assert f"HOOK_API = {HOOK_API}" in text
    assert f"`{PROJECT}`" in text


def test_a_provider_may_leave_out_the_arguments_it_does_not_need():
    class Provider:
        @hookimpl
        def qsgd_register_tasks(self):
            return [specs.TaskSpec(name="mine", factory="m:F")]

    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(PerturbationProvider)
    manager.register(Provider())
    assert manager.hook.qsgd_register_tasks(settings=None) == [
        [specs.TaskSpec(name="mine", factory="m:F")]
    ]
