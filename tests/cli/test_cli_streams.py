"""What a terminal cannot show, or nobody reads, changes no exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE_S

TASK = """
import torch
from torch import nn
from qsgd_core import Built, Task, TaskDefaults

class Toy(Task):
    name = "toy"
    metrics = ("loss",)
    defaults = TaskDefaults(epochs=1, lr=1e-2)

    def build(self, seed):
        print("größer λ ⟨Z⟩")
        x = torch.randn(16, 4)
        model = nn.Linear(4, 1)
        return Built(model, [x] * 2, lambda m: {"loss": float((m(x) ** 2).mean())})

    def loss(self, model, batch):
        print("λ")
        return (model(batch) ** 2).mean()

def make_task():
    return Toy()
"""
LINES = [
    ["train", "--help"],
    ["perturbations"],
    ["backends"],
    ["train", "τoy.py:make_task", "--dry-run"],
    ["train", "τoy.py:make_task", "--run-dir", "λ-run"],
    ["report", "λ-run"],
    ["no-such-λ"],
    ["report", "λ-run", "--json"],
]
ALL_OF_THEM = f"""
import sys
from qsgd_core.cli import main
print([main(line) for line in {LINES!r}], file=sys.stderr)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "τoy.py").write_text(TASK, encoding="utf-8")
    return tmp_path


def run(
    folder: Path, *line: str, shell: str | None = None, **extra: str
) -> subprocess.CompletedProcess[bytes]:
    """A process in ``folder`` with a home of its own; by a shell, its command is ``$0``."""
    own = {"QSGD_HOME": str(folder / "home"), "QSGD_RUNS": str(folder / "runs")}
    environment = {**os.environ, **own, "OMP_NUM_THREADS": "1", **extra}
    command = [sys.executable, *line]
    if shell is not None:
        command = ["bash", "-c", shell, *command]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, check=False, timeout=PATIENCE_S
    )


def test_characters_that_an_encoding_has_not_are_replaced_and_json_loses_none(script):
    done = run(script, "-c", ALL_OF_THEM, PYTHONIOENCODING="latin-1")
    text = done.stdout.decode("latin-1")
    assert done.stderr.decode("latin-1").splitlines()[-1] == "[0, 0, 0, 0, 0, 0, 2, 0]"
    assert (script / "λ-run" / "summary.json").is_file()
    assert "? = 0.5" in text
    assert "größer ? ?Z?" in text
    assert json.loads(text.splitlines()[-1])["run_dir"] == "λ-run"


def test_a_run_in_a_folder_whose_name_is_no_text_is_trained_and_reported(script):
    line = 'qsgd() { "$0" -m qsgd_core "$@"; }; name=$(printf "r\\xe9"); '
    line += 'qsgd train τoy.py:make_task --run-dir "$name" && qsgd report "$name" --json'
    done = run(script, shell=line, PYTHONIOENCODING="utf-8")
    assert done.returncode == 0, done.stderr
    last = done.stdout.decode(errors="surrogateescape").splitlines()[-1]
    assert json.loads(last)["run_dir"] == "r\udce9"


@pytest.mark.parametrize(
    ("line", "unbuffered"), [("train τoy.py:make_task --run-dir run", ""), ("backends", "1")]
)
def test_a_reader_that_leaves_is_no_error(script, line, unbuffered):
    shell = f'{{ "$0" -m qsgd_core {line}; echo $? >code; }} 2>err | true; cat code'
    done = run(script, shell=shell, PYTHONUNBUFFERED=unbuffered)
    assert done.stdout == b"0\n", (script / "err").read_text()
    assert "rror" not in (script / "err").read_text()


def test_closed_streams_lead_nowhere_and_into_no_file(script):
    shell = '"$0" -m qsgd_core train τoy.py:make_task --run-dir run <&- >&- 2>&-'
    assert run(script, shell=shell).returncode == 0
    assert {p.name for p in (script / "run").iterdir()} >= {"summary.json", "record.sqlite"}
    assert "λ".encode() not in (script / "run" / "record.sqlite").read_bytes()


def test_a_full_disk_under_stdout_is_an_error_but_for_a_run_that_is_kept(script):
    listing = run(script, shell='"$0" -m qsgd_core backends >/dev/full')
    assert listing.returncode == 1
    assert b"No space left on device" in listing.stderr
    shell = '"$0" -m qsgd_core train τoy.py:make_task --run-dir run >/dev/full'
    trained = run(script, shell=shell)
    assert trained.returncode == 0
    assert b"No space left on device" in trained.stderr
    both = run(script, shell='"$0" -m qsgd_core train τoy.py:make_task >/dev/full 2>/dev/full')
    assert both.returncode == 0
    planned = run(script, shell='"$0" -m qsgd_core train τoy.py:make_task --dry-run >/dev/full')
    assert planned.returncode == 1


def test_what_a_task_calls_its_metrics_is_shown_as_it_is(script):
    task = TASK.replace('{"loss":', '{"[/nope] [red]x": 1.0, "loss":')
    (script / "marked.py").write_text(task, encoding="utf-8")
    done = run(script, "-m", "qsgd_core", "train", "marked.py:make_task", "--run-dir", "[/b]run")
    assert done.returncode == 0, done.stderr
    assert b"[/nope] [red]x" in done.stdout
    assert b"[/b]run" in done.stdout
