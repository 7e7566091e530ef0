"""A run measured on IBM's double, repeated where nothing of IBM is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from patience import PATIENCE_S

from qsgd_core.schedule.record.reader import RecordReader

SCRIPTS = Path(__file__).parents[3] / "tests" / "scripts"
TASK = f"{SCRIPTS / 'noisy_task.py'}:make_task"


def qsgd(head: list[str], *arguments: str, env: dict[str, str]) -> dict[str, Any]:
    """What the command printed as JSON."""
    done = subprocess.run(
        [sys.executable, *head, "train", *arguments, "--json"],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = torch.load(run_dir / "checkpoint.pt")["model"]
    return model


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["tracked", "hold"])
def test_a_run_on_ibm_is_repeated_to_the_bit_without_its_client(
    double: Any, tmp_path: Path, policy: str
) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "QSGD_RUNS": str(tmp_path / "runs"),
    }
    online = env | {"QSGD_HOME": str(tmp_path / "home"), **double.environment}
    how = ["--backend", "ibm_brisbane", "--policy", policy, "--every", "4", "--shots", "64"]
    run = ["--run-dir", str(tmp_path / "runs" / "paid"), "--yes", "--wait", "always"]
    recorded = qsgd(["-m", "qsgd_core"], TASK, *how, *run, env=online)
    asked = double.asked_paid()
    assert asked == (3, 3)

    offline = env | {
        "QSGD_HOME": str(tmp_path / "nowhere"),
        "QSGD_DISABLED_PLUGINS": "qsgd-ibm",
        "PYTHONPATH": str(SCRIPTS.parents[1]),
    }
    repeated = qsgd([str(SCRIPTS / "bare.py")], "--replay", "paid", env=offline)

    paid, again = tmp_path / "runs" / "paid", Path(repeated["run_dir"])
    assert (paid / "metrics.jsonl").read_bytes() == (again / "metrics.jsonl").read_bytes()
    first, second = weights(paid), weights(again)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert repeated["sources"] == recorded["sources"]
    assert repeated["replayed"]["bit_identical"] is True
    assert repeated["replayed"]["compared"]["angles"] == 3
    assert double.asked_paid() == asked
    assert not (tmp_path / "nowhere").exists()

    header = RecordReader(paid / "record.sqlite").header
    assert (header["backend"], header["distribution"]) == ("ibm_brisbane", "qsgd-ibm")
