"""An adapter whose SDK is missing, or is another version, costs only whoever names it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE_S

TASK = f"{Path(__file__).parents[1] / 'scripts' / 'noisy_task.py'}:make_task"
ADAPTERS = {
    "aer:statevector": ("qiskit_aer", "qsgd-aer"),
    "pennylane:default.qubit": ("pennylane", "qsgd-pennylane"),
    "fake_brisbane": ("qiskit_ibm_runtime", "qsgd-ibm"),
    "braket:local": ("braket", "qsgd-braket"),
}

PROGRAM = """
import contextlib, io, json, sys, types
kind, task, *names = sys.argv[1:]
for sdk in names[1::2]:
    sys.modules[sdk] = None if kind == "missing" else types.ModuleType(sdk)  # without all it has
from qsgd_core.cli import main
assert main(["train", task, "--max-steps", "2"]) == 0
assert main(["backends"]) == 0
said = {}
for name in names[::2]:
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        assert main(["train", task, "--backend", name, "--every", "5"]) == 2
    said[name] = errors.getvalue()
print("\\n" + json.dumps(said))
"""


@pytest.mark.parametrize("kind", ["missing", "another version"])
def test_the_rest_works_and_whoever_names_one_is_told_the_pip_line(kind, tmp_path):
    names = [word for name, (sdk, _) in ADAPTERS.items() for word in (name, sdk)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, TASK, *names],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    for name, (_, distribution) in ADAPTERS.items():
        assert "pip install" in said[name]
        assert distribution in said[name]
        assert "Traceback" not in said[name]
