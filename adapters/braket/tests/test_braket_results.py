"""Results and layouts: whatever order the service answers in, each bit ends where it belongs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qsgd_braket.cloud.layout import ResultLayout
from qsgd_braket.cloud.results import read_results
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import CapabilityError, JobFailedError, ResultCorruptError


def entry(index: int, bits: list[list[int]], qubits: list[int] | None = None) -> dict:
    return {"inputsIndex": index, "measurements": bits, "measuredQubits": qubits or [0, 1]}


def a_set(*programs: list[dict]) -> dict:
    return {"programResults": [{"executableResults": p} for p in programs]}


def read(document: object, shots: int = 2, **others: object):
    files = {"results.json": document, **others}
    return read_results(lambda path: json.dumps(files[path]).encode(), shots=shots)


def test_rows_follow_the_input_index_and_columns_the_measured_qubits():
    found = read(
        a_set(
            [entry(1, [[0, 1], [0, 1]]), entry(0, [[1, 0], [1, 0]], qubits=[1, 0])],
            [entry(0, [[1, 1], [0, 0]])],
        )
    )
    assert [e.tolist() for e in found.executables] == [
        [[0, 1], [0, 1]],
        [[0, 1], [0, 1]],
        [[1, 1], [0, 0]],
    ]


def test_documents_that_lie_beside_the_first_one_are_read_too():
    found = read(
        {"programResults": ["p0.json"]},
        **{
            "p0.json": {"executableResults": ["e1.json", "e0.json"]},
            "e0.json": entry(0, [[0, 0], [0, 1]]),
            "e1.json": entry(1, [[1, 1], [1, 1]]),
        },
    )
    assert [e.tolist() for e in found.executables] == [[[0, 0], [0, 1]], [[1, 1], [1, 1]]]


def test_probabilities_become_exactly_as_many_shots():
    probabilities = {"00": 0.334, "01": 0.333, "11": 0.333}
    document = {"inputsIndex": 0, "measurementProbabilities": probabilities}
    bits = read(a_set([document]), shots=100).executables[0]
    counts = {s: int((bits == [int(c) for c in s]).all(axis=1).sum()) for s in probabilities}
    assert bits.shape == (100, 2)
    assert counts == {"00": 34, "01": 33, "11": 33}


def test_failed_circuits_of_a_set_fail_the_refresh_with_the_reason():
    failed = {"inputsIndex": 1, "failureMetadata": {"failureReason": "no", "category": "DEVICE"}}
    with pytest.raises(JobFailedError, match=r"1 of 2 circuits .* circuit 1: DEVICE: no") as caught:
        read(a_set([entry(0, [[0, 0], [0, 0]]), failed]))
    assert caught.value.may_have_spent


@pytest.mark.parametrize(
    "document, said",
    [
        (a_set([entry(0, [[0, 2], [0, 0]])]), "measurements"),
        (a_set([entry(0, [[0, 256], [0, 0]])]), "measurements"),
        (a_set([entry(0, [[0, 0.5], [0, 0]])]), "measurements"),
        (a_set([entry(0, [[0, 1], [0]])]), "inhomogeneous"),
        (a_set([entry(0, [[0, 1], [0, 0]], qubits=[3, 5])]), r"measured qubits are \[3, 5\]"),
        (a_set([entry(0, [[0, 0]]), entry(0, [[0, 0]])]), "numbered"),
        (a_set([{"inputsIndex": 0}]), "measurementProbabilities"),
        ([], "list"),
        ({}, "measurementProbabilities"),
        ({"programResults": [None]}, "expected an object"),
        ({"measurementProbabilities": {"0": 0.5}}, "add up"),
    ],
)
def test_anything_else_is_corrupt_and_says_what_was_found(document, said):
    with pytest.raises(ResultCorruptError, match=said):
        read(document)


def test_a_cut_document_is_corrupt():
    with pytest.raises(ResultCorruptError, match="not JSON, or cut: 9 bytes"):
        read_results(lambda path: b'{"progra"', shots=1)


# --- layouts --------------------------------------------------------------------------------------


def work(*shapes: tuple[int, int]) -> Workload:
    return Workload(tuple(CircuitBatch(ansatz(n, 1), np.zeros((b, n))) for b, n in shapes))


@pytest.mark.parametrize("route", ["set", "one"])
def test_a_layout_goes_through_a_tag_and_back(route):
    layout = ResultLayout.of(work((64, 4), (3, 2)), route)
    assert layout.text == f"{route}:64x4 3x2"
    assert ResultLayout.parse(layout.text) == layout
    assert layout.shots(67 * 10) == (10 if route == "set" else 670)


@pytest.mark.parametrize("text", ["", "set:", "set:4", "zip:1x1", "set:1x1;drop"])
def test_a_layout_that_is_none_is_refused(text):
    with pytest.raises(ResultCorruptError, match="layout"):
        ResultLayout.parse(text)


def test_a_workload_of_too_many_batches_is_refused_before_it_is_sent():
    with pytest.raises(CapabilityError, match="block sizes"):
        ResultLayout.of(work(*[(10, 4)] * 60), "set")


def test_rows_side_by_side_are_taken_apart():
    rng = np.random.default_rng(0)
    register = rng.integers(0, 2, (5, 8), dtype=np.uint8)
    first, second = ResultLayout("one", ((2, 3), (1, 2))).split([register], 5)
    assert (first.values[0] == register[:, :3]).all()
    assert (first.values[1] == register[:, 3:6]).all()
    assert (second.values[0] == register[:, 6:]).all()


@pytest.mark.parametrize("shapes", [[(5, 2)], [(5, 2), (5, 3)], [(5, 2), (4, 2)]])
def test_results_of_another_shape_are_not_taken(shapes):
    with pytest.raises(ResultCorruptError):
        ResultLayout("set", ((2, 2),)).split([np.zeros(s, np.uint8) for s in shapes], 5)
