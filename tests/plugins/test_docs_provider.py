"""docs/writing-a-provider.md: its commands run as written, and its snippets are the real files'."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from kit import standard_tests
from patience import PATIENCE_S

from qsgd_core import testing

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "writing-a-provider.md").read_text()
BLOCK = re.compile(r"^( *)```(\w+)(?: (\S+))?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(kind, title, textwrap.dedent(text)) for _, kind, title, text in BLOCK.findall(PAGE)]
COMMANDS = [
    line.removeprefix("$ ")
    for kind, _, text in BLOCKS
    if kind == "console"
    for line in text.splitlines()
]
SNIPPETS = [(title, text) for kind, title, text in BLOCKS if kind != "console" and "/" in title]
EXAMPLES = [text for _, title, text in BLOCKS if title == "example"]


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """Every command of the page, in order, in an empty folder; pip installs into a folder there."""
    folder = tmp_path_factory.mktemp("reader")
    site = folder / "site"
    env = {"PYTHONPATH": f"{site}:{ROOT}", "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    programs = {
        "qsgd": [sys.executable, "-m", "qsgd_core"],
        "pytest": [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        "pip": [sys.executable, "-m", "pip", "--disable-pip-version-check"],
    }
    offline = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site)]
    done = {}
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if program == "pip":
            assert arguments[:2] == ["install", "-e"]
            arguments = ["install", *offline, f"./{arguments[2]}"]
        done[command] = subprocess.run(
            [*programs[program], *arguments],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    return folder, done


def test_every_command_of_the_page_works(session):
    _, done = session
    failed = {c: (d.stdout + d.stderr)[-2000:] for c, d in done.items() if d.returncode}
    assert failed == {}
    assert "0 failed" in done["qsgd conform my-device"].stdout


@pytest.mark.parametrize("name", ["my-device", "my-queue", "my-wave"])
def test_a_new_provider_passes_its_own_tests_as_soon_as_it_is_installed(session, name):
    _, done = session
    said = done[f"pytest {name}"].stdout
    assert int(re.search(r"(\d+) passed", said)[1]) > 35
    assert "SKIPPED" in said  # each is listed with its reason
    assert "Warning" not in said


@pytest.mark.parametrize("title, text", SNIPPETS, ids=[title for title, _ in SNIPPETS])
def test_a_snippet_is_part_of_the_file_it_names(session, title, text):
    folder, _ = session
    file = (folder / title).read_text()
    assert any(textwrap.indent(text, " " * indent) in file for indent in range(0, 20, 4))


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_is_a_suite_that_the_kit_accepts(text):
    space = {**{name: getattr(testing, name) for name in testing.__all__}, "pytest": pytest}
    exec(textwrap.dedent(text), space)
    suites = [value for name, value in space.items() if name.startswith("Test")]
    assert len(suites) == 1
    assert standard_tests(suites[0])


def test_the_fixtures_of_the_page_exist():
    (line,) = [text for _, title, text in BLOCKS if title == "conftest.py"]
    space = {}
    exec(line, space)
    module = __import__(space["pytest_plugins"][0], fromlist=["x"])
    for name in ("clean_plugins", "no_network"):
        assert name in PAGE
        assert hasattr(module, name)


def test_every_suite_is_on_the_page_with_its_fixture():
    for name in testing.__all__:
        suite = getattr(testing, name)
        fixture = re.search(rf"`{name}` \| `(\w+)`", PAGE)[1]
        assert fixture in suite.GIVEN


def test_the_page_has_the_snippets_that_are_looked_at():
    assert len(SNIPPETS) >= 12
    assert len(EXAMPLES) == 2
    assert len(COMMANDS) == 10
