"""Some of the blocks at a time, in turns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import CapabilityError, ConfigError
from qsgd_core.schedule.packing.turns import (
    cycle_length,
    require_affordable_size,
    rotation,
    scatter,
    take,
)

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=5)


def work(sizes: list[int]) -> Workload:
    """Blocks of 1, 2, 3, … qubits whose first angle is their own number."""
    batches = []
    for index, rows in enumerate(sizes):
        angles = np.zeros((rows, index + 1))
        angles[:, 0] = sum(sizes[:index]) + np.arange(rows)
        batches.append(CircuitBatch(ansatz(index + 1, 1), angles))
    return Workload(tuple(batches))


@given(SIZES, st.integers(1, 20), st.integers(0, 100))
def test_a_cycle_measures_every_row_exactly_once(sizes, per_refresh, cycle):
    length = cycle_length(sizes, per_refresh)
    turns = [rotation(sizes, per_refresh, cycle * length + t) for t in range(length)]
    for index, rows in enumerate(sizes):
        measured = np.concatenate([turn[index] for turn in turns])
        assert sorted(measured.tolist()) == list(range(rows))


@given(SIZES, st.integers(1, 20))
def test_no_turn_is_over_the_limit_or_more_than_a_row_off_the_others(sizes, per_refresh):
    length = cycle_length(sizes, per_refresh)
    counts = [sum(map(len, rotation(sizes, per_refresh, t))) for t in range(length)]
    assert max(counts) <= per_refresh
    assert max(counts) - min(counts) <= 1
    assert min(counts) >= 1
    # Not one turn fewer would have done.
    assert (length - 1) * per_refresh < sum(sizes)


@given(SIZES, st.integers(1, 20), st.integers(0, 100))
def test_a_turn_takes_its_rows_from_all_over_the_workload(sizes, per_refresh, turn):
    length = cycle_length(sizes, per_refresh)
    for rows, size in zip(rotation(sizes, per_refresh, turn), sizes, strict=True):
        assert size // length <= len(rows) <= -(-size // length)


def test_a_budget_for_all_blocks_measures_all_of_them_every_time():
    for turn in range(3):
        assert [rows.tolist() for rows in rotation([2, 3], 5, turn)] == [[0, 1], [0, 1, 2]]


def test_turns_by_hand():
    turns = [[rows.tolist() for rows in rotation([3, 1, 3], 3, t)] for t in range(4)]
    assert turns == [
        [[0], [0], [2]],
        [[1], [], [0]],
        [[2], [], [1]],
        [[0], [0], [2]],
    ]


@pytest.mark.parametrize("per_refresh", [0, -1])
def test_a_refresh_of_nothing_is_refused(per_refresh):
    with pytest.raises(ConfigError, match=f"at least one block; asked for {per_refresh}"):
        rotation([3], per_refresh, 0)


@given(SIZES, st.integers(1, 20), st.integers(0, 20))
def test_what_was_taken_goes_back_to_its_place_and_the_rest_stays(sizes, per_refresh, turn):
    whole = work(sizes)
    rows = rotation(sizes, per_refresh, turn)
    old = [np.full((b.n_rows, 1), -1.0) for b in whole.batches]
    values = [b.angles[:, :1] for b in take(whole, rows).batches]
    new = scatter(values, rows, into=old)
    for batch, found, before, index in zip(whole.batches, new, old, rows, strict=True):
        rest = np.setdiff1d(np.arange(batch.n_rows), index)
        np.testing.assert_array_equal(found[index, 0], batch.angles[index, 0])
        assert (found[rest] == -1.0).all()
        assert (before == -1.0).all()


def test_taken_rows_keep_circuit_and_observables_and_batches_without_rows_go():
    batch = CircuitBatch(ansatz(3, 1), np.arange(6.0).reshape(2, 3), ((0, 2), (1,)))
    rows = [np.array([1]), np.array([], dtype=np.intp)]
    (taken,) = take(Workload((batch, batch)), rows).batches
    assert taken.angles.tolist() == [[3.0, 4.0, 5.0]]
    assert taken.observables == ((0, 2), (1,))
    assert taken.circuit is batch.circuit


def test_ten_thousand_blocks_are_measured_and_one_more_is_refused_with_its_price():
    require_affordable_size(10_000, "$3")
    with pytest.raises(CapabilityError, match=r"10,001 blocks.*It would cost \$5,120\.30\. Use "):
        require_affordable_size(10_001, "$5,120.30")
    with pytest.raises(CapabilityError, match="What it would cost is not known"):
        require_affordable_size(10_001, None)
