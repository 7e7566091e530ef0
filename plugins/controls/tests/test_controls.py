"""Each control has the law that its docstring states."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsgd_controls.controls import (
    Frozen,
    Gaussian,
    MatchedControl,
    Permuted,
    Rademacher,
    Uniform,
)
from qsgd_controls.options import ControlOptions
from qsgd_core.errors import ConfigError

ALL = [Rademacher, Uniform, Gaussian, Permuted, Frozen]
FRESH = [Rademacher, Uniform, Gaussian, Permuted]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
M = 20_000


def draw(kind, reference, *, step=0, name="layer.weight", seed=0) -> torch.Tensor:
    theta = torch.zeros_like(reference)
    control = kind(2)
    return control.modulation(theta, theta, step=step, name=name, seed=seed, reference=reference)


def sines(m: int, *, spread: float = 0.1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What the sine gives for weights of that spread."""
    theta = torch.randn(m, generator=torch.Generator().manual_seed(7), dtype=dtype)
    return torch.sin(math.pi * spread * theta)


def exact_rms(s: torch.Tensor) -> float:
    return math.sqrt(math.fsum(x * x for x in s.tolist()) / s.numel())


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=60)
@given(
    reference=st.lists(st.floats(-1, 1), min_size=1, max_size=40),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    step=st.integers(0, 10**6),
    seed=st.integers(0, 2**63 - 1),
)
def test_the_rms_is_the_references_and_entries_stay_in_the_interval(
    kind, reference, dtype, step, seed
):
    reference = torch.tensor(reference, dtype=dtype)
    s = draw(kind, reference, step=step, seed=seed)
    assert s.shape == reference.shape
    assert s.dtype == dtype
    assert s.abs().max() <= 1
    assert exact_rms(s) == pytest.approx(exact_rms(reference), abs=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ALL)
def test_the_rms_is_matched_for_a_large_tensor(kind, dtype):
    for spread in (0.001, 0.1, 1.0):
        reference = sines(M, spread=spread, dtype=dtype)
        error = exact_rms(draw(kind, reference)) - exact_rms(reference)
        assert abs(error) <= TOLERANCE[dtype]


@pytest.mark.parametrize("kind", ALL)
def test_no_coordinates_give_no_modulation(kind):
    s = draw(kind, torch.empty(0, dtype=torch.float64))
    assert s.shape == (0,)
    assert s.dtype == torch.float64


@pytest.mark.parametrize("kind", [Rademacher, Uniform, Gaussian, Frozen])
def test_a_single_coordinate_keeps_its_size_and_gets_either_sign(kind):
    found = {
        round(float(draw(kind, torch.tensor([0.25]), step=step, name=f"p{step}")), 6)
        for step in range(40)  # all of one sign: probability 2 · 2^-40
    }
    assert found == {0.25, -0.25}


@pytest.mark.parametrize("kind", ALL)
def test_a_reference_of_zeros_gives_zeros(kind):
    assert torch.equal(draw(kind, torch.zeros(5)).abs(), torch.zeros(5))


@pytest.mark.parametrize("kind", ALL)
def test_a_reference_of_signs_gives_signs(kind):
    s = draw(kind, torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0]))
    assert s.abs().tolist() == pytest.approx([1.0] * 5, abs=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_the_same_inputs_give_the_same_bits_whatever_the_global_generators_do(kind):
    reference = sines(100)
    torch.manual_seed(1)
    first = draw(kind, reference, step=3, seed=5)
    torch.manual_seed(2)
    np.random.seed(3)
    random.seed(4)
    before = torch.get_rng_state()
    assert torch.equal(draw(kind, reference, step=3, seed=5), first)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ALL)
def test_float32_and_float64_see_the_same_draws(kind):
    reference = sines(1000, dtype=torch.float64)
    difference = draw(kind, reference.float()).double() - draw(kind, reference)
    assert difference.abs().max() < 1e-6


@pytest.mark.parametrize("change", [{"step": 1}, {"name": "layer.bias"}, {"seed": 1}])
@pytest.mark.parametrize("kind", FRESH)
def test_another_step_name_or_seed_gives_an_independent_draw(kind, change):
    # For independent draws of mean 0 the correlation has standard deviation 1/√m.
    reference = sines(M)
    reference = reference - reference.mean()
    pair = torch.stack([draw(kind, reference), draw(kind, reference, **change)])
    assert abs(float(torch.corrcoef(pair)[0, 1])) < 5 / math.sqrt(M)


@pytest.mark.parametrize("change", [{"name": "layer.bias"}, {"seed": 1}])
def test_frozen_differs_between_names_and_seeds(change):
    reference = sines(M)
    pair = torch.stack([draw(Frozen, reference), draw(Frozen, reference, **change)])
    assert abs(float(torch.corrcoef(pair)[0, 1])) < 5 / math.sqrt(M)


def test_frozen_keeps_its_direction_and_follows_the_strength():
    weak, strong = sines(50, spread=0.01), sines(50, spread=0.1)
    first, later = draw(Frozen, weak, step=0), draw(Frozen, strong, step=1)
    assert first.abs().max() < 1
    assert later.abs().max() < 1
    torch.testing.assert_close(first / exact_rms(weak), later / exact_rms(strong))
    assert torch.equal(first, draw(Frozen, weak, step=9))


@pytest.mark.parametrize("kind", [Rademacher, Uniform, Gaussian, Frozen])
def test_the_mean_is_zero(kind):
    # Signs are symmetric and the RMS is exactly r, so each sum of m entries has variance m·r².
    reference = sines(M) + 0.2
    r = exact_rms(reference)
    assert abs(float(draw(kind, reference).double().mean())) < 5 * r / math.sqrt(M)


@pytest.mark.parametrize("kind", [Rademacher, Uniform, Gaussian, Frozen])
def test_a_control_knows_nothing_of_the_reference_but_its_strength(kind):
    reference = sines(M)
    pair = torch.stack([draw(kind, reference), reference])
    assert abs(float(torch.corrcoef(pair)[0, 1])) < 5 / math.sqrt(M)
    s, shuffled = draw(kind, reference), draw(kind, -reference.flip(0))
    torch.testing.assert_close(s, shuffled)


@pytest.mark.parametrize(
    "kind, mean, variance",
    [
        (Rademacher, 1.0, 0.0),
        (Uniform, math.sqrt(3) / 2, 1 / 4),
        (Frozen, math.sqrt(3) / 2, 1 / 4),
        (Gaussian, math.sqrt(2 / math.pi), 1 - 2 / math.pi),
    ],
)
def test_the_mean_size_tells_the_laws_apart(kind, mean, variance):
    # |s|/r has this mean and variance; dividing by the sample's own RMS only narrows it. 5 sigma.
    reference = sines(M, dtype=torch.float64)
    found = float(draw(kind, reference).abs().mean()) / exact_rms(reference)
    assert found == pytest.approx(mean, abs=5 * math.sqrt(variance / M) + 1e-12)


def test_a_gaussian_too_strong_for_the_interval_is_clipped_to_its_ends():
    reference = torch.full((M,), 0.8, dtype=torch.float64)
    s = draw(Gaussian, reference)
    at_the_ends = float((s.abs() == 1).double().mean())
    assert 0.3 < at_the_ends < 0.7
    assert exact_rms(s) == pytest.approx(0.8, abs=1e-12)


@pytest.mark.parametrize("kind", ALL)
def test_nothing_is_read_back_from_the_device(kind):
    # A meta tensor has no values: whatever would synchronise a GPU raises here.
    s = draw(kind, torch.empty(7, device="meta"))
    assert (s.device.type, s.shape, s.dtype) == ("meta", (7,), torch.float32)


def test_permuted_has_the_references_values():
    reference = sines(500)
    s = draw(Permuted, reference)
    assert not torch.equal(s, reference)
    assert torch.equal(s.sort().values, reference.sort().values)


def test_permuted_puts_every_value_in_every_place_equally_often():
    # 24 orders of 4 values in 4,800 steps: chi-squared with 23 degrees of freedom has mean 23 and
    # standard deviation √46; 23 + 6·√46 leaves a false alarm of under 1e-5.
    reference = torch.tensor([0.1, 0.2, 0.3, 0.4])
    n_steps = 4_800
    counts: dict[tuple[float, ...], int] = {}
    for step in range(n_steps):
        order = tuple(draw(Permuted, reference, step=step).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    expected = n_steps / 24
    chi_squared = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi_squared < 23 + 6 * math.sqrt(46)


@pytest.mark.parametrize("kind", ALL)
def test_a_missing_reference_is_refused_with_what_is_needed(kind):
    theta = torch.zeros(3)
    with pytest.raises(ConfigError, match=r"'sine'.*'w'.*handed nothing.*shape \(3,\)"):
        kind(2).modulation(theta, theta, step=0, name="w", seed=0, reference=None)


def test_a_reference_of_another_shape_is_refused():
    theta = torch.zeros(3)
    with pytest.raises(ConfigError, match=r"tensor of shape \(2,\)"):
        Uniform(2).modulation(theta, theta, step=0, name="w", seed=0, reference=torch.zeros(2))


@pytest.mark.parametrize("kind", ALL)
def test_a_control_matches_the_sine_unless_told_otherwise(kind):
    assert kind(2).match == "sine"
    assert kind(2, ControlOptions()).match == "sine"
    assert kind(2, ControlOptions(match="circuit")).match == "circuit"
    assert issubclass(kind, MatchedControl)
