"""Workloads and results as bytes, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import ResultCorruptError
from qsgd_core.jobs import Bits, Cost, Expectations, Result
from qsgd_core.schedule.storage import pack_result, pack_workload, unpack_result, unpack_workload

SEEDS = st.integers(0, 2**32 - 1)
AMOUNTS = st.none() | st.floats(0, 1e9)


@st.composite
def batches(draw):
    n = draw(st.integers(1, 5))
    circuit = ansatz(
        n,
        draw(st.integers(1, 3)),
        draw(st.sampled_from(["none", "chain", "ring"])),
        phases=draw(st.booleans()),
    )
    rng = np.random.default_rng(draw(SEEDS))
    angles = rng.normal(size=(draw(st.integers(1, 4)), circuit.n_slots))
    strings = draw(st.sampled_from([(), ((0,),), ((0, n - 1) if n > 1 else (0,), ())]))
    return CircuitBatch(circuit, angles, strings)


@st.composite
def parts(draw):
    rng = np.random.default_rng(draw(SEEDS))
    rows, n = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    if draw(st.booleans()):
        return Bits(rng.integers(0, 2, (rows, draw(st.integers(1, 17)), n), dtype=np.uint8))
    return Expectations(rng.uniform(-1, 1, (rows, n)))


RESULTS = st.builds(
    Result,
    st.lists(parts(), min_size=1, max_size=4).map(tuple),
    executed_at=st.none() | st.floats(0, 2e9),
    physical_qubits=st.none() | st.lists(st.integers(0, 155), max_size=5).map(tuple),
    calibration_stamp=st.none() | st.text(max_size=20),
    billed=st.none() | st.builds(Cost, AMOUNTS, AMOUNTS, st.none() | st.integers(0, 10**9)),
)


@given(st.lists(batches(), min_size=1, max_size=3))
def test_a_workload_comes_back_to_the_bit(some):
    work = Workload(tuple(some))
    back = unpack_workload(pack_workload(work))
    assert back.digest() == work.digest()
    assert [b.observables for b in back.batches] == [b.observables for b in work.batches]
    assert all(
        a.circuit == b.circuit and a.angles.tobytes() == b.angles.tobytes()
        for a, b in zip(back.batches, work.batches, strict=True)
    )


@given(RESULTS)
def test_a_result_comes_back_to_the_bit(result):
    back = unpack_result(pack_result(result))
    for found, part in zip(back.parts, result.parts, strict=True):
        assert type(found) is type(part)
        assert found.values.dtype == part.values.dtype
        assert np.array_equal(found.values, part.values)
    assert back.executed_at == result.executed_at
    assert back.physical_qubits == result.physical_qubits
    assert back.calibration_stamp == result.calibration_stamp
    assert back.billed == result.billed


def test_bits_take_an_eighth_of_their_memory_or_less():
    values = np.random.default_rng(0).integers(0, 2, (10, 1000, 8), dtype=np.uint8)
    assert len(pack_result(Result((Bits(values),)))) < values.nbytes / 8 + 2000


@given(st.data())
@settings(max_examples=200)
def test_damaged_bytes_are_a_corrupt_result_or_the_result(data):
    values = np.arange(24, dtype=np.float64).reshape(4, 6) / 24
    whole = pack_result(Result((Expectations(values),), calibration_stamp="c"))
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at, flip = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
        damaged = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
    try:
        back = unpack_result(damaged)
    except ResultCorruptError:
        return
    assert np.array_equal(back.parts[0].values, values)
    assert back.calibration_stamp == "c"


@pytest.mark.parametrize("data", [b"", b"<html>502</html>", b"\x00" * 100])
def test_other_bytes_are_corrupt(data):
    with pytest.raises(ResultCorruptError, match="cannot be read"):
        unpack_result(data)
