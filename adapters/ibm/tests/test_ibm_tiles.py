"""Blocks side by side on IBM's devices: one layout, each bit in its row and column."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from qsgd_core.builtin.simulators import ExactSimulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Slot, Workload, ansatz
from qsgd_core.jobs import Bits, Limit
from qsgd_core.schedule.packing.pieces import divide, gather
from qsgd_core.schedule.packing.tiles import pack, tiles_that_fit
from qsgd_ibm.fake.backend import FakeDevice, recordings
from qsgd_ibm.options import FakeOptions
from qsgd_ibm.translate import Compiler, Isa

NO_LIMIT = Limit()
SIGMAS = 5.0


def flips(rows: list[list[int]]) -> CircuitBatch:
    """Rx(π) on each qubit that a row says; the bits of a row are the row."""
    n = len(rows[0])
    circuit = Circuit(n, tuple(Gate("rx", (q,), Slot(q)) for q in range(n)))
    return CircuitBatch(circuit, np.pi * np.array(rows))


def certain() -> Workload:
    """Blocks of four and of three qubits, no two with the same bits."""
    fours = [[(row >> q) & 1 for q in range(4)] for row in (1, 2, 4, 7, 11)]
    threes = [[(row >> q) & 1 for q in range(3)] for row in (1, 6)]
    return Workload((flips(fours), flips(threes)))


def blocks(*shapes: tuple[int, int], entangler: str = "chain") -> Workload:
    rng = np.random.default_rng(5)
    return Workload(
        tuple(
            CircuitBatch(ansatz(n, 2, entangler), rng.uniform(-np.pi, np.pi, (rows, n)))
            for rows, n in shapes
        )
    )


def measured_on(isa: Isa) -> tuple[int, ...]:
    """The physical qubit behind each classical bit."""
    circuit = isa.circuit
    found = {
        circuit.find_bit(step.clbits[0]).index: circuit.find_bit(step.qubits[0]).index
        for step in circuit.data
        if step.operation.name == "measure"
    }
    return tuple(found[bit] for bit in range(len(found)))


def test_tiles_travel_to_ibm_in_one_job_and_every_bit_comes_back_to_its_block(
    backend, collect, double
):
    work = certain()
    packed = pack(work, tiles=3)
    ibm = backend()
    handle = ibm.submit(packed.work, shots=7, tag="tiles", limit=NO_LIMIT)
    result = packed.unpack(collect(ibm, handle))
    for part, batch in zip(result.parts, work.batches, strict=True):
        assert isinstance(part, Bits)
        rows = np.round(batch.angles / np.pi)[:, None, :]
        assert np.array_equal(part.values, np.broadcast_to(rows, part.values.shape))
    assert len(set(result.physical_qubits)) == 12
    assert result.billed.shots == 7 * packed.work.n_rows == 21
    assert double.ledger()["posts"] == 1


def test_shots_of_tiles_follow_the_law_of_each_block(backend, collect):
    work = blocks((5, 4), (2, 3))
    packed = pack(work, tiles=3)
    ibm = backend()
    handle = ibm.submit(packed.work, shots=1024, tag="law", limit=NO_LIMIT)
    found = packed.unpack(collect(ibm, handle)).expectations(work)
    exact = ExactSimulator().run(work, shots=None, seed=0).expectations(work)
    for z, law in zip(found, exact, strict=True):
        assert (np.abs(z - law) <= SIGMAS * np.sqrt((1 - law**2) / 1024) + 1e-9).all()


def test_a_job_that_fails_leaves_the_other_jobs_blocks_where_they_were(backend, collect):
    work = certain()
    ibm = backend()
    pieces = divide(pack(work, tiles=3), Capabilities(max_rows=2), shots=8)
    results = [
        collect(ibm, ibm.submit(piece.packed.work, shots=8, tag=f"part{i}", limit=NO_LIMIT))
        for i, piece in enumerate(pieces)
    ]
    assert len({result.physical_qubits for result in results}) == 1 < len(results)
    z, measured = gather(work, pieces, [*results[:-1], None])
    assert [mask.tolist() for mask in measured] == [[True] * 5, [True, False]]
    assert np.array_equal(z[0], 1 - 2 * np.round(work.batches[0].angles / np.pi))
    assert np.array_equal(z[1][0], 1 - 2 * np.round(work.batches[1].angles[0] / np.pi))


def test_every_circuit_of_a_packed_workload_runs_on_the_same_qubits(backend):
    ibm = backend()
    packed = pack(blocks((7, 4), (2, 3)), tiles=3)
    device = ibm._current()
    isas = [ibm._isa(batch.circuit, device) for batch in packed.work.batches]
    assert len(isas) > 1
    layout = ibm.calibration(packed.work).physical_qubits
    for isa in isas:
        assert isa.layout == isa.measured == measured_on(isa) == layout
    couplings = set(device.target.build_coupling_map().get_edges())
    for tile in range(3):
        line = layout[4 * tile : 4 * tile + 4]
        assert all({(a, b), (b, a)} & couplings for a, b in pairwise(line))


def test_unpacked_circuits_of_other_widths_run_elsewhere(backend):
    """Why :func:`pack` gives all circuits one width: a result carries one layout."""
    ibm = backend()
    four, eight = (ibm.calibration(blocks((1, n))).physical_qubits for n in (4, 8))
    assert eight[:4] != four


@pytest.mark.parametrize("name", ["fake_brisbane", "fake_fez", "fake_torino", "fake_miami"])
def test_twenty_five_tiles_of_a_chain_need_not_one_swap(name):
    device: Any = recordings()[name]()
    packed = pack(blocks((25, 4)), tiles=25)
    isa = Compiler(FakeOptions()).compile(packed.work.batches[0].circuit, device, stamp="s")
    assert isa.layout == isa.measured
    assert isa.circuit.num_nonlocal_gates() == 25 * 6


def test_swaps_that_a_ring_needs_stay_in_their_tile():
    device: Any = recordings()["fake_fez"]()
    packed = pack(blocks((25, 4), entangler="ring"), tiles=25)
    isa = Compiler(FakeOptions()).compile(packed.work.batches[0].circuit, device, stamp="s")
    tile = {qubit: site // 4 for site, qubit in enumerate(isa.layout)}
    circuit = isa.circuit
    assert isa.measured == measured_on(isa) != isa.layout
    assert [tile[qubit] for qubit in isa.measured] == [site // 4 for site in range(100)]
    for step in circuit.data:
        where = {tile[circuit.find_bit(q).index] for q in step.qubits}
        assert step.operation.name == "barrier" or len(where) == 1


def test_readout_is_that_of_the_qubits_a_routed_circuit_is_measured_on():
    fake = FakeDevice("fake_fez")
    ring = blocks((1, 4), entangler="ring")
    found = fake.calibration(ring)
    isa = Compiler(FakeOptions()).compile(ring.batches[0].circuit, fake._device, stamp="s")
    properties = [fake._device.properties().qubit_property(q) for q in measured_on(isa)]
    assert found.readout == tuple(
        (p["prob_meas1_prep0"][0], p["prob_meas0_prep1"][0]) for p in properties
    )
    assert found.physical_qubits == isa.layout != measured_on(isa)


def test_as_many_tiles_fit_as_the_layout_that_was_given_is_long(backend):
    work = blocks((29, 4))
    assert tiles_that_fit(work, backend().capabilities) == 25
    given = tuple(range(9))
    assert tiles_that_fit(work, backend(initial_layout=given).capabilities) == 2
    fake = FakeDevice("fake_brisbane", FakeOptions(initial_layout=given))
    assert tiles_that_fit(work, fake.capabilities) == 2


def test_a_recorded_device_gives_each_tile_the_noise_of_its_own_qubits():
    """Readout errors alone tell which physical qubit a column came from."""
    fake = FakeDevice("fake_brisbane")
    still = CircuitBatch(Circuit(4, ()), np.empty((2, 0)))
    packed = pack(Workload((still,)), tiles=2)
    shots = 2**16
    result = fake.run(packed.work, shots=shots, seed=3)
    part = packed.unpack(result).parts[0]
    assert isinstance(part, Bits)
    ones = part.values.mean(axis=1)
    sites = packed.sites[0]
    qubits = np.array(result.physical_qubits)[sites]
    target = recordings()["fake_brisbane"]().target
    errors = np.array([[target["measure"][(int(q),)].error for q in row] for row in qubits])
    sigma = np.sqrt(errors * (1 - errors) / shots)
    assert (np.abs(ones - errors) < SIGMAS * sigma).all()
    # In any other order of the qubits it would not fit.
    assert (np.abs(ones[::-1] - errors) > SIGMAS * sigma).any()


def test_a_recorded_device_runs_two_tiles_as_it_runs_the_blocks():
    work = blocks((3, 4), (1, 3))
    packed = pack(work, tiles=2)
    shots = 4096
    found = packed.unpack(FakeDevice("fake_brisbane").run(packed.work, shots=shots, seed=1))
    exact = ExactSimulator().run(work, shots=None, seed=0).expectations(work)
    ideal = np.concatenate([z.ravel() for z in exact])
    noisy = np.concatenate([z.ravel() for z in found.expectations(work)])
    shrink, offset = np.polyfit(ideal, noisy, 1)
    assert 0.8 < shrink < 0.99  # six ECR at 0.7 % and readout at 2 %
    assert np.sqrt(np.mean((noisy - shrink * ideal - offset) ** 2)) < 0.05
