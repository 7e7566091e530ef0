"""Strength is matched exactly, whatever is drawn and whatever it is matched to."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsgd_controls.matching import SMALLEST_DRAW, clipped_to_rms, rms

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
sizes = st.sampled_from([1, 2, 3, 4, 5, 64, 1000])
dtypes = st.sampled_from([torch.float32, torch.float64])


def strength(m: int, target: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full((m,), target, dtype=dtype)


def exact_rms(s: torch.Tensor) -> float:
    return math.sqrt(math.fsum(x * x for x in s.tolist()) / s.numel())


@settings(max_examples=200)
@given(m=sizes, dtype=dtypes, target=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_the_rms_is_the_target_and_no_entry_leaves_the_interval(m, dtype, target, seed):
    z = torch.randn(m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    s = clipped_to_rms(z, strength(m, target, dtype))
    assert s.dtype == dtype
    assert s.shape == (m,)
    assert s.abs().max() <= 1
    assert exact_rms(s) == pytest.approx(target, abs=TOLERANCE[dtype])


@settings(max_examples=100)
@given(
    draws=st.lists(st.floats(-10, 10), min_size=1, max_size=8), target=st.floats(0, 1), dtype=dtypes
)
def test_ties_zeros_and_extreme_draws_are_matched_too(draws, target, dtype):
    z = torch.tensor(draws, dtype=torch.float64)
    s = clipped_to_rms(z, strength(len(draws), target, dtype))
    assert s.abs().max() <= 1
    assert exact_rms(s) == pytest.approx(target, abs=TOLERANCE[dtype])


@settings(max_examples=50)
@given(m=sizes, target=st.floats(0.01, 1), seed=st.integers(0, 2**32))
def test_the_answer_is_the_draws_scaled_and_clipped_and_nothing_else(m, target, seed):
    z = torch.randn(m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z = z.sign() * z.abs().clamp(min=SMALLEST_DRAW)  # nearer ones are moved out, by definition
    s = clipped_to_rms(z, strength(m, target, torch.float64))
    inside = s.abs() < 1
    c = (s / z)[inside]
    if len(c):
        assert (c / c[0] - 1).abs().max() < 1e-9
        assert bool((c[0] * z[~inside].abs() >= 1 - 1e-9).all())
    assert torch.equal(s.sign(), z.sign())


def test_a_strength_of_zero_gives_zeros_and_a_strength_of_one_gives_signs():
    z = torch.tensor([0.5, -2.0, SMALLEST_DRAW / 4], dtype=torch.float64)
    assert torch.equal(clipped_to_rms(z, torch.zeros(3)), torch.zeros(3))
    assert torch.equal(clipped_to_rms(z, torch.ones(3)), torch.tensor([1.0, -1.0, 1.0]))


def test_a_target_that_rounding_put_above_one_counts_as_one():
    s = clipped_to_rms(torch.tensor([0.1, -0.2]).double(), strength(2, 1.0000001))
    assert torch.equal(s, torch.tensor([1.0, -1.0]))


def test_a_target_that_is_not_a_number_stays_visible():
    s = clipped_to_rms(torch.tensor([0.1, -0.2]).double(), strength(2, math.nan))
    assert bool(s.isnan().all())


def test_rms_is_the_root_of_the_mean_square():
    assert float(rms(torch.tensor([3.0, 4.0]))) == pytest.approx(math.sqrt(12.5))
