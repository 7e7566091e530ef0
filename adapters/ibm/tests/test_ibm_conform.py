"""The conformance kit on ``ibm_fez``, from the command line, against the double."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from patience import PATIENCE_S


@pytest.mark.slow
def test_the_kit_passes_for_a_device_of_the_double(double, tmp_path):
    command = [sys.executable, "-m", "qsgd_core", "conform", "ibm_fez", "--json"]
    said = subprocess.run(
        [*command, "--allow-cost", "100"], capture_output=True, text=True, timeout=PATIENCE_S
    )
    report = json.loads(said.stdout)
    assert (said.returncode, report["failed"]) == (0, 0), said.stderr
    assert report["passed"] > 0
    asked, paid = double.asked_paid()
    assert asked >= paid > 0
