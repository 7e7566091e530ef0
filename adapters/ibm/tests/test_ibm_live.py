"""One small job on a real device of your account. Opt in: it uses about 2 s of QPU time.

QSGD_IBM_LIVE=1 [QSGD_IBM_LIVE_BACKEND=ibm_fez] python -m pytest adapters/ibm/tests/test_ibm_live.py
"""

from __future__ import annotations

import os
import time
import uuid

import numpy as np
import pytest
from patience import PATIENCE_S

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.jobs import JobState, Limit
from qsgd_ibm.backend import IBMBackend

GIVEN = dict(os.environ)  # before the fixtures take the credentials away


@pytest.mark.skipif(
    GIVEN.get("QSGD_IBM_LIVE") != "1",
    reason="needs an IBM account and QPU time; set QSGD_IBM_LIVE=1 to run it",
)
def test_a_real_device_runs_one_job_of_sixteen_shots(monkeypatch):
    from pathlib import Path

    from qiskit_ibm_runtime.accounts import management

    monkeypatch.setattr(
        management,
        "_DEFAULT_ACCOUNT_CONFIG_JSON_FILE",
        str(Path.home() / ".qiskit" / "qiskit-ibm.json"),
    )
    for name in ("QISKIT_IBM_TOKEN", "QISKIT_IBM_INSTANCE", "QISKIT_IBM_URL"):
        if name in GIVEN:
            monkeypatch.setenv(name, GIVEN[name])
    ibm = IBMBackend(GIVEN.get("QSGD_IBM_LIVE_BACKEND", "ibm:least_busy"))
    ibm.resolve()
    work = Workload((CircuitBatch(ansatz(2, 1, "none"), np.array([[np.pi / 2, -np.pi / 2]])),))
    tag = f"live-{uuid.uuid4().hex[:12]}"
    handle = ibm.submit(work, shots=16, tag=tag, limit=Limit(qpu_s=10))
    end = time.monotonic() + PATIENCE_S
    while not ibm.status(handle).state.final:
        assert time.monotonic() < end, f"still queued; cancel it: {handle.to_json()}"
        time.sleep(10)
    assert ibm.status(handle).state is JobState.DONE
    result = ibm.fetch(handle)
    means = result.parts[0].values.mean(axis=(0, 1))
    assert means[0] > 0.5 > means[1]  # |1⟩ and |0⟩ up to readout error
    assert [h.job_id for h in ibm.find(tag)] == [handle.job_id]
    assert result.billed is not None
    assert result.billed.qpu_s is None or result.billed.qpu_s <= 10
