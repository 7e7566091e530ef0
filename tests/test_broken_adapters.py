"""An adapter whose SDK is missing, or is another version, costs only whoever names it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TASK = f"{Path(__file__).parent / 'scripts' / 'noisy_task.py'}:make_task"

ADAPTERS = {
    "aer:statevector": ("qiskit_aer", "qsgd-aer"),
    "pennylane:default.qubit": ("pennylane", "qsgd-pennylane"),
    "fake_brisbane": ("qiskit_ibm_runtime", "qsgd-ibm"),
    "braket:local": ("braket", "qsgd-braket"),
}

PROGRAM = """
import sys, types
sdk, kind, name, task = sys.argv[1:]
sys.modules[sdk] = None if kind == "missing" else types.ModuleType(sdk)  # a version without it all
from qsgd_core.cli import main
assert main(["train", task, "--max-steps", "2", "--json"]) == 0
assert main(["backends", "--json"]) == 0
sys.exit(main(["train", task, "--backend", name, "--every", "5"]))
"""


@pytest.mark.parametrize(
    "kind", ["missing", pytest.param("another version", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", ADAPTERS)
def test_the_rest_works_and_the_one_that_is_named_says_the_pip_line(name, kind, tmp_path):
    sdk, distribution = ADAPTERS[name]
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, sdk, kind, name, TASK],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert said.returncode == 2, said.stderr
    assert "pip install" in said.stderr
    assert distribution in said.stderr
    assert "Traceback" not in said.stderr
    assert '"backend": "exact"' in said.stdout
