"""Tasks by name and in scripts; a script that is wrong is the script's error, in one paragraph."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from qsgd_core.errors import ConfigError, UnknownNameError
from qsgd_core.settings import load_settings
from qsgd_core.training import TrainConfig, load_task, open_task, replay, resume, train

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parents[1] / "scripts" / "noisy_task.py"


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


FROM_FOLDER = """
import copy, os
from my_line import Line

class FromFolder(Line):
    name = "from-folder"
    folder = None

    def with_data(self, folder):
        made = copy.copy(self)
        made.folder = folder
        return made

    def identity(self):
        return {"size": int(os.environ.get("SIZE", "3"))}

    def build(self, seed):
        assert (self.folder / "numbers").read_text() == "1 2 3"
        return super().build(seed)

def make_task():
    return FromFolder()
"""
LINE = """
import torch
from qsgd_core import Built, Task, TaskDefaults

class Line(Task):
    metrics = ("loss",)
    defaults = TaskDefaults(epochs=2)

    def build(self, seed):
        return Built(torch.nn.Linear(2, 1), [torch.ones(1, 2)] * 3, lambda model: {"loss": 0.0})

    def loss(self, model, batch):
        return model(batch).sum()
"""


@pytest.fixture
def from_folder(tmp_path, monkeypatch):
    """A source whose task needs a folder, and that folder."""
    monkeypatch.setattr("qsgd_core.training.run.draw", lambda *_: None)
    (tmp_path / "my_line.py").write_text(LINE)
    (tmp_path / "folder_task.py").write_text(FROM_FOLDER)
    data = tmp_path / "data"
    data.mkdir()
    (data / "numbers").write_text("1 2 3")
    yield f"{tmp_path / 'folder_task.py'}:make_task", data
    sys.modules.pop("my_line", None)


def test_a_run_finds_the_folder_that_its_task_was_given(from_folder, tmp_path):
    source, data = from_folder
    task, found = open_task(source, data, load_settings())
    run = tmp_path / "run"
    train(task, TrainConfig(max_steps=2), source=found, data=data, run_dir=run)
    recorded = json.loads((run / "config.json").read_text())
    assert (recorded["data"], recorded["identity"]) == (str(data), {"size": 3})
    assert resume(str(run), asked={"max_steps": 4}).steps == 4
    again = replay(str(run), run_dir=tmp_path / "again")
    assert again.replayed["bit_identical"]
    assert json.loads((tmp_path / "again" / "config.json").read_text())["data"] == str(data)


def test_a_run_is_only_gone_on_with_by_a_task_of_the_same_identity(
    from_folder, tmp_path, monkeypatch
):
    source, data = from_folder
    task, found = open_task(source, data, load_settings())
    run = tmp_path / "run"
    train(task, TrainConfig(max_steps=2), source=found, data=data, run_dir=run)
    monkeypatch.setenv("SIZE", "4")
    for go_on in (resume, replay):
        with pytest.raises(ConfigError, match=r"another task 'from-folder': size 4 instead of 3"):
            go_on(str(run))


def test_a_folder_is_refused_by_a_task_that_takes_none_and_must_exist(from_folder, tmp_path):
    source, _ = from_folder
    with pytest.raises(ConfigError, match=r"'digits' brings its own data and takes no --data"):
        open_task("digits", tmp_path, load_settings())
    with pytest.raises(ConfigError, match=r"--data nowhere is no folder"):
        open_task(source, Path("nowhere"), load_settings())


def test_a_task_that_needs_nothing_has_nothing_to_say(from_folder):
    task, _ = load_task("digits", load_settings())
    assert (task.check(), task.identity()) == ((), {})
    assert task.as_recorded({}) is task
