"""Blocks side by side in one register, and their results back."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsgd_core.builtin.simulators import ExactSimulator, SampledSimulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import GATES, Circuit, CircuitBatch, Gate, Slot, Workload, ansatz
from qsgd_core.errors import ConfigError, ResultCorruptError
from qsgd_core.jobs import Bits, Cost, Expectations, Quote, Result
from qsgd_core.schedule.packing.tiles import cheaper, pack, tiles_that_fit

SIGMAS = 5.0


def circuit(rng: np.random.Generator, n: int, gates: int) -> Circuit:
    """Any gates in any order on any qubits; every other angle a slot."""
    made = []
    slots = 0
    for name in rng.choice(sorted(GATES), size=gates):
        arity, angles = GATES[name]
        if arity > n:
            continue
        angle: float | Slot | None = None
        if angles:
            angle = Slot(slots) if rng.random() < 0.5 else float(rng.normal())
            slots += isinstance(angle, Slot)
        where = tuple(int(q) for q in rng.choice(n, size=arity, replace=False))
        made.append(Gate(str(name), where, angle))
    return Circuit(n, tuple(made))


@st.composite
def workloads(draw, *, classical: bool = False):
    """Up to four batches of up to five rows; some of them share their circuit."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    circuits = [
        circuit(rng, draw(st.integers(1, 3)), draw(st.integers(0, 8)))
        for _ in range(draw(st.integers(1, 3)))
    ]
    if classical:
        circuits = [ladder(c.n_qubits) for c in circuits]
    batches = []
    for _ in range(draw(st.integers(1, 4))):
        c = draw(st.sampled_from(circuits))
        shape = (draw(st.integers(1, 5)), c.n_slots)
        angles = math.pi * rng.integers(0, 2, shape) if classical else rng.normal(size=shape)
        strings = draw(st.sampled_from([(), ((0,),), ((c.n_qubits - 1, 0)[: c.n_qubits], (0,))]))
        batches.append(CircuitBatch(c, angles, strings))
    return Workload(tuple(batches))


def ladder(n: int) -> Circuit:
    """Bits that are certain: rx(0 or π) on each qubit, then a CNOT chain."""
    flips = [Gate("rx", (q,), Slot(q)) for q in range(n)]
    return Circuit(n, (*flips, *(Gate("cx", (q, q + 1)) for q in range(n - 1))))


def blocks(*shapes: tuple[int, int], depth: int = 2, seed: int = 0) -> Workload:
    """One batch per (rows, qubits)."""
    rng = np.random.default_rng(seed)
    return Workload(
        tuple(CircuitBatch(ansatz(n, depth), rng.normal(size=(rows, n))) for rows, n in shapes)
    )


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@given(workloads(), st.integers(1, 3), st.integers(0, 1))
def test_exact_values_of_the_packed_workload_are_those_of_the_workload(work, tiles, spare):
    packed = pack(work, tiles=tiles, width=work.n_qubits + spare)
    exact = ExactSimulator()
    found = packed.unpack(exact.run(packed.work, shots=None, seed=0)).expectations(work)
    expected = exact.run(work, shots=None, seed=0).expectations(work)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


@given(workloads(classical=True), st.integers(1, 4), st.integers(0, 1))
def test_bits_of_the_packed_workload_come_back_to_their_row_and_column(work, tiles, spare):
    packed = pack(work, tiles=tiles, width=work.n_qubits + spare)
    sampled = SampledSimulator()
    found = packed.unpack(sampled.run(packed.work, shots=3, seed=1))
    expected = sampled.run(work, shots=3, seed=2)
    for one, other in zip(found.parts, expected.parts, strict=True):
        assert isinstance(one, Bits)
        assert one.values.dtype == np.uint8
        assert np.array_equal(one.values, other.values)


def test_shots_of_a_tile_follow_the_blocks_own_joint_law():
    work = Workload(
        tuple(
            dataclasses.replace(b, observables=((0,), (1,), (2,), (0, 2)))
            for b in blocks((5, 3), (2, 3), seed=4).batches
        )
    )
    packed = pack(work, tiles=3)
    shots = 4096
    found = packed.unpack(SampledSimulator().run(packed.work, shots=shots, seed=3))
    exact = ExactSimulator().run(work, shots=None, seed=0).expectations(work)
    for z, law in zip(found.expectations(work), exact, strict=True):
        assert (np.abs(z - law) <= SIGMAS * np.sqrt((1 - law**2) / shots) + 1e-12).all()


@given(workloads(), st.integers(1, 5), st.integers(0, 2))
def test_each_row_has_qubits_of_its_own_and_no_row_runs_unasked(work, tiles, spare):
    width = work.n_qubits + spare
    packed = pack(work, tiles=tiles, width=width)
    if packed.work is not work:
        assert packed.work.n_rows == math.ceil(work.n_rows / tiles)
    assert {b.circuit.n_qubits for b in packed.work.batches} == {tiles * width}
    used = [
        (int(row), int(site))
        for place, sites in zip(packed.places, packed.sites, strict=True)
        for row, qubits in zip(place.row, sites, strict=True)
        for site in qubits
    ]
    assert len(set(used)) == len(used)
    assert all(0 <= row < packed.work.n_rows and 0 <= site < tiles * width for row, site in used)
    for batch, sites in zip(work.batches, packed.sites, strict=True):
        assert sites.shape == (batch.n_rows, batch.circuit.n_qubits)
        assert (sites[:, 0] % width == 0).all()
        assert (np.diff(sites, axis=1) == 1).all()


def test_one_tile_is_the_workload_itself():
    work = blocks((3, 4), (2, 4))
    packed = pack(work)
    assert packed.work is work
    assert same(packed.sites, [np.tile(np.arange(4), (rows, 1)) for rows in (3, 2)])
    result = Result(tuple(Expectations(b.angles) for b in work.batches))
    assert same([p.values for p in packed.unpack(result).parts], [b.angles for b in work.batches])


def test_all_shots_come_back_in_the_order_in_which_they_were_measured():
    work = blocks((5, 2), (2, 3))
    packed = pack(work, tiles=2)
    rng = np.random.default_rng(6)
    measured = [rng.integers(0, 2, (b.n_rows, 64, 6), np.uint8) for b in packed.work.batches]
    unpacked = packed.unpack(Result(tuple(map(Bits, measured))))
    rows = np.concatenate(measured)
    for part, place, sites in zip(unpacked.parts, packed.places, packed.sites, strict=True):
        expected = [rows[row][:, qubits] for row, qubits in zip(place.row, sites, strict=True)]
        assert np.array_equal(part.values, np.stack(expected))


def test_narrower_blocks_share_the_register_of_the_widest_even_alone():
    packed = pack(blocks((2, 4), (1, 3)), tiles=1)
    assert [b.circuit.n_qubits for b in packed.work.batches] == [4, 4]
    assert [b.n_rows for b in packed.work.batches] == [2, 1]
    assert packed.sites[1].tolist() == [[0, 1, 2]]
    alone = pack(blocks((1, 3)), tiles=2, width=4)
    assert alone.work.n_qubits == 8


def test_29_blocks_of_4_qubits_and_25_tiles_are_two_circuits():
    packed = pack(blocks((28, 4), (1, 4)), tiles=25)
    assert [(b.n_rows, b.circuit.n_qubits) for b in packed.work.batches] == [(1, 100), (1, 100)]
    idle = {q for g in packed.work.batches[1].circuit.gates for q in g.qubits}
    assert idle == set(range(16))
    assert packed.sites[1].tolist() == [[12, 13, 14, 15]]


def test_batches_of_one_circuit_become_one_and_unlike_blocks_share_a_row():
    work = blocks((3, 2), (1, 3), (2, 2))
    packed = pack(work, tiles=2)
    assert [b.n_rows for b in packed.work.batches] == [2, 1]
    assert [p.row.tolist() for p in packed.places] == [[0, 0, 1], [2], [1, 2]]
    assert [s[:, 0].tolist() for s in packed.sites] == [[0, 3, 0], [3], [3, 0]]


def test_the_same_call_gives_the_same_workload_to_the_bit():
    one, other = (pack(blocks((5, 2), (4, 3)), tiles=3).work for _ in range(2))
    assert one.digest() == other.digest()


def test_what_the_job_says_of_itself_is_kept():
    packed = pack(blocks((3, 2)), tiles=2)
    facts = {
        "executed_at": 12.5,
        "physical_qubits": (7, 6, 5, 4),
        "calibration_stamp": "c",
        "billed": Cost(usd=0.3),
    }
    parts = Expectations(np.zeros((1, 4))), Expectations(np.zeros((1, 2)))
    kept = vars(packed.unpack(Result(parts, **facts)))
    assert {name: kept[name] for name in facts} == facts


@pytest.mark.parametrize(
    "parts",
    [
        (),
        (Expectations(np.zeros((1, 4))),),
        (Expectations(np.zeros((1, 4))), Expectations(np.zeros((1, 3)))),
        (Bits(np.zeros((1, 8, 4), np.uint8)), Bits(np.zeros((1, 7, 4), np.uint8))),
        (Bits(np.zeros((1, 8, 4), np.uint8)), Bits(np.zeros((1, 8, 2), np.uint8))),
        (Bits(np.zeros((1, 8, 4), np.uint8)), Expectations(np.zeros((1, 2)))),
    ],
)
def test_a_result_of_another_shape_is_corrupt(parts):
    packed = pack(blocks((3, 2)), tiles=2)
    with pytest.raises(ResultCorruptError):
        packed.unpack(Result(parts))


@pytest.mark.parametrize("tiles, width", [(0, None), (-1, 4), (2, 3)])
def test_tiles_that_cannot_hold_a_block_are_refused(tiles, width):
    with pytest.raises(ConfigError, match=f"up to 4 qubits .* {tiles} tile"):
        pack(blocks((1, 4), (1, 2)), tiles=tiles, width=width)


@pytest.mark.parametrize(
    "has, tiles",
    [
        (Capabilities(), 29),
        (Capabilities(max_qubits=100), 25),
        (Capabilities(max_qubits=156), 29),
        (Capabilities(max_qubits=34, max_total_qubits=20), 5),
        (Capabilities(max_qubits=3), 1),
    ],
)
def test_as_many_tiles_as_the_device_has_qubits_and_there_are_blocks(has, tiles):
    work = blocks((1, 3), (28, 4))
    assert tiles_that_fit(work, has) == tiles


def test_so_many_tiles_fit_and_one_more_does_not():
    work, has = blocks((28, 4), (1, 3)), Capabilities(max_qubits=54)
    assert tiles_that_fit(work, has) == 13
    assert has.missing(pack(work, tiles=13).work, shots=8) == ()
    assert has.missing(pack(work, tiles=14).work, shots=8) != ()


def quote(**worst: float | None) -> Quote:
    return Quote(Cost(), Cost(**worst))


@pytest.mark.parametrize(
    "tiled, plain, pays",
    [
        ([quote(usd=0.6, shots=512)], [quote(usd=7.0, shots=7424)], True),
        ([quote(usd=1.0)], [quote(usd=0.5), quote(usd=0.5)], False),
        ([quote(usd=0.9)], [quote(usd=0.5), quote(usd=0.5)], True),
        ([quote(usd=0.0, qpu_s=5, shots=9)], [quote(usd=0.0, qpu_s=6, shots=1)], True),
        ([quote(qpu_s=5, shots=9)], [quote(usd=2.0, qpu_s=5, shots=10)], True),
        ([quote(usd=2.0, shots=1)], [quote(usd=1.0, shots=9)], False),
        ([quote()], [quote()], False),
    ],
)
def test_tiling_pays_when_the_worst_case_of_all_its_jobs_is_cheaper(tiled, plain, pays):
    assert cheaper(tiled, plain) is pays
