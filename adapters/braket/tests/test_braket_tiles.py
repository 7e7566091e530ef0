"""Blocks side by side through Braket: each bit in its row and column."""

from __future__ import annotations

import math

import numpy as np
import pytest
from aws_double import AwsDouble

from qsgd_braket.cloud.backend import BraketDevice
from qsgd_braket.local.backend import BraketLocal
from qsgd_core.builtin.simulators import ExactSimulator
from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Slot, Workload, ansatz
from qsgd_core.jobs import Bits, Limit
from qsgd_core.schedule.packing.pieces import divide, gather
from qsgd_core.schedule.packing.tiles import cheaper, pack, tiles_that_fit

SIGMAS = 5.0


def blocks(*shapes: tuple[int, int]) -> Workload:
    rng = np.random.default_rng(5)
    return Workload(
        tuple(
            CircuitBatch(ansatz(n, 2), rng.uniform(-math.pi, math.pi, (rows, n)))
            for rows, n in shapes
        )
    )


def certain(*shapes: tuple[int, int]) -> Workload:
    """Blocks whose bits are the signs of their angles: Rx(π) or Rx(0) on each qubit."""
    rng = np.random.default_rng(9)
    batches = []
    for rows, n in shapes:
        circuit = Circuit(n, tuple(Gate("rx", (q,), Slot(q)) for q in range(n)))
        batches.append(CircuitBatch(circuit, math.pi * rng.integers(0, 2, (rows, n))))
    return Workload(tuple(batches))


def bits_of(batch: CircuitBatch) -> np.ndarray:
    return np.round(batch.angles / math.pi).astype(np.uint8)


def device(name: str) -> BraketDevice:
    made = BraketDevice(name, pause=lambda _: None)
    made.resolve()
    return made


def test_exact_values_of_three_tiles_are_those_of_the_blocks():
    work = blocks((4, 4), (1, 3))
    packed = pack(work, tiles=3)
    assert packed.work.n_qubits == 12
    result = BraketLocal("braket:local").run(packed.work, shots=None, seed=0)
    exact = ExactSimulator().run(work, shots=None, seed=0).expectations(work)
    for found, law in zip(packed.unpack(result).expectations(work), exact, strict=True):
        np.testing.assert_allclose(found, law, rtol=0, atol=1e-12)


def test_shots_of_three_tiles_follow_the_law_of_each_block():
    work = blocks((4, 4), (1, 3))
    packed = pack(work, tiles=3)
    result = BraketLocal("braket:local").run(packed.work, shots=2048, seed=2)
    exact = ExactSimulator().run(work, shots=None, seed=0).expectations(work)
    for found, law in zip(packed.unpack(result).expectations(work), exact, strict=True):
        assert (np.abs(found - law) <= SIGMAS * np.sqrt((1 - law**2) / 2048) + 1e-9).all()


@pytest.mark.parametrize("name", ["braket:cepheus-1-108q", "braket:sv1"])
def test_tiles_travel_to_aws_and_every_bit_comes_back_to_its_block(double: AwsDouble, name):
    aws = device(name)
    work = certain((5, 4), (2, 3))
    pieces = divide(pack(work, tiles=3), aws.capabilities, shots=20)
    results = []
    for part, piece in enumerate(pieces):
        handle = aws.submit(piece.packed.work, shots=20, tag=f"part{part}", limit=Limit())
        results.append(aws.fetch(handle))
    z, measured = gather(work, pieces, results)
    assert all(mask.all() for mask in measured)
    for found, batch in zip(z, work.batches, strict=True):
        assert np.array_equal(found, 1.0 - 2.0 * bits_of(batch))
    for piece, result in zip(pieces, results, strict=True):
        assert result.physical_qubits is None  # AWS places each task's qubits by itself
        assert all(isinstance(p, Bits) for p in piece.packed.unpack(result).parts)


def test_tiles_make_a_refresh_cheaper_on_a_qpu_and_not_where_rows_share_a_task_anyway(
    double: AwsDouble,
):
    work = blocks((29, 4))
    fitting = {}
    for name in ("braket:cepheus-1-108q", "braket:sv1"):
        aws = device(name)
        tiles = fitting[name] = tiles_that_fit(work, aws.capabilities)
        plain, tiled = (
            [
                aws.quote(p.packed.work, shots=256)
                for p in divide(packed, aws.capabilities, shots=256)
            ]
            for packed in (pack(work), pack(work, tiles=tiles))
        )
        assert cheaper(tiled, plain) is (name == "braket:cepheus-1-108q")
    assert fitting == {"braket:cepheus-1-108q": 27, "braket:sv1": 5}
