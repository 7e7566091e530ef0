"""``qsgd compare`` on the command line, where something is wrong: what is refused, what goes on."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qsgd_core.cli.app import main
from qsgd_lab.compare.runs import describe

SCRIPT = '''
import os, sys
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from qsgd_core import Built, Task, TaskDefaults


def arm():
    """The arm of the run that is going on: a local of qsgd_lab.compare.runs.run_one."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "run_one":
            return frame.f_locals["arm"]
        frame = frame.f_back


def fail():
    ways = FAILS
    match ways.get(arm()):
        case "raises":
            raise ValueError("no such layer")
        case "python":
            bytearray(2**62)
        case "torch":
            torch.empty(2**60, dtype=torch.uint8)
        case "gpu":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        case "killed":
            os.kill(os.getpid(), 9)  # all that the kernel's OOM killer does to a process
        case "stops":
            sys.exit("giving up")


class Small(Task):
    name = "small"
    metrics = ("loss",)
    defaults = TaskDefaults(epochs=2, lr=3e-2)

    def build(self, seed):
        x = torch.randn(16, 4)
        model = nn.Linear(4, 1)

        def evaluate(model):
            return {"loss": float((model(x) - x[:, :1]).square().mean())}

        return Built(model, DataLoader(TensorDataset(x), batch_size=8), evaluate)

    def loss(self, model, batch):
        fail()
        return (model(batch[0]) - batch[0][:, :1]).square().mean()


def make_task():
    return Small()


def broken_task():
    raise RuntimeError("the corpus is not here")


def no_task():
    return 7
'''

Compare = Callable[..., tuple[int, str, str]]


@pytest.fixture
def compare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Compare:
    """Runs the command on the script: exit code, stdout, stderr."""
    monkeypatch.setenv("QSGD_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("qsgd_core.training.run.draw", lambda path, rows, summary: None)

    def run(
        *line: str, fails: dict[str, str] | None = None, function: str = "make_task"
    ) -> tuple[int, str, str]:
        script = tmp_path / "small.py"
        script.write_text(SCRIPT.replace("FAILS", repr(fails or {})))
        code = main(["compare", f"{script}:{function}", *line])
        said = capfd.readouterr()
        return code, said.out, said.err

    return run


FAILS = {
    "sine@0.5": "raises",
    "sine@0.1": "python",
    "circuit@0.5": "torch",
    "sine@0.5:all": "gpu",
    "uniform@0.5": "killed",
    "uniform@0.1": "stops",
}
SAYS = {
    "sine@0.5": "ValueError: no such layer",
    "sine@0.1": "ran out of memory",
    "circuit@0.5": "ran out of memory",
    "sine@0.5:all": "ran out of memory",
    "uniform@0.5": "memory ran out",
    "uniform@0.1": "giving up",
}
FINE = ["adamw", "circuit@0.1"]
ARMS = ",".join([FINE[0], *FAILS, FINE[1]])


def assert_the_others_went_on(
    compare: Compare, out: Path, says: dict[str, str], *executor: str
) -> None:
    line = ["--arms", ARMS, "--seeds", "1", "--json", "--out", str(out), *executor]
    code, said, errors = compare(*line, fails=FAILS)
    assert code == 1
    arms = json.loads(said)["arms"]
    assert [name for name, arm in arms.items() if arm["loss"]["mean"] is not None] == FINE
    assert f"{len(FAILS)} of {len(FAILS) + len(FINE)} runs failed" in errors
    report = (out / "report.md").read_text().splitlines()
    failures = [json.loads(p.read_text()) for p in (out / "failures").glob("*.json")]
    for arm, expected in says.items():
        found = [failure["error"] for failure in failures if failure["arm"] == arm]
        assert len(found) == 1
        assert all(expected in text for text in found), found
        assert [x for x in report if f"{arm}, seed 0 " in x and expected in x]


def test_one_that_raises_one_out_of_memory_and_one_killed_do_not_stop_the_others(compare, tmp_path):
    assert_the_others_went_on(compare, tmp_path / "c", SAYS)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_nor_do_they_on_ray(compare, tmp_path):
    ray = ("--executor", "ray", "--threads", "1")
    says = SAYS | {"uniform@0.1": "The process of this run died"}  # Ray ends it on sys.exit()
    assert_the_others_went_on(compare, tmp_path / "c", says, *ray)


@pytest.mark.parametrize(
    "error, said",
    [
        (MemoryError(), "MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory."), "CUDA out of memory."),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "can't alloc"),
    ],
)
def test_every_way_to_run_out_of_memory_says_what_to_do(error, said):
    assert said in describe(error)
    assert ".." not in describe(error)
    assert "have fewer runs at once (--jobs), a smaller model or a smaller batch" in describe(error)


def test_an_error_that_is_not_about_memory_does_not_speak_of_it():
    assert describe(ValueError("no such layer")) == "ValueError: no such layer"


@pytest.mark.parametrize(
    "arms, says",
    [
        ("adamw,sin@0.5", "Did you mean sine?"),
        ("admw,sine@0.5", "Did you mean"),
        ("adamw,sine", "no strength λ. Write sine@0.5"),
        ("adamw,sine@0.5,uniform", "no strength λ. Write uniform@0.5"),
        ("adamw,sine@half", "must be a number above 0, not 'half'"),
        ("adamw", "nothing to compare"),
    ],
)
def test_an_arm_that_cannot_be_is_refused_before_anything_is_written(compare, tmp_path, arms, says):
    code, said, errors = compare("--arms", arms, "--seeds", "2")
    assert (code, said) == (2, "")
    assert says in " ".join(errors.split())
    assert "Traceback" not in errors
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "function, says",
    [
        ("broken_task", "the corpus is not here"),
        ("no_task", "no_task() in "),
        ("mak_task", "mak_task"),
    ],
)
def test_a_script_that_gives_no_task_is_refused_before_anything_is_written(
    compare, tmp_path, function, says
):
    code, said, errors = compare("--arms", "adamw,sine@0.5", function=function)
    assert (code, said) == (2, "")
    assert says in errors
    assert not (tmp_path / "runs").exists()


def test_a_script_that_cannot_be_read_is_refused(tmp_path, capfd):
    (tmp_path / "torn.py").write_text("def make_task(:\n")
    assert main(["compare", f"{tmp_path / 'torn.py'}:make_task", "--arms", "adamw,sine@1"]) == 2
    assert "SyntaxError" in capfd.readouterr().err
    assert main(["compare", f"{tmp_path / 'gone.py'}:make_task", "--arms", "adamw,sine@1"]) == 2
    assert "no task script" in capfd.readouterr().err


def test_one_seed_is_run_and_says_that_nothing_can_be_concluded(compare, tmp_path):
    line = ["--arms", "adamw,sine@0.5", "--seeds", "1", "--json", "--out", str(tmp_path / "c")]
    code, said, _ = compare(*line)
    assert code == 0
    data: dict[str, Any] = json.loads(said)
    paired = data["arms"]["sine@0.5"]["paired_difference"]
    assert (paired["p"], paired["p_holm"], paired["ci95"], paired["se"]) == (None,) * 4
    assert paired["mean"] is not None
    assert data["minimum_detectable_effect"] is None
    report = (tmp_path / "c" / "report.md").read_text()
    assert "one seed shows no spread" in report
    assert "one seed shows no spread" in compare(*line[:4], "--out", str(tmp_path / "c"))[1]
