"""Folders of new runs: no two runs have the same, and what a name is has no say in it."""

from __future__ import annotations

import errno
import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from qsgd_core.errors import ConfigError
from qsgd_core.files import named_after
from qsgd_core.training.folder.folder import RunFolder, begin, new_folder

NOW = datetime(2026, 1, 31, 17, 45, 1)


def fresh(runs: Path, task: str = "digits"):
    return new_folder(None, runs=runs, task=task, seed=3, now=NOW)


def test_runs_of_one_second_each_have_a_folder_of_their_own(tmp_path):
    def name(_: int) -> str:
        with fresh(tmp_path / "runs") as folder:
            begin(folder)
            folder.config.write_text("{}")
            folder.unlock()
            return folder.path.name

    with ThreadPoolExecutor(16) as pool:
        names = list(pool.map(name, range(64)))
    first = "20260131-174501-digits-seed3"
    assert set(names) == {first, *(f"{first}-{n}" for n in range(2, 65))}


def test_a_run_that_fails_before_it_wrote_anything_leaves_no_folder(tmp_path):
    reserved = fresh(tmp_path / "runs")
    assert reserved.__enter__().path.is_dir()
    failed = RuntimeError("no such corpus")
    assert not reserved.__exit__(type(failed), failed, None)
    assert not list(tmp_path.iterdir())


def test_a_tasks_long_name_still_gives_a_folder(tmp_path):
    with fresh(tmp_path, "λ" * 10 + "x" * 400) as folder:
        begin(folder)
        folder.unlock()
    assert folder.path.is_dir()


def test_of_two_runs_in_a_named_folder_the_second_is_refused_even_after_the_first(tmp_path):
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    begin(first)
    with pytest.raises(ConfigError, match="Another process is training"):
        begin(second)
    first.config.write_text("{}")
    first.unlock()
    with pytest.raises(ConfigError, match="not empty"):
        begin(second)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_folder_that_cannot_be_locked_is_refused_in_words(tmp_path, monkeypatch, code):
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    for take in (begin, RunFolder.lock):
        with pytest.raises(ConfigError, match=r"knows no locks.*--run-dir, or set QSGD_RUNS"):
            take(RunFolder(tmp_path))


@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_folder_whose_file_system_has_no_flock_at_all_is_locked_by_its_file(
    tmp_path, monkeypatch
):
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    first = RunFolder(tmp_path)
    first.lock()
    with pytest.raises(ConfigError, match="Another process is training"):
        RunFolder(tmp_path).lock()
    first.unlock()
    second = RunFolder(tmp_path)
    second.lock()
    second.unlock()


@pytest.mark.parametrize("run", ["r" * 253, "λ" * 140, "a/../b", "..", ".hidden", "", "a\0b"])
def test_a_file_can_be_named_after_any_run(tmp_path, run):
    path = tmp_path / named_after(run, ".log")
    path.write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert len(os.fsencode(path.name)) < 240
    assert named_after(run + "x", ".log") != path.name


def test_an_ordinary_run_gives_its_file_its_own_name():
    assert named_after("20260131-174501-digits-seed3-ab12cd", ".log") == (
        "20260131-174501-digits-seed3-ab12cd.log"
    )
