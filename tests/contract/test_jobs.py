"""Handles as data, and expectation values from bits."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import ResultCorruptError
from qsgd_core.jobs import Bits, Expectations, JobHandle, JobState, Result

BATCH = CircuitBatch(ansatz(3, 1), np.zeros((2, 3)))
WORK = Workload((BATCH,))


def test_a_handle_survives_json_in_another_process():
    handle = JobHandle("ibm_fez", "abc-1", "run/7", 1760000000.25, {"pubs": [3, 4], "layout": None})
    text = handle.to_json()
    assert "\n" not in text
    assert JobHandle.from_json(text) == handle
    assert JobHandle.from_json(json.dumps(json.loads(text))) == handle


def test_only_finished_jobs_are_final():
    assert {s.value for s in JobState if s.final} == {"done", "failed", "cancelled"}


def test_expectations_from_bits_are_mean_parities_per_row():
    values = np.array(
        [
            [[0, 0, 1], [0, 1, 1], [1, 1, 1], [0, 1, 0]],
            [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]],
        ],
        dtype=np.uint8,
    )
    found = Bits(values).expectations(((0,), (1,), (0, 2), (0, 1, 2), ()))
    assert found.dtype == np.float64
    assert found.tolist() == [[0.5, -0.5, 0.0, -0.5, 1.0], [-1.0, 1.0, -1.0, -1.0, 1.0]]


def test_a_result_gives_each_batchs_own_observables():
    strings = ((0, 1), (2,))
    work = Workload((BATCH, CircuitBatch(ansatz(3, 1), np.zeros((1, 3)), strings)))
    exact = Expectations(np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]))
    bits = Bits(np.array([[[1, 0, 0], [1, 1, 0]]], dtype=np.uint8))
    first, second = Result((exact, bits)).expectations(work)
    assert np.array_equal(first, exact.values)
    assert second.tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (Expectations(np.zeros((2, 3))), Expectations(np.zeros((2, 3)))),
        (Expectations(np.zeros((3, 2))),),
        (Bits(np.zeros((2, 10, 4), dtype=np.uint8)),),
        (Bits(np.zeros((1, 10, 3), dtype=np.uint8)),),
    ],
)
def test_a_result_of_another_shape_is_corrupt(parts):
    with pytest.raises(ResultCorruptError):
        Result(parts).expectations(WORK)
