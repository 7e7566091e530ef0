"""``qsgd new``: what it writes equals plugins/example and overwrites nothing.

test_docs_provider.py installs one of each kind and runs its tests.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qsgd_core.cli import main
from qsgd_core.errors import ConfigError
from qsgd_core.template import KINDS, TAKEN, Names, render

ROOT = Path(__file__).parents[2]


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_example_is_exactly_what_the_command_writes(tmp_path):
    assert main(["new", "example", "--into", str(tmp_path)]) == 0
    written = contents(tmp_path / "example")
    assert written == render("example", "simulator")
    assert contents(ROOT / "plugins" / "example") == written


def test_what_is_written_is_said_as_json_or_as_the_next_steps(tmp_path, capsys):
    asked = ["new", "My.Device", "--kind", "backend", "--into", str(tmp_path)]
    assert main([*asked, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {k: record[k] for k in ("name", "kind", "distribution", "folder")} == {
        "name": "my-device",
        "kind": "backend",
        "distribution": "qsgd-my-device",
        "folder": str(tmp_path / "my-device"),
    }
    assert set(record["files"]) == set(contents(tmp_path / "my-device"))
    assert main(["new", "other", "--into", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"cd {tmp_path / 'other'}" in said
    assert "qsgd conform other" in said


@pytest.mark.parametrize("existing", ["folder", "file", "link"])
def test_nothing_is_overwritten(tmp_path, capsys, existing):
    target = tmp_path / "mine"
    if existing == "folder":
        target.mkdir()
        (target / "README.md").write_text("precious")
    elif existing == "file":
        target.write_text("precious")
    else:
        target.symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    assert main(["new", "mine", "--into", str(tmp_path)]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_does_not_exist_is_refused_with_the_command_that_makes_it(tmp_path, capsys):
    assert main(["new", "mine", "--into", str(tmp_path / "deep")]) == 2
    assert f"mkdir -p {tmp_path / 'deep'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["", "-x", "x-", "my device", "../up", "a/b", "9lives", "ünicode", "x\n", "*", "qsgd-"]
)
def test_a_name_that_no_distribution_can_have_is_refused(tmp_path, capsys, name):
    assert main(["new", "--into", str(tmp_path), "--", name]) == 2
    assert "my-" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*sorted(TAKEN), "qsgd-aer", "Exact", "QSGD_IBM"])
def test_a_name_of_the_projects_own_is_refused(name):
    with pytest.raises(ConfigError, match="belongs to QSGD itself"):
        Names.of(name)


def test_every_spelling_of_a_name_follows_from_one():
    expected = Names("my-dev-2", "qsgd-my-dev-2", "qsgd_my_dev_2", "my_dev_2", "MyDev2")
    for asked in ("my-dev-2", "My_Dev.2", "qsgd-my-dev-2", "my--dev__2"):
        assert Names.of(asked) == expected


def test_an_unknown_kind_is_refused(tmp_path, capsys):
    assert main(["new", "mine", "--kind", "widget", "--into", str(tmp_path)]) == 2
    assert "simulator, backend or perturbation, not 'widget'" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_no_placeholder_is_left_and_every_module_compiles(kind):
    for path, text in render("my-device", kind).items():
        assert "$" not in path + text
        assert "tmpl" not in path
        if path.endswith(".py"):
            compile(text, path, "exec")
