"""The walks of a value in docs/architecture.md are what the code does: each is taken here."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from timelapse import timelapse

import qsgd_core as qsgd
from qsgd_core.cli.app import main
from qsgd_core.plugins.registry import default_registry, forget_registries

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
TASK = ROOT / "tests" / "scripts" / "noisy_task.py"


def walk(title: str) -> list[str]:
    """The ``file:function`` of each line of the list under a heading of the page."""
    text = PAGE.read_text(encoding="utf-8")
    section = text.split(f"### {title}\n", 1)[1].split("\n#", 1)[0]
    return re.findall(r"^\d+\. `([^`]+)`", section, flags=re.MULTILINE)


def called(act: Callable[[], Any]) -> list[str]:
    """``file:function`` of every call of the project's code that ``act`` makes, in order."""
    calls: list[str] = []
    start = f"{ROOT}{os.sep}"

    def see(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(start):
            name = code.co_qualname.replace(".<locals>", "")
            calls.append(f"{code.co_filename.removeprefix(start)}:{name}")

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        act()
    finally:
        sys.setprofile(before)
    return calls


def missing(steps: list[str], calls: list[str]) -> str | None:
    """The first of ``steps`` that was not called after those before it."""
    rest = iter(calls)
    return next((step for step in steps if step not in rest), None)


@pytest.fixture
def service(filebox, tmp_path, monkeypatch):
    """A vendor whose courier lives in this process."""
    from qsgd_filebox.backend import Filebox
    from qsgd_filebox.options import FileboxOptions

    def make(run, name, clock):
        options = FileboxOptions(**json.loads(run.options))
        return Filebox(name, options, clock=clock, sleep=clock.sleep)

    timelapse(monkeypatch, tmp_path / "home", make)
    return {"folder": str(tmp_path / "vendor"), "coins": True}


def test_theta_walks_from_step_to_a_vendor_and_back(service):
    p = torch.nn.Parameter(torch.linspace(-1, 1, 8))
    p.grad = torch.ones(8)
    optimizer = torch.optim.AdamW([p])
    paid = {"backend": "filebox:x", "backend_options": service, "shots": 8, "budget": "$1"}
    term = qsgd.attach(optimizer, policy="sync", every=1, **paid)
    calls = called(optimizer.step)
    term.close()
    assert term.qsgd_stats().sources["measured"] == 1
    steps = walk("θ, from `step()` to a vendor and back")
    assert len(steps) > 20
    assert missing(steps, calls) is None


def test_a_budget_walks_from_the_command_line_to_the_check(service, tmp_path, capsys):
    line = [
        "train",
        f"{TASK}:make_task",
        "--backend",
        "filebox:x",
        "--budget",
        "$1",
        "--max-steps",
        "1",
    ]
    options = [f"--option={name}={value}" for name, value in service.items()]
    folder = ["--run-dir", str(tmp_path / "run"), "--policy", "sync", "--shots", "8"]
    calls = called(lambda: main([*line, *options, *folder, "--json"]))
    assert json.loads(capsys.readouterr().out)["jobs"] == 1
    steps = walk("A budget, from the command line to the CHECK")
    assert len(steps) > 8
    assert missing(steps, calls) is None


def test_a_plugin_walks_from_its_entry_point_to_an_object(filebox, tmp_path):
    forget_registries()
    options = {"folder": str(tmp_path / "vendor")}
    calls = called(lambda: default_registry().make_backend("filebox:x", options))
    steps = walk("A plugin, from entry point to object")
    assert len(steps) > 5
    assert missing(steps, calls) is None


def test_a_walk_with_a_wrong_turn_is_noticed():
    assert missing(["a", "b"], ["a", "x", "b"]) is None
    assert missing(["b", "a"], ["a", "x", "b"]) == "a"
    assert missing(["a", "c"], ["a", "x", "b"]) == "c"
