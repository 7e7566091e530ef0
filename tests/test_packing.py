"""Splitting a workload into jobs and joining their results."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import CapabilityError
from qsgd_core.jobs import Bits, Expectations, Result
from qsgd_core.schedule.packing import join, split

SHOTS = 8


@st.composite
def workloads(draw):
    shapes = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return Workload(
        tuple(CircuitBatch(ansatz(n, 1), rng.normal(size=(rows, n))) for rows, n in shapes)
    )


CAPABILITIES = st.builds(
    Capabilities,
    max_rows=st.none() | st.integers(1, 12),
    max_executions=st.none() | st.integers(SHOTS, 12 * SHOTS),
    max_total_qubits=st.none() | st.integers(1, 20),
)


def run(work: Workload, kind: type) -> Result:
    """A result in which every row tells which row it was."""
    parts = []
    for b in work.batches:
        if kind is Bits:
            bits = np.repeat((b.angles > 0).astype(np.uint8)[:, None], SHOTS, axis=1)
            parts.append(Bits(bits))
        else:
            parts.append(Expectations(np.sin(b.angles)))
    return Result(tuple(parts), calibration_stamp="c")


@given(workloads(), CAPABILITIES, st.sampled_from([Bits, Expectations]))
def test_joining_the_parts_results_is_the_result_of_the_whole(work, has, kind):
    parts = split(work, has, shots=SHOTS)
    joined, whole = join(work, [run(part, kind) for part in parts]), run(work, kind)
    assert joined.calibration_stamp == "c"
    for found, part in zip(joined.parts, whole.parts, strict=True):
        assert type(found) is kind
        assert np.array_equal(found.values, part.values)


@given(workloads(), CAPABILITIES)
def test_every_part_fits_one_job_and_no_row_is_lost_or_moved(work, has):
    parts = split(work, has, shots=SHOTS)
    for part in parts:
        assert has.missing(part, shots=SHOTS) == ()
    rows = [row for part in parts for batch in part.batches for row in batch.angles]
    expected = [row for batch in work.batches for row in batch.angles]
    assert all(map(np.array_equal, rows, expected))
    assert len(rows) == len(expected)


@given(workloads(), CAPABILITIES)
def test_two_parts_in_a_row_would_not_have_fitted_one_job(work, has):
    parts = split(work, has, shots=SHOTS)
    for one, two in itertools.pairwise(parts):
        first = two.batches[0]
        row = CircuitBatch(first.circuit, first.angles[:1])
        assert has.missing(Workload((*one.batches, row)), shots=SHOTS) != ()


def test_what_knows_no_limit_is_one_job():
    work = Workload((CircuitBatch(ansatz(2, 1), np.zeros((5000, 2))),))
    assert [part.n_rows for part in split(work, Capabilities(), shots=1024)] == [5000]


def test_a_row_that_does_not_fit_a_job_is_refused():
    work = Workload((CircuitBatch(ansatz(2, 1), np.zeros((1, 2))),))
    with pytest.raises(CapabilityError, match="1000 shots were asked for; a job takes 999"):
        split(work, Capabilities(max_executions=999), shots=1000)
