"""Our own second processes: what they import does not depend on where one stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE_S

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.schedule.audit.asking import ask_service
from qsgd_core.schedule.child import command
from qsgd_core.schedule.forecast.survey import survey
from qsgd_core.schedule.trainer.process import look_once

WORK = Workload((CircuitBatch(ansatz(2, 1), np.array([[0.2, 0.4]])),))
TRAP = "raise SystemExit(f'{__file__} was imported')"


@pytest.fixture
def trap(tmp_path, monkeypatch) -> Path:
    """The current folder holds a file for every name that a child could take from elsewhere."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in (*sys.stdlib_module_names, "numpy", "sqlalchemy", "pydantic", "pluggy"):
        (folder / f"{name}.py").write_text(TRAP)
    monkeypatch.chdir(folder)
    return folder


def says(module: str, **more) -> str:
    done = subprocess.run(
        command(module), capture_output=True, text=True, timeout=PATIENCE_S, **more
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def module(folder: Path, name: str, text: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return name


def test_a_survey_is_taken_in_a_folder_of_files_named_like_modules(filebox, trap, tmp_path):
    options = {"folder": str(tmp_path / "vendor")}
    assert survey("filebox:x", options, WORK, shots=8, tiles=1, listed=None).problem is None


def test_an_audit_is_made_in_a_folder_of_files_named_like_modules(filebox, trap, tmp_path):
    options, log = {"folder": str(tmp_path / "vendor")}, tmp_path / "audit.log"
    said = ask_service("filebox:x", options, since=0.0, tags=["t"], known=[], log=log)
    assert said.jobs == ()


def test_a_courier_serves_in_a_folder_of_files_named_like_modules(paid, trap):
    arguments, ledger = paid
    ledger.create_budget("b", {"micro_usd": 10_000})
    ledger.open_run("r", backend="filebox:x", options=arguments["backend_options"])
    job = ledger.add_intent(
        WORK, tag="t", run="r", budget="b", backend="filebox:x", step=0, part=0, attempt=0,
        options=arguments["backend_options"], shots=8, seed=1,
    )  # fmt: skip
    assert job.state == "intent"
    look_once(ledger.url, "r")
    assert ledger.run("r").error is None
    assert ledger.run("r").pinned is not None


def test_a_file_beside_the_script_does_not_take_the_place_of_a_module(tmp_path, monkeypatch):
    """What this process imported before the folder was put on its path is what the child gets."""
    module(tmp_path / "project", "secrets", TRAP)
    module(tmp_path / "project", "mine", "import secrets; print(secrets.token_bytes is not None)")
    monkeypatch.syspath_prepend(tmp_path / "project")
    assert says("mine") == "True"


@pytest.mark.parametrize("how", ["folder", "relative", "zip", "PYTHONPATH"])
def test_a_child_finds_what_its_parent_finds(tmp_path, monkeypatch, how):
    text = "import sys; print(__name__, len(sys.argv))"
    there = tmp_path / "there"
    module(there, "mine", text)
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    if how == "PYTHONPATH":
        environment["PYTHONPATH"] = str(there)
    elif how == "zip":
        with zipfile.ZipFile(tmp_path / "there.zip", "w") as archive:
            archive.writestr("mine.py", text)
        monkeypatch.syspath_prepend(tmp_path / "there.zip")
    else:
        monkeypatch.syspath_prepend("there" if how == "relative" else there)
    assert says("mine", cwd="/", env=environment) == "__main__ 1"


def test_pythonpath_comes_first_as_the_user_wants_it(tmp_path, monkeypatch):
    module(tmp_path / "old", "mine", "print('old')")
    module(tmp_path / "new", "mine", "print('new')")
    monkeypatch.syspath_prepend(tmp_path / "old")
    new = str(tmp_path / "new")
    assert says("mine", env=dict(os.environ) | {"PYTHONPATH": new}) == "new"


def test_what_a_child_starts_is_as_python_always_is(tmp_path, monkeypatch):
    inner = "[sys.executable, '-c', 'import sys; print(repr(sys.path[0]))']"
    module(tmp_path, "mine", f"import subprocess, sys; subprocess.run({inner})")
    monkeypatch.syspath_prepend(tmp_path)
    assert says("mine") == "''"


def test_a_process_that_ignores_the_environment_has_a_child_that_does(tmp_path):
    module(tmp_path, "mine", TRAP)
    script = (
        f"import json, sys; sys.path.append({str(Path(__file__).parents[2])!r})\n"
        "from qsgd_core.schedule.child import command; print(json.dumps(command('json.tool')))"
    )
    isolated = [sys.executable, "-I", "-c", script]
    said = subprocess.run(isolated, capture_output=True, text=True, check=True).stdout
    assert "-I" in json.loads(said)


def test_the_current_folder_may_have_been_removed(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.syspath_prepend("")
    assert command("json.tool")[-1] in sys.path
