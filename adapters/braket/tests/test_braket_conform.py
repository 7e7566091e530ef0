"""The conformance kit on a QPU's ARN, from the command line, against the AWS double."""

from __future__ import annotations

import json
import subprocess
import sys

import aws_devices
import pytest
from patience import PATIENCE_S


@pytest.mark.slow
def test_the_kit_passes_for_a_quantum_computer_of_the_double(double):
    command = [sys.executable, "-m", "qsgd_core", "conform", aws_devices.CEPHEUS, "--json"]
    said = subprocess.run(
        [*command, "--allow-cost", "100"], capture_output=True, text=True, timeout=PATIENCE_S
    )
    report = json.loads(said.stdout)
    assert (said.returncode, report["failed"]) == (0, 0), said.stderr
    assert report["passed"] > 0
    assert 0 < report["cost_usd"] < 100
    assert double.ledger()["paid_twice"] == []
