"""Damaged distributions: named by doctor, and in nobody's way."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

GOOD = Path(__file__).parents[1] / "packages" / "good"
META = "Metadata-Version: 2.1\nName: {}\nVersion: 1.0\n"
LOOK = """
import importlib.metadata, json, sys
from qsgd_core.cli import main
import torch
from qsgd_core.plugins.registry import default_registry
print(main(["doctor"]), main(["plugins"]))
records = default_registry().plugins.records
print([[r.status, r.version] for r in records if r.name == "qsgd-good"])
"""


def dist(site: Path, folder: str, **files: str | bytes) -> Path:
    """A dist-info folder with these files, ``METADATA`` and ``entry_points``."""
    path = site / folder
    path.mkdir(parents=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (path / {"entry_points": "entry_points.txt"}.get(name, name)).write_bytes(data)
    return path


def look(site: Path, *more: Path) -> tuple[str, str]:
    """What is printed with ``site`` on the path: by doctor and plugins, and of qsgd-good."""
    paths = os.pathsep.join(map(str, [site, *more, GOOD]))
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        cwd=site,
        env={**os.environ, "PYTHONPATH": paths, "QSGD_HOME": str(site / "home")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    *said, codes, good = done.stdout.splitlines()
    return " ".join(" ".join(said).split()), f"{codes} {good}"


def good(site: Path, folder: str = "qsgd_good-1.0.dist-info", **files: str | bytes) -> Path:
    points = "[qsgd]\ngood = qsgd_good.plugin\n"
    return dist(
        site, folder, **{"METADATA": META.format("qsgd-good"), "entry_points": points, **files}
    )


def everything_at_once(site: Path) -> list[str]:
    """A folder of strangers, each damaged in its own way, beside a sound plugin."""
    good(site)
    good(site, "~sgd_good-1.0.dist-info")
    (site / "twice").mkdir()
    good(site / "twice")
    points = "[console_scripts]\n"
    dist(site, "nometa-1.0.dist-info", RECORD="")
    dist(site, "noname-1.0.dist-info", METADATA="Metadata-Version: 2.1\n")
    dist(site, "empty-1.0.dist-info", METADATA="", RECORD="")
    dist(site, "latin-1.0.dist-info", METADATA=META.format("lat").encode() + b"Author: \xe9\n")
    dist(
        site, "odd-1.0.dist-info", METADATA=META.format("odd"), entry_points=f"{points}no equals\n"
    )
    dist(site, "bytes-1.0.dist-info", METADATA=META.format("b"), entry_points=b"[x]\n\xe9 = a:b\n")
    dist(
        site,
        "gone-1.0.dist-info",
        METADATA=META.format("gone"),
        entry_points="[qsgd]\ng = no_such\n",
    )
    dist(site, "old.egg-info", entry_points="[qsgd]\nold = no_such_old.module\n")
    (site / "older-1.0.egg-info").write_text(META.format("older"))
    return ["nometa", "noname", "empty", "latin", "odd", "bytes", "~sgd_good"]


def test_each_damaged_distribution_is_named_and_no_other_is_affected(tmp_path):
    names = everything_at_once(tmp_path)
    said, good_is = look(tmp_path)
    assert good_is.endswith("[['loaded', '1.0']]")
    for name in names:
        assert f"{name}-1.0.dist-info" in said
    assert "Plugin gone failed: no_such could not be imported" in said
    assert "Plugin old failed" in said


def without_metadata(site: Path) -> None:
    (good(site) / "METADATA").unlink()


def without_equals(site: Path) -> None:
    good(site, entry_points="[qsgd]\ngood\n")


@pytest.mark.parametrize("value", ["", "no module at all"])
def test_an_entry_point_that_names_no_object_is_told_as_that(tmp_path, value):
    good(tmp_path, entry_points=f"[qsgd]\ngood = {value}\n")
    said, good_is = look(tmp_path)
    assert good_is.endswith("[['failed', '1.0']]")
    assert "which is no module:object" in said
    assert "NoneType" not in said


@pytest.mark.parametrize(
    ("damage", "becomes"),
    [(without_metadata, "[['loaded', '1.0']]"), (without_equals, "[['failed', '']]")],
)
def test_a_damaged_plugin_is_loaded_if_that_can_be_or_says_why_not(
    tmp_path, damage: Callable[[Path], None], becomes
):
    damage(tmp_path)
    said, good_is = look(tmp_path)
    assert good_is.endswith(becomes)
    assert "qsgd_good-1.0.dist-info" in said


def test_strangers_in_a_zip_are_in_nobodys_way_and_a_hidden_version_of_a_plugin_is_named(tmp_path):
    good(tmp_path)
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as zipped:
        zipped.writestr("plain-1.0.dist-info/METADATA", META.format("plain"))
        newer = META.format("qsgd-good").replace("1.0", "2.0")
        zipped.writestr("qsgd_good-2.0.dist-info/METADATA", newer)
    text, ended = look(tmp_path, tmp_path / "more.zip")
    assert ended == "0 0 [['loaded', '1.0']]"
    assert "version 1.0 of" in text
    assert "is used, and hides version" in text
    assert "plain" not in text
