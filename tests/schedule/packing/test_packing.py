"""Splitting a workload into jobs and gathering their results."""

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
from qsgd_core.schedule.packing.pieces import divide, gather, sites_in_turns, split
from qsgd_core.schedule.packing.tiles import pack
from qsgd_core.schedule.packing.turns import rotation, take

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
def test_the_parts_results_side_by_side_are_the_result_of_the_whole(work, has, kind):
    parts = split(work, has, shots=SHOTS)
    values = [part.values for each in parts for part in run(each, kind).parts]
    whole = [part.values for part in run(work, kind).parts]
    assert np.array_equal(
        np.concatenate([v.ravel() for v in values]), np.concatenate([v.ravel() for v in whole])
    )


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


TILES = st.integers(1, 3)
ROOMY = st.builds(
    Capabilities,
    max_rows=st.none() | st.integers(1, 6),
    max_executions=st.none() | st.integers(SHOTS, 6 * SHOTS),
)


@given(workloads(), TILES, ROOMY, st.sampled_from([Bits, Expectations]), st.data())
def test_rows_whose_job_failed_are_missing_and_all_others_are_there(work, tiles, has, kind, data):
    pieces = divide(pack(work, tiles=tiles), has, shots=SHOTS)
    failed = data.draw(st.lists(st.booleans(), min_size=len(pieces), max_size=len(pieces)))
    results = [
        None if gone else run_tiles(piece.packed.work, kind)
        for piece, gone in zip(pieces, failed, strict=True)
    ]
    z, measured = gather(work, pieces, results)
    lost = [[] for _ in work.batches]
    for piece, gone in zip(pieces, failed, strict=True):
        for rows, mine in zip(lost, piece.rows, strict=True):
            rows += mine.tolist() * gone
    whole = run(work, kind).expectations(work)
    for rows, values, mask, expected in zip(lost, z, measured, whole, strict=True):
        assert sorted(rows) == np.flatnonzero(~mask).tolist()
        assert np.isnan(values[~mask]).all()
        np.testing.assert_array_equal(values[mask], expected[mask])


@given(workloads(), TILES, ROOMY)
def test_the_jobs_of_a_refresh_hold_each_row_once_and_each_fits(work, tiles, has):
    packed = pack(work, tiles=tiles)
    pieces = divide(packed, has, shots=SHOTS)
    for index, batch in enumerate(work.batches):
        rows = np.concatenate([piece.rows[index] for piece in pieces])
        assert sorted(rows.tolist()) == list(range(batch.n_rows))
    for piece in pieces:
        assert has.missing(piece.packed.work, shots=SHOTS) == ()
        # Wherever the refresh is cut, a block keeps its qubits.
        sites = [packed.sites[i][rows] for i, rows in enumerate(piece.rows) if len(rows)]
        assert all(map(np.array_equal, piece.packed.sites, sites))
    assert len(pieces) == len(split(packed.work, has, shots=SHOTS))


def test_a_job_alone_teaches_what_it_measured():
    angles = np.arange(10.0)[:, None] / 10
    work = Workload((CircuitBatch(ansatz(1, 1), angles),))
    first, second = divide(pack(work, tiles=4), Capabilities(max_rows=2), shots=SHOTS)
    assert [piece.rows[0].tolist() for piece in (first, second)] == [[*range(8)], [8, 9]]
    found = second.packed.unpack(run_tiles(second.packed.work, Expectations))
    np.testing.assert_array_equal(found.parts[0].values, np.sin(angles[8:]))
    assert second.packed.logical.batches[0].angles.tolist() == angles[8:].tolist()
    assert second.packed.sites[0].tolist() == [[0], [1]]


@given(workloads(), TILES, st.integers(1, 12), st.integers(0, 30))
def test_a_row_runs_on_the_same_sites_in_every_cycle(work, tiles, per_refresh, turn):
    n_rows = [batch.n_rows for batch in work.batches]
    known = sites_in_turns(work, tiles=tiles, per_refresh=per_refresh)
    rows = rotation(n_rows, per_refresh, turn)
    packed = pack(take(work, rows), tiles=tiles, width=work.n_qubits)
    expected = [sites[index] for sites, index in zip(known, rows, strict=True) if len(index)]
    assert all(map(np.array_equal, packed.sites, expected))
    whole = sites_in_turns(work, tiles=tiles, per_refresh=work.n_rows)
    assert all(map(np.array_equal, whole, pack(work, tiles=tiles).sites))


def run_tiles(work: Workload, kind: type) -> Result:
    """As :func:`run` for the blocks of each circuit: qubit and slot are found by their gate."""
    parts = []
    for b in work.batches:
        site = {g.angle.index: g.qubits[0] for g in b.circuit.gates if g.name == "ry"}
        sites = [site[k] for k in range(b.circuit.n_slots)]
        if kind is Bits:
            bits = np.zeros((b.n_rows, SHOTS, b.circuit.n_qubits), np.uint8)
            bits[:, :, sites] = (b.angles > 0)[:, None]
            parts.append(Bits(bits))
        else:
            values = np.zeros((b.n_rows, b.circuit.n_qubits))
            values[:, sites] = np.sin(b.angles)
            parts.append(Expectations(values[:, [q for (q,) in b.observables]]))
    return Result(tuple(parts), calibration_stamp="c")
