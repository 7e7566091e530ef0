"""Tasks by name and in scripts; a script that is wrong is the script's error, in one paragraph."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qsgd_core.errors import ConfigError, UnknownNameError
from qsgd_core.settings import load_settings
from qsgd_core.training import TrainConfig, load_task, train

ROOT = Path(__file__).parents[1]
SCRIPT = Path(__file__).parent / "scripts" / "noisy_task.py"


@pytest.fixture(autouse=True)
def same_modules_and_path(monkeypatch):
    """A task script goes into sys.modules and sys.path, as a script does; take it out again."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and name.endswith("task"):
            del sys.modules[name]


def test_a_task_by_name_is_its_own_source():
    task, source = load_task("digits", load_settings())
    assert (task.name, source) == ("digits", "digits")


def test_a_script_is_found_again_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(SCRIPT.parent)
    task, source = load_task("noisy_task.py:make_task", load_settings())
    assert task.name == "noisy"
    assert source == f"{SCRIPT}:make_task"
    monkeypatch.chdir(tmp_path)
    assert load_task(source, load_settings())[0].name == "noisy"


def test_a_script_may_import_its_neighbours_and_be_called_like_an_installed_module(tmp_path):
    (tmp_path / "neighbour_of_a_task.py").write_text("NAME = 'from next door'")
    (tmp_path / "json.py").write_text(
        "import json\nassert hasattr(json, 'dumps')\n"
        "from neighbour_of_a_task import NAME\nfrom qsgd_core import Task\n"
        "class T(Task):\n    name = NAME\n    build = loss = None\nmake = T\n"
    )
    assert load_task(f"{tmp_path / 'json.py'}:make", load_settings())[0].name == "from next door"
    assert "dumps" in dir(sys.modules["json"])


def test_an_unknown_task_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"Unknown task 'digit'.*Did you mean 'digits'"):
        load_task("digit", load_settings())


@pytest.mark.parametrize(
    "source, message",
    [
        (f"{SCRIPT}", r"names a script but no function\. Add it: .*noisy_task\.py:make_task"),
        ("missing.py:make_task", r"no task script missing\.py"),
        (f"{SCRIPT}:make_tusk", "has no function 'make_tusk'"),
        (f"{SCRIPT}:not_callable", "has no function 'not_callable'"),
        (f"{SCRIPT}:make_nothing", r"make_nothing\(\) in .* returned None, not a qsgd_core\.Task"),
        (f"{SCRIPT}:make_nameless", "has no name"),
        (f"{SCRIPT}:make_trouble", r"raised ZeroDivisionError: on purpose \(.*, line \d+\)"),
        (f"{SCRIPT}:make_exit", "raised SystemExit: 0"),
    ],
)
def test_what_is_wrong_with_a_script_is_said_in_one_line(source, message):
    with pytest.raises(ConfigError, match=message) as raised:
        load_task(source, load_settings())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("def f(:\n", r"raised SyntaxError: .*line 1"),
        ("import no_such_module_here\n", r"No module named 'no_such_module_here'.*line 1"),
        ("\n\nraise ValueError('top')\n", r"raised ValueError: top \(.*line 3\)"),
    ],
)
def test_a_script_that_fails_on_import_is_quoted_with_its_line(tmp_path, text, message):
    (tmp_path / "bad_task.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_task(f"{tmp_path / 'bad_task.py'}:make_task", load_settings())


def test_the_example_learns_its_spirals(tmp_path):
    task, _ = load_task(f"{ROOT / 'examples' / 'my_task.py'}:make_task", load_settings())
    summary = train(task, TrainConfig(perturbation="circuit"), run_dir=tmp_path / "run")
    assert summary.accuracy > 0.9  # guessing gives 0.33; three seeds gave 0.96 to 0.99
