"""Against AWS itself: opt in with QSGD_BRAKET_LIVE=1 and credentials. Costs less than a cent.

Runs a few rows on SV1 (three seconds are billed) and looks a QPU up without submitting to it.
"""

from __future__ import annotations

import math
import os
import time
import uuid

import numpy as np
import pytest
from patience import PATIENCE_S

from qsgd_braket.cloud.backend import BraketDevice
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.jobs import JobState, Limit

pytestmark = pytest.mark.skipif(
    os.environ.get("QSGD_BRAKET_LIVE") != "1",
    reason="needs AWS credentials and costs money: set QSGD_BRAKET_LIVE=1",
)


def test_sv1_gives_the_sine_and_is_found_by_its_tag():
    device = BraketDevice("braket:sv1")
    device.resolve()
    theta = np.random.default_rng(0).uniform(-1, 1, (4, 4))
    work = Workload((CircuitBatch(ansatz(4, 1, "none"), math.pi * theta),))
    assert device.quote(work, shots=1000).worst.usd < 0.10
    tag = f"qsgd-live-{uuid.uuid4()}"
    handle = device.submit(work, shots=1000, tag=tag, limit=Limit(usd=0.10))
    end = time.monotonic() + PATIENCE_S
    while not device.status(handle).state.final and time.monotonic() < end:
        time.sleep(2)
    assert device.status(handle).state is JobState.DONE
    z = device.fetch(handle).expectations(work)[0]
    exact = -np.sin(math.pi * theta)
    assert (np.abs(z - exact) <= 5 * np.sqrt((1 - exact**2) / 1000) + 1e-9).all()
    assert [h.job_id for h in device.find(tag)] == [handle.job_id]


def test_a_qpu_is_described_as_this_version_expects():
    device = BraketDevice("braket:garnet")
    device.resolve()
    assert device.capabilities.max_rows > 1
    assert (
        device.quote(
            Workload((CircuitBatch(ansatz(4, 1), np.zeros((4, 4))),)), shots=100
        ).worst.shots
        == 400
    )
