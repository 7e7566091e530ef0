"""`qsgd conform` passes for every simulator of the repository, asked for by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE_S

ACME = Path(__file__).parents[2] / "adapters/pennylane/tests/packages/acme"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]


def conform(name: str, **environment: str) -> dict:
    command = [sys.executable, "-m", "qsgd_core", "conform", name, "--json"]
    said = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, timeout=PATIENCE_S
    )
    assert said.returncode == 0, said.stdout + said.stderr
    return json.loads(said.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "exact",
        "sampled",
        "aer:statevector",
        "aer:density_matrix",
        "aer:matrix_product_state",
        "pennylane:default.qubit",
        "pennylane:lightning.qubit",
        "fake_brisbane",
        "fake_fez",
        "braket:local",
        "braket:dm",
        "sine",
        "circuit",
    ],
)
def test_what_comes_with_qsgd_keeps_its_own_contract(name):
    report = conform(name)
    assert report["name"] == name
    assert report["passed"] > 0
    assert report["failed"] == 0
    assert all(skip["reason"] for skip in report["skipped"])


@pytest.mark.slow
def test_a_third_partys_pennylane_device_passes_through_the_adapter(tmp_path):
    local = ["--no-deps", "--no-build-isolation", "--no-index", "--target", str(tmp_path)]
    subprocess.run([*PIP, *local, str(ACME)], check=True, timeout=PATIENCE_S)
    report = conform("pennylane:acme.qubit", PYTHONPATH=str(tmp_path))
    assert (report["failed"], report["passed"] > 0) == (0, True)
