"""A user without a home: no HOME, and no entry in passwd, as in many containers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE_S

ROOT = Path(__file__).parents[2]
NOBODY = 12345
TRAINING = """
import pathlib, sys
import qsgd_core as qsgd
import torch
try:
    pathlib.Path.home()
except RuntimeError:
    print("no home")
p = torch.nn.Parameter(torch.ones(4))
optimizer = qsgd.QSGD([p], lr=0.1, **eval(sys.argv[1]))
p.grad = torch.ones(4)
optimizer.step()
optimizer.close()
print("trained", bool((p != 1).all()))
"""
PAID = "dict(backend='filebox:x', backend_options={'folder': 'vendor'}, shots=8, every=1)"


@pytest.fixture
def run(filebox_site, tmp_path):
    """A python process of that user; root's rights on files stay, for the interpreter is root's."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")

    def run(*line: str, **extra: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{filebox_site}:{ROOT}",
            "QSGD_LOAD_PLUGINS": "qsgd-filebox",
            "OMP_NUM_THREADS": "1",
            **extra,
        }
        return subprocess.run(
            [sys.executable, *line],
            preexec_fn=lambda: os.setresuid(NOBODY, 0, 0),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return run


def test_a_simulator_is_trained_on_without_a_home(run, tmp_path):
    done = run("-c", TRAINING, "{}")
    assert (done.returncode, done.stdout.split("\n")[:2]) == (0, ["no home", "trained True"]), done
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line", ["--help", "backends", "perturbations", "plugins --json", "train --help"]
)
def test_what_needs_no_home_asks_for_none(run, line):
    done = run("-m", "qsgd_core", *line.split())
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "home" not in done.stderr


@pytest.mark.parametrize("line", ["budget show", "jobs list", "jobs wait"])
def test_what_needs_a_home_says_where_to_name_one(run, line):
    done = run("-m", "qsgd_core", *line.split())
    assert done.returncode == 2
    assert "Set QSGD_HOME to a folder that lasts" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_paid_run_says_where_to_name_one_and_buys_nothing(run, tmp_path):
    done = run("-c", TRAINING, PAID)
    assert done.returncode == 1
    assert "Set QSGD_HOME to a folder that lasts" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_paid_run_goes_on_where_QSGD_HOME_names_a_folder(run, tmp_path):
    done = run("-c", TRAINING, PAID, QSGD_HOME="state")
    assert done.returncode == 0, done.stderr
    assert "trained True" in done.stdout
    assert (tmp_path / "state" / "ledger.sqlite").is_file()
    assert len(list((tmp_path / "vendor" / "jobs").glob("*.json"))) == 1
