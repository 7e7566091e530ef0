"""A comparison killed with SIGKILL or stopped with Ctrl-C, and asked for again."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lab_compare_toy as toy
import pytest
from patience import PATIENCE_S


def start(source: str, home: Path, *more: str) -> subprocess.Popen[bytes]:
    names = ["--arms", "adamw,sine@0.5", "--seeds", "2", "--json", *more]
    line = [sys.executable, "-m", "qsgd_core", "compare", source, *names, "--out", str(home)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QSGD_")}
    return subprocess.Popen(
        line,
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def result(source: str, home: Path, *more: str) -> dict[str, object]:
    process = start(source, home, *more)
    said, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors.decode()
    data = json.loads(said)
    del data["report"]
    for arm in data["arms"].values():
        del arm["wall_s"]
    return data


def until_a_run_has_finished_and_another_goes_on(home: Path, process) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        finished = list(home.glob("runs/*/summary.json"))
        if finished and len(list(home.glob("runs/*/witness.json"))) > len(finished):
            return
        time.sleep(0.01)
    pytest.fail(f"no run was under way: {process.communicate()[1].decode()}")


def processes_of(group: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve steps a run, each a twentieth of a second."""
    return toy.write(tmp_path_factory.mktemp("task"), slow_s=0.05)


@pytest.fixture(scope="module")
def whole(slow: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The result of a comparison that nobody disturbed."""
    return result(slow, tmp_path_factory.mktemp("whole") / "c", "--jobs", "2")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_killed_half_way_and_asked_again_the_result_is_the_same(slow, whole, tmp_path):
    home = tmp_path / "c"
    process = start(slow, home)
    until_a_run_has_finished_and_another_goes_on(home, process)
    process.kill()  # the parent alone: its workers must notice
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in home.glob("runs/*/summary.json")}
    assert 0 < len(before) < 4
    assert result(slow, home) == whole
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert processes_of(process.pid) == []


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_asked_again_the_result_is_the_same(slow, whole, tmp_path):
    home = tmp_path / "c"
    process = start(slow, home)
    until_a_run_has_finished_and_another_goes_on(home, process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, errors.decode()
    assert b"To go on, ask for the same again: qsgd compare" in errors
    assert b"Traceback" not in errors
    assert result(slow, home) == whole


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_ray_and_local_processes_give_identical_tables(slow, whole, tmp_path):
    assert result(slow, tmp_path / "ray", "--executor", "ray", "--threads", "1") == whole


def test_a_folder_of_files_named_like_modules_does_not_disturb_the_runs(tmp_path):
    """The processes of the runs are started from there, and import from where they always do."""
    project, here = tmp_path / "project", tmp_path / "here"
    project.mkdir()
    here.mkdir()
    for name in sys.stdlib_module_names:
        (here / f"{name}.py").write_text("raise SystemExit(f'{__file__} was imported')")
    line = [
        Path(sys.executable).with_name("qsgd"), "compare", toy.write(project), "--arms",
        "adamw,sine@0.5", "--seeds", "1", "--json", "--out", tmp_path / "c",
    ]  # fmt: skip
    done = subprocess.run(line, cwd=here, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["arms"].keys() == {"adamw", "sine@0.5"}
