"""The filter against simulated devices whose noise is known, and its arithmetic by itself."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import CapabilityError, ConfigError
from qsgd_core.schedule.twin import kalman, models
from qsgd_core.schedule.twin.clusters import belief_of
from qsgd_core.schedule.twin.estimate import Estimate, Group, Nominal
from qsgd_core.schedule.twin.prior import TYPICAL
from qsgd_core.schedule.twin.tracking import MODEL_FLOOR, Tracker
from qsgd_core.schedule.twin.twin import Twin
from qsgd_core.simulate import noise

VENDOR = Nominal(0.010, 0.012, 0.024)
START = Estimate(0, "simulated", VENDOR)
TYPICAL_START = Estimate(0, "typical", TYPICAL)
HOUR = 3600.0


class Device:
    """Sites with known noise; answers with shot noise of independent readings."""

    def __init__(self, n_sites, seed):
        self.rng = np.random.default_rng(seed)
        self.n_sites = n_sites
        self.recalibrate()

    def recalibrate(self):
        spread = [0.03, 0.01, 0.004, 0.006, 0.006]
        centre = [0.0, 0.0, VENDOR.depolarising, VENDOR.e01, VENDOR.e10]
        self.noise = centre + spread * self.rng.normal(size=(self.n_sites, 5))
        self.noise[:, 2:] = np.maximum(self.noise[:, 2:], 0)

    def exact(self, work, sites=None):
        values = []
        for i, batch in enumerate(work.batches):
            where = np.arange(batch.circuit.n_qubits) if sites is None else sites[i]
            model = noise.compiled(batch.circuit, batch.observables)
            values.append(model(batch.angles, self.noise[where]))
        return values

    def measure(self, work, shots, sites=None):
        return [
            1 - 2 * self.rng.binomial(shots, np.clip((1 - z) / 2, 0, 1)) / shots
            for z in self.exact(work, sites)
        ]


def workload(n=4, rows=29, seed=0, entangler="ring"):
    angles = np.random.default_rng(seed).uniform(-2, 2, size=(rows, n))
    return Workload((CircuitBatch(ansatz(n, 2, entangler), angles),))


def rms(a, b):
    return float(np.sqrt(np.mean([np.mean((x - y) ** 2) for x, y in zip(a, b, strict=True)])))


def state_of(estimate, site, kind="channel"):
    count = models.COUNT[kind]
    for group in estimate.groups:
        if group.kind == kind and site in group.sites:
            start = group.sites.index(site) * count
            return np.array(group.mean[start : start + count])
    return None


# --- it learns ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shots, least_gain", [(256, 1.5), (1024, 2.5)])
def test_a_few_results_bring_the_twin_closer_to_the_device(shots, least_gain):
    gains = []
    for seed in range(4):
        device, tracker = Device(4, seed), Tracker(START)
        for hour in range(6):
            work = workload(seed=hour)
            tracker.learn(work, device.measure(work, shots), shots=shots, at=hour * HOUR)
        new = workload(seed=99)
        before, after = (Twin(e).predict(new) for e in (START, tracker.estimate))
        gains.append(rms(before, device.exact(new)) / rms(after, device.exact(new)))
    assert np.mean(gains) > least_gain, gains


def test_the_variance_it_states_is_the_error_it_makes():
    # 20 devices, 29 rows, 4 qubits: the errors of one device hang together by its 20 parameters,
    # so the mean of 20 squared errors in units of their variance is 1 with a sigma near
    # sqrt(2 / (20·20)) = 0.07; the sixth result is predicted from five.
    ratios = []
    for seed in range(20):
        device, tracker = Device(4, 100 + seed), Tracker(START)
        for hour in range(6):
            work = workload(seed=10 * seed + hour)
            lesson = tracker.learn(work, device.measure(work, 1024), shots=1024, at=hour * HOUR)
        error = lesson.predicted[0] - device.exact(work)[0]
        ratios.append(np.mean(error**2) / np.mean(lesson.variance[0]))
    # The filter allows for drift that this device has not, hence the wide lower side.
    assert 0.5 < np.mean(ratios) < 1.35


def test_innovations_have_the_size_that_is_expected():
    found = []
    for seed in range(10):
        device, tracker = Device(4, 200 + seed), Tracker(START)
        for hour in range(5):
            work = workload(seed=10 * seed + hour)
            lesson = tracker.learn(work, device.measure(work, 1024), shots=1024, at=hour * HOUR)
            found.append(lesson.nis)
    # 50 results of 116 values, of which 16 correlated directions dominate the first: sigma of the
    # mean is about 0.03.
    assert 0.85 < np.mean(found) < 1.1


def test_a_gain_is_never_one_however_many_shots():
    work = workload(rows=1)
    predicted = Twin(START).predict(work)
    measured = [z + 0.01 for z in predicted]
    tracker = Tracker(START)
    tracker.learn(work, measured, shots=10**9, at=0.0)
    moved = Twin(tracker.estimate).predict(work)
    assert 0 < np.mean(moved[0] - predicted[0]) < 0.01


def test_lessons_say_what_was_predicted_before_learning():
    device, tracker = Device(4, 1), Tracker(START)
    work = workload()
    expected = Twin(START).predict(work)
    lesson = tracker.learn(work, device.measure(work, 100), shots=100, at=0.0)
    np.testing.assert_allclose(lesson.predicted[0], expected[0], atol=1e-12)
    assert (lesson.n_rows, lesson.alarm) == (29, False)
    assert lesson.variance[0].shape == (29, 4)
    assert tracker.estimate.version == 1


def test_the_same_lessons_give_the_same_bits_and_a_stored_estimate_goes_on_alike():
    device = Device(4, 5)
    lessons = [(w, device.measure(w, 300)) for w in (workload(seed=s) for s in range(4))]
    ends = []
    for stored in (False, True):
        tracker = Tracker(START)
        for hour, (work, z) in enumerate(lessons):
            tracker.learn(work, z, shots=300, at=hour * HOUR)
            if stored:
                tracker = Tracker(Estimate.from_json(tracker.estimate.to_json()))
        ends.append(tracker.estimate.to_json())
    assert ends[0] == ends[1]


def test_a_rate_of_zero_can_rise_again():
    low = Group(
        "channel", (0,), (0.0, 0.0, 0.0, -4.0, 0.0), tuple(np.eye(5)[np.tril_indices(5)]), 0.0
    )
    tracker = Tracker(replace(START, groups=(low,)))
    work = Workload((CircuitBatch(ansatz(1, 1), np.linspace(-2, 2, 40)[:, None]),))
    values = np.array([[0.0, 0.0, 0.0, 0.02, VENDOR.e10]])
    z = noise.compiled(work.batches[0].circuit, ((0,),))(work.batches[0].angles, values)
    for hour in range(4):
        tracker.learn(work, [z], shots=10_000, at=hour * HOUR)
    assert rms(Twin(tracker.estimate).predict(work), [z]) < 0.003


# --- recalibration --------------------------------------------------------------------------------


def alarms_after(change, seeds, shots=1024):
    found = 0
    for seed in seeds:
        device, tracker = Device(4, seed), Tracker(START)
        for hour in range(6):
            if hour == 5 and change:
                device.recalibrate()
            work = workload(seed=seed * 10 + hour)
            lesson = tracker.learn(work, device.measure(work, shots), shots=shots, at=hour * HOUR)
            found += lesson.alarm
    return found


def test_a_recalibration_is_noticed_at_the_first_result_after_it():
    assert alarms_after(True, range(300, 310)) >= 9


def test_a_steady_device_raises_no_alarm():
    # 60 results; of 928 simulated ones none was false.
    assert alarms_after(False, range(400, 410)) == 0


def alarms_without_noise(seed, shots, depth, ends_at=None):
    """Of 8 results of a device without noise; the last is of one that has some, if asked for."""
    rng = np.random.default_rng(seed)
    angles = 0.5 * rng.normal(size=(29, 4))
    tracker, alarms = Tracker(TYPICAL_START), []
    for hour in range(8):
        angles = angles + 0.05 * rng.normal(size=angles.shape)
        batch = CircuitBatch(ansatz(4, depth, "ring"), angles)
        device = Device(4, seed)
        device.noise[:] = 0.0 if hour < 7 or ends_at is None else ends_at
        device.rng = rng
        work = Workload((batch,))
        lesson = tracker.learn(work, device.measure(work, shots), shots=shots, at=hour * HOUR)
        alarms.append(lesson.alarm)
    return alarms, tracker.estimate


@pytest.mark.parametrize("shots, depth", [(1024, 2), (4096, 4), (4096, 8), (16384, 8)])
def test_a_device_without_noise_was_not_recalibrated(shots, depth):
    for seed in range(6):
        alarms, estimate = alarms_without_noise(seed, shots, depth)
        assert not any(alarms), (seed, alarms)
        mean = np.reshape(estimate.groups[0].mean, (4, 5))
        rates = np.array([TYPICAL.depolarising, TYPICAL.e01, TYPICAL.e10])
        rates = rates + mean[:, 2:] * [0.004, 0.006, 0.006]
        assert rates.min() > -1e-12


def test_the_first_result_is_no_recalibration_however_wrong_the_vendor_is():
    wrong = replace(START, typical=Nominal(0.03, 0.05, 0.06))
    for tiles in (1, 6):
        device, tracker, sites = Device(24, 0), Tracker(wrong), tiled(29, tiles)
        device.noise[:] = 0.0
        work = workload()
        z = device.measure(work, 4096, sites)
        lesson = tracker.learn(work, z, shots=4096, at=0.0, sites=sites)
        assert lesson.nis > 2
        assert not lesson.alarm


def test_a_device_that_loses_its_perfection_was_recalibrated():
    for seed in range(6):
        ends_at = [0.03, 0.01, VENDOR.depolarising, VENDOR.e01, VENDOR.e10]
        alarms, _ = alarms_without_noise(seed, 4096, 4, ends_at)
        assert alarms == [False] * 7 + [True]


def test_an_alarm_learns_the_new_calibration_from_the_same_rows():
    device, tracker = Device(4, 7), Tracker(START)
    for hour in range(6):
        work = workload(seed=hour)
        tracker.learn(work, device.measure(work, 4096), shots=4096, at=hour * HOUR)
    device.recalibrate()
    work = workload(seed=50)
    lesson = tracker.learn(work, device.measure(work, 4096), shots=4096, at=6 * HOUR)
    assert lesson.alarm
    new = workload(seed=51)
    after = rms(Twin(tracker.estimate).predict(new), device.exact(new))
    assert after < 0.6 * rms(lesson.predicted, device.exact(work))


def recalibrated():
    """A tracker that has just seen a recalibration at hour 6."""
    device, tracker = Device(4, 7), Tracker(START)
    old = workload(seed=60)
    before = device.measure(old, 4096)
    for hour in range(6):
        work = workload(seed=hour)
        tracker.learn(work, device.measure(work, 4096), shots=4096, at=hour * HOUR)
    device.recalibrate()
    work = workload(seed=50)
    assert tracker.learn(work, device.measure(work, 4096), shots=4096, at=6 * HOUR).alarm
    return tracker, old, before


def test_a_result_from_before_a_recalibration_teaches_nothing():
    tracker, old, before = recalibrated()
    known = tracker.estimate
    lesson = tracker.learn(old, before, shots=4096, at=5.5 * HOUR)
    assert not lesson.alarm
    assert tracker.estimate == replace(known, version=known.version + 1)


# --- time -----------------------------------------------------------------------------------------


def test_a_late_result_teaches_and_teaches_less():
    device = Device(4, 3)
    first, second = workload(seed=1), workload(seed=2)
    z1, z2 = device.measure(first, 1024), device.measure(second, 1024)
    uncertain = {}
    for name, at in [("fresh", 20 * HOUR), ("late", 0.0)]:
        tracker = Tracker(START)
        tracker.learn(second, z2, shots=1024, at=20 * HOUR)
        before = np.trace(belief_of(tracker.estimate.groups[0]).covariance)
        tracker.learn(first, z1, shots=1024, at=at)
        after = np.trace(belief_of(tracker.estimate.groups[0]).covariance)
        assert tracker.estimate.groups[0].at == 20 * HOUR
        uncertain[name] = after / before
    assert uncertain["fresh"] < uncertain["late"] < 1


def test_what_was_learned_fades_to_the_vendor_s_figures_and_never_further():
    device, tracker = Device(4, 8), Tracker(START)
    work = workload()
    tracker.learn(work, device.measure(work, 1024), shots=1024, at=0.0)
    belief = belief_of(tracker.estimate.groups[0])
    much_later = kalman.aged(belief, 100 * kalman.WALK_S)
    np.testing.assert_allclose(much_later.covariance, np.eye(20), atol=1e-12)
    np.testing.assert_allclose(much_later.mean, 0, atol=1e-12)
    soon = kalman.aged(belief, 60.0).covariance - belief.covariance
    rate = 60.0 / kalman.WALK_S
    np.testing.assert_allclose(soon, rate * (np.eye(20) - belief.covariance), rtol=1e-3, atol=1e-12)


# --- sites ----------------------------------------------------------------------------------------


def tiled(rows, tiles, n=4):
    return [(np.arange(rows) % tiles)[:, None] * n + np.arange(n)]


def test_tiles_are_learned_apart_and_as_if_each_were_alone():
    device, sites = Device(8, 2), tiled(28, 2)
    work = workload(rows=28)
    z = device.measure(work, 512, sites)
    together = Tracker(START)
    together.learn(work, z, shots=512, at=0.0, sites=sites)
    assert [group.sites for group in together.estimate.groups] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    for tile in (0, 1):
        alone = Tracker(START)
        batch = CircuitBatch(work.batches[0].circuit, work.batches[0].angles[tile::2])
        alone.learn(
            Workload((batch,)), [z[0][tile::2]], shots=512, at=0.0, sites=[sites[0][tile::2]]
        )
        found, expected = together.estimate.groups[tile], alone.estimate.groups[0]
        np.testing.assert_allclose(found.mean, expected.mean, atol=1e-9)


def test_a_circuit_across_two_groups_joins_them():
    device, tracker = Device(4, 2), Tracker(START)
    apart = workload(n=2, rows=20, entangler="chain")
    sites = [(np.arange(20) % 2)[:, None] * 2 + np.arange(2)]
    tracker.learn(apart, device.measure(apart, 512, sites), shots=512, at=0.0, sites=sites)
    known = np.concatenate([group.mean for group in tracker.estimate.groups])
    across = workload(n=2, rows=1, entangler="chain")
    bridge = [np.array([[3, 1]])]
    tracker.learn(across, device.measure(across, 1, bridge), shots=1, at=0.0, sites=bridge)
    (group,) = tracker.estimate.groups
    assert group.sites == (0, 1, 2, 3)
    # One shot moves little: what was known has stayed with its site.
    np.testing.assert_allclose(group.mean, known, atol=0.3)


def test_fewer_sites_than_a_group_has_teach_the_whole_group():
    device, tracker = Device(4, 2), Tracker(START)
    wide, narrow = workload(n=4, rows=9), workload(n=2, rows=9)
    tracker.learn(wide, device.measure(wide, 512), shots=512, at=0.0)
    tracker.learn(narrow, device.measure(narrow, 512), shots=512, at=HOUR)
    assert [group.sites for group in tracker.estimate.groups] == [(0, 1, 2, 3)]


def test_another_tile_s_group_is_left_alone():
    device, tracker = Device(8, 2), Tracker(START)
    work = workload(rows=6)
    for tile in (0, 1):
        sites = [tiled(6, 1)[0] + 4 * tile]
        z = device.measure(work, 512, sites)
        tracker.learn(work, z, shots=512, at=tile * HOUR, sites=sites)
        if tile == 0:
            (first,) = tracker.estimate.groups
    assert tracker.estimate.groups[0] == first


def test_a_recalibration_seen_by_few_rows_of_many_tiles_is_noticed_together():
    found = 0
    for seed in range(8):
        device, tracker = Device(24, seed), Tracker(START)
        sites = tiled(29, 6)
        for hour in range(10):
            if hour == 9:
                device.recalibrate()
            work = workload(rows=29, seed=100 * seed + hour)
            z = device.measure(work, 4096, sites)
            lesson = tracker.learn(work, z, shots=4096, at=hour * HOUR, sites=sites)
            found += lesson.alarm * (1 if hour == 9 else -10)
    assert found == 8


def test_a_site_on_another_physical_qubit_starts_afresh():
    device, tracker = Device(2, 4), Tracker(replace(START, physical={0: 10, 1: 11}))
    single = Workload((CircuitBatch(ansatz(1, 1), np.linspace(-2, 2, 20)[:, None]),))
    sites = [np.array([[0], [1]] * 10)]
    z = device.measure(single, 4096, sites)
    tracker.learn(single, z, shots=4096, at=0.0, sites=sites, physical=(10, 11))
    kept = state_of(tracker.estimate, 0)
    alone = Workload((CircuitBatch(ansatz(1, 1), np.zeros((1, 1))),))
    tracker.learn(
        alone,
        Twin(START).predict(alone),
        shots=1,
        at=0.0,
        sites=[np.array([[1]])],
        physical=(10, 12),
    )
    assert tracker.estimate.physical == {0: 10, 1: 12}
    np.testing.assert_array_equal(state_of(tracker.estimate, 0), kept)
    assert np.abs(state_of(tracker.estimate, 1)).max() < 0.05


def test_a_site_that_moves_takes_the_vendor_s_figures_of_its_new_qubit():
    other = Nominal(0.03, 0.05, 0.06)
    start = replace(START, nominal={0: VENDOR, 1: other}, physical={0: 10, 1: 11})
    tracker = Tracker(start)
    work = workload(n=2, rows=2)
    tracker.learn(work, Twin(start).predict(work), shots=9, at=0.0, physical=(11, 77))
    assert tracker.estimate.nominal == {0: other, 1: VENDOR}
    assert tracker.estimate.physical == {0: 11, 1: 77}


def test_a_late_result_from_a_qubit_that_was_given_up_teaches_nothing():
    tracker = Tracker(START)
    work = workload()
    z = Twin(START).predict(work)
    tracker.learn(work, z, shots=100, at=10.0, physical=(5, 6, 7, 8))
    known = tracker.estimate
    tracker.learn(work, z, shots=100, at=5.0, physical=(1, 6, 7, 8))
    assert tracker.estimate == replace(known, version=2)


# --- wide blocks ----------------------------------------------------------------------------------


def test_a_wide_block_learns_each_qubit_s_scale_and_bias():
    from qsgd_core.simulate.ideal import ideal

    rng = np.random.default_rng(0)
    scale, bias = 0.9 + 0.03 * rng.normal(size=9), 0.012 + 0.01 * rng.normal(size=9)
    tracker = Tracker(START)
    for hour in range(5):
        work = workload(n=9, entangler="chain", seed=hour)
        batch = work.batches[0]
        exact = bias + scale * ideal(batch.circuit, batch.angles, batch.observables)
        z = 1 - 2 * rng.binomial(1024, (1 - exact) / 2) / 1024
        lesson = tracker.learn(work, [z], shots=1024, at=hour * HOUR)
    assert rms(lesson.predicted, [exact]) < 0.5 * rms(Twin(START).predict(work), [exact])
    assert [group.sites for group in tracker.estimate.groups] == [(site,) for site in range(9)]


def test_wide_and_narrow_blocks_of_one_result_are_learned_side_by_side():
    work = Workload((workload(n=3).batches[0], workload(n=7, entangler="chain").batches[0]))
    tracker = Tracker(START)
    lesson = tracker.learn(work, Twin(START).predict(work), shots=100, at=0.0)
    kinds = {(group.kind, group.sites) for group in tracker.estimate.groups}
    assert kinds == {("channel", (0, 1, 2)), *((("affine", (site,))) for site in range(7))}
    assert [v.min() > 0 for v in lesson.variance] == [True, True]


@pytest.mark.parametrize("n, entangler", [(3, "ring"), (8, "chain")])
def test_the_slope_is_the_difference_of_two_predictions(n, entangler):
    angles = np.random.default_rng(0).normal(size=(4, n))
    batch = CircuitBatch(ansatz(n, 2, entangler), angles, ((0,), (1, 2), (n - 1,)))
    kind = models.kind_of(batch.circuit)
    sites = np.tile(np.arange(n), (4, 1))
    table = models.SiteTable.of(START, n)
    table.state[kind][:] = 0.3 * np.random.default_rng(1).normal(size=(n, models.COUNT[kind]))
    line = models.linearise(batch, sites, table)
    for site in range(n):
        for k in range(models.COUNT[kind]):
            ends = []
            for step in (-0.5e-3, 0.5e-3):
                moved = models.SiteTable(table.nominal, {kind: table.state[kind].copy()})
                moved.state[kind][site, k] += step
                ends.append(models.predict(batch, sites, moved))
            for o in range(3):
                at = (line.qubits[o] == site) & (np.abs(line.slope[:, o, :, k]).max(axis=0) > 0)
                slope = line.slope[:, o, at, k].sum(axis=1)
                expected = (ends[1][:, o] - ends[0][:, o]) / 1e-3
                np.testing.assert_allclose(slope, expected, atol=2e-6)


# --- the arithmetic -------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.sampled_from(["learn", "age", "reset", "again"]), min_size=1, max_size=25),
    st.floats(-9, 2),
)
def test_the_covariance_stays_symmetric_and_positive_definite(seed, events, scale):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 25))
    belief = kalman.prior(size)
    slope = rng.normal(size=(int(rng.integers(1, 60)), size)) * 10.0**scale
    for event in events:
        if event == "age":
            belief = kalman.aged(belief, 10 ** rng.uniform(-3, 8))
        elif event == "reset":
            belief = kalman.reset(belief)
        else:
            if event == "learn":
                slope = rng.normal(size=slope.shape) * 10.0 ** rng.uniform(-3, 1)
            variance = np.full(len(slope), MODEL_FLOOR)
            belief = kalman.learn(belief, slope, variance, rng.normal(size=len(slope))).belief
        np.testing.assert_array_equal(belief.covariance, belief.covariance.T)
        assert np.linalg.eigvalsh(belief.covariance).min() > 0
        np.linalg.cholesky(belief.covariance)


def test_the_update_is_the_textbook_s():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    belief = kalman.Belief(rng.normal(size=3), root @ root.T + np.eye(3))
    slope, variance = rng.normal(size=(5, 3)), rng.uniform(0.1, 1, 5)
    innovation = rng.normal(size=5)
    p = belief.covariance
    s = slope @ p @ slope.T + np.diag(variance)
    gain = p @ slope.T @ np.linalg.inv(s)
    found = kalman.learn(belief, slope, variance, innovation)
    np.testing.assert_allclose(found.belief.mean, belief.mean + gain @ innovation, atol=1e-12)
    np.testing.assert_allclose(found.belief.covariance, p - gain @ slope @ p, atol=1e-12)
    np.testing.assert_allclose(found.spread, np.diag(slope @ p @ slope.T), atol=1e-12)
    log_density = -0.5 * (innovation @ np.linalg.solve(s, innovation) + np.linalg.slogdet(s)[1])
    own = -0.5 * float(np.log(variance).sum())
    assert found.log_likelihood + own == pytest.approx(log_density, abs=1e-10)
    assert math.isfinite(found.log_likelihood)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
@example(57215)
@example(2865)
def test_a_belief_within_limits_is_the_nearest_that_is_possible(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 25))
    root = np.tril(rng.normal(size=(size, size))) + 2 * np.eye(size)
    belief = kalman.Belief(3 * rng.normal(size=size), root @ root.T)
    least = np.where(rng.random(size) < 0.5, -np.inf, -rng.random(size))
    most = np.where(rng.random(size) < 0.5, np.inf, rng.random(size))
    found = kalman.within(belief, least, most)
    assert (least <= found.mean).all()
    assert (found.mean <= most).all()
    np.testing.assert_array_equal(found.covariance, belief.covariance)
    # Karush-Kuhn-Tucker: downhill leads out of what is possible, or nowhere.
    uphill = np.linalg.solve(belief.covariance, found.mean - belief.mean)
    at_least, at_most = found.mean < least + 1e-9, found.mean > most - 1e-9
    # Rounding is of the size of what is multiplied: covariances may be all but singular.
    size_of = np.linalg.norm(np.linalg.inv(belief.covariance), 2)
    nothing = 1e-12 * max(size_of * float(np.linalg.norm(found.mean - belief.mean)), 1.0)
    np.testing.assert_allclose(uphill[~(at_least | at_most)], 0.0, atol=nothing)
    assert (uphill[at_least] > -nothing).all()
    assert (uphill[at_most] < nothing).all()


# --- bad input ------------------------------------------------------------------------------------


def test_shapes_and_shots_that_do_not_fit_are_refused():
    tracker, work = Tracker(START), workload()
    z = Twin(START).predict(work)
    with pytest.raises(ConfigError, match=r"shapes \[\(29, 4\)\]; found \[\(28, 4\)\]"):
        tracker.learn(work, [z[0][1:]], shots=10, at=0.0)
    with pytest.raises(ConfigError, match="at least 1 shot a row, not 0"):
        tracker.learn(work, z, shots=0, at=0.0)
    with pytest.raises(ConfigError, match=r"needs sites of these shapes; found \[\(29, 3\)\]"):
        tracker.learn(work, z, shots=10, at=0.0, sites=[np.zeros((29, 3), dtype=int)])
    with pytest.raises(CapabilityError, match="No classical twin"):
        tracker.learn(workload(n=15), [np.zeros((29, 15))], shots=10, at=0.0)
    assert tracker.estimate == START
