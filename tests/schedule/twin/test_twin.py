"""What the twin predicts from a vendor's figures, and where there is no twin."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import CapabilityError
from qsgd_core.jobs import NoiseSnapshot
from qsgd_core.schedule.twin.estimate import Estimate, Group, Nominal
from qsgd_core.schedule.twin.prior import OFFSET_SD, READOUT_SD, SCALE_SD, TYPICAL
from qsgd_core.schedule.twin.twin import Twin, nominal
from qsgd_core.simulate import ideal
from qsgd_core.simulate.noise import NoisyCircuit, average_gate_error, depolarising_of

PERFECT = Nominal(0.0, 0.0, 0.0)


def workload(n=4, rows=3, entangler="ring", seed=0):
    angles = np.random.default_rng(seed).normal(size=(rows, n)) * 1.5
    return Workload((CircuitBatch(ansatz(n, 2, entangler), angles),))


def channel_group(site, **values):
    mean = [values.get(name, 0.0) for name in ("offset", "gain", "depolarising", "e01", "e10")]
    return Group("channel", (site,), tuple(mean), tuple(np.eye(5)[np.tril_indices(5)]), 0.0)


# --- the vendor's figures -------------------------------------------------------------------------


def test_gate_errors_count_for_the_pairs_that_are_used():
    errors = {(10, 11): 0.01, (12, 11): 0.02, (12, 13): 0.03, (13, 10): 0.5}
    snapshot = NoiseSnapshot("today", (10, 11, 12, 13), ((0.01, 0.02),) * 4, {"cz": errors})
    found = nominal(snapshot, workload(entangler="chain"))
    p = [found.of_site(site).depolarising for site in range(4)]
    one, two, three = (depolarising_of(e) for e in (0.01, 0.02, 0.03))
    assert p == pytest.approx([one, (one + two) / 2, (two + three) / 2, three])
    assert found.of_site(2) == Nominal(p[2], 0.01, 0.02)
    assert (found.stamp, found.version) == ("today", 0)
    assert found.physical == {0: 10, 1: 11, 2: 12, 3: 13}


def test_of_several_gates_on_a_pair_the_best_counts():
    errors = {"rzz": {(0, 1): 0.05}, "cz": {(1, 0): 0.01}, "sx": {(0,): 0.9}}
    snapshot = NoiseSnapshot("s", (0, 1), ((0.0, 0.0),) * 2, errors)
    found = nominal(snapshot, workload(n=2, entangler="chain"))
    assert found.of_site(0).depolarising == depolarising_of(0.01)


def test_a_pair_that_is_not_listed_gets_the_mean_of_its_qubit_s_others_or_a_typical_value():
    snapshot = NoiseSnapshot("s", (5, 6, 7, 8), ((0.0, 0.0),) * 4, {"cz": {(5, 7): 0.02}})
    found = nominal(snapshot, workload(entangler="chain"))
    assert found.of_site(0).depolarising == depolarising_of(0.02)
    assert found.of_site(1).depolarising == TYPICAL.depolarising


def test_tiles_take_the_figures_of_their_own_pairs():
    errors = {(0, 1): 0.01, (2, 3): 0.04, (1, 2): 0.9}
    snapshot = NoiseSnapshot("s", (0, 1, 2, 3), ((0.0, 0.0),) * 4, {"cz": errors})
    tiles = [np.array([[0, 1], [2, 3]])]
    found = nominal(snapshot, workload(n=2, rows=2), tiles)
    p = [found.of_site(site).depolarising for site in range(4)]
    assert p == [depolarising_of(e) for e in (0.01, 0.01, 0.04, 0.04)]


def test_without_figures_typical_ones_stand_in():
    found = nominal(None, workload())
    assert found.stamp == "typical"
    assert found.of_site(99) == TYPICAL
    assert average_gate_error(TYPICAL.depolarising) == pytest.approx(0.0035)


# --- predictions ----------------------------------------------------------------------------------


def test_the_nominal_twin_is_the_circuit_with_the_vendor_s_noise():
    work = workload()
    vendor = Nominal(0.01, 0.012, 0.024)
    (z,) = Twin(Estimate(0, "s", vendor)).predict(work)
    values = np.tile([0.0, 0.0, 0.01, 0.012, 0.024], (4, 1))
    batch = work.batches[0]
    expected = NoisyCircuit(batch.circuit, batch.observables)(batch.angles, values)
    np.testing.assert_allclose(z, expected, atol=1e-12)


def test_a_site_s_state_is_counted_in_prior_spreads():
    group = channel_group(1, offset=2.0, e01=-1.0)
    twin = Twin(Estimate(0, "s", Nominal(0.0, 0.02, 0.03), groups=(group,)))
    work = Workload((CircuitBatch(ansatz(2, 1, "none"), np.array([[0.3, 0.4]])),))
    (z,) = twin.predict(work)
    for qubit, (angle, e01) in enumerate([(0.3, 0.02), (0.4 + 2 * OFFSET_SD, 0.02 - READOUT_SD)]):
        expected = (0.03 - e01) + (1 - e01 - 0.03) * -math.sin(angle)
        assert z[0, qubit] == pytest.approx(expected, abs=1e-12)


def test_rates_are_kept_physical():
    group = channel_group(0, depolarising=-500.0, e01=-500.0, e10=-500.0)
    work = workload(n=1)
    (z,) = Twin(Estimate(0, "s", Nominal(0.01, 0.01, 0.01), groups=(group,))).predict(work)
    (exact,) = Twin(Estimate(0, "s", PERFECT)).predict(work)
    np.testing.assert_allclose(z, exact, atol=1e-12)
    wild = channel_group(0, depolarising=500.0, e01=500.0, e10=500.0)
    (z,) = Twin(Estimate(0, "s", PERFECT, groups=(wild,))).predict(work)
    assert np.abs(z).max() <= 0.1


def test_each_row_has_the_noise_of_its_own_sites():
    group = channel_group(5, offset=3.0)
    twin = Twin(Estimate(0, "s", PERFECT, groups=(group,)))
    work = Workload((CircuitBatch(ansatz(1, 1), np.full((3, 1), 0.2)),))
    (z,) = twin.predict(work, [np.array([[0], [5], [900]])])
    turned = -math.sin(0.2 + 3 * OFFSET_SD)
    np.testing.assert_allclose(z[:, 0], [-math.sin(0.2), turned, -math.sin(0.2)], atol=1e-12)


def test_a_wide_chain_has_the_exact_value_scaled_and_shifted():
    batch = workload(n=9, entangler="none").batches[0]
    exact = ideal.ideal(batch.circuit, batch.angles, batch.observables)
    group = Group("affine", (4,), (0.0, 1.5), (1.0, 0.0, 1.0), 0.0)
    estimate = Estimate(0, "s", Nominal(0.01, 0.02, 0.05), groups=(group,))
    (z,) = Twin(estimate).predict(Workload((batch,)))
    scale = np.full(9, 0.93)
    scale[4] *= 1 + 1.5 * SCALE_SD
    np.testing.assert_allclose(z, 0.03 + scale * exact, atol=1e-12)


def test_the_damping_guessed_for_a_wide_circuit_is_near_the_compiled_one():
    # Where both models can run, they should differ by less than the affine scale's prior spread.
    from qsgd_core.schedule.twin.models import _cone

    work = workload(n=6, rows=200, entangler="chain")
    batch = work.batches[0]
    (noisy,) = Twin(Estimate(0, "s", Nominal(0.01, 0.0, 0.0))).predict(work)
    (exact,) = Twin(Estimate(0, "s", PERFECT)).predict(work)
    _, powers = _cone(batch.circuit, batch.observables)
    guessed = np.exp(np.log1p(-0.01) * powers.sum(axis=1))
    fitted = (noisy * exact).sum(axis=0) / (exact**2).sum(axis=0)
    assert np.abs(guessed / fitted - 1).max() < SCALE_SD


@pytest.mark.parametrize("n, entangler", [(15, "ring"), (300, "chain")])
def test_where_no_twin_is_possible_the_policies_that_need_none_are_named(n, entangler):
    with pytest.raises(CapabilityError, match=r"No classical twin .*'hold' or policy='sync'"):
        Twin(nominal(None, workload(n=2))).predict(workload(n=n, entangler=entangler))


# --- the estimate as data -------------------------------------------------------------------------

numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(numbers, min_size=5, max_size=5), st.one_of(st.none(), numbers), numbers)
def test_json_keeps_an_estimate_to_the_bit(mean, since, at):
    group = Group("channel", (3,), tuple(mean), tuple(mean * 3), at, since)
    estimate = Estimate(7, "stamp", TYPICAL, {3: Nominal(*mean[:3])}, (group,), {3: 120})
    read = Estimate.from_json(estimate.to_json())
    assert read == estimate
    assert struct.pack("<5d", *read.groups[0].mean) == struct.pack("<5d", *mean)
