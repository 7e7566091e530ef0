"""One weight that is infinite or NaN: it is torch's to handle, and nobody else is hit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import qsgd_core as qsgd

BACKENDS: list[dict[str, Any]] = [
    {},
    {"perturbation": "circuit"},
    {"perturbation": "circuit", "perturbation_options": {"phases": "gradient"}},
    {"backend": "sampled", "shots": 64},
    {"perturbation": "circuit", "backend": "sampled", "shots": 64},
    {"perturbation": "uniform"},
    {"perturbation": "permuted"},
    {"every": 2, "backend": "sampled", "shots": 64},
]


def run(bad: float | None, inject: str, normalize: str | None, slope: float, term: Any) -> Any:
    weights = torch.linspace(0.1, 0.9, 12)
    if bad is not None:
        weights[5] = bad
    params = [Parameter(weights.clone()), Parameter(torch.linspace(0.2, 0.4, 4))]
    opt = torch.optim.SGD(params, lr=0.1)
    attachment = qsgd.attach(opt, scope="all", inject=inject, normalize=normalize, seed=0, **term)
    for _ in range(3):
        for p in params:
            p.grad = torch.full_like(p, 0.25)
        params[0].grad[5] = slope
        opt.step()
    return params, attachment.qsgd_stats()


@pytest.mark.parametrize("term", BACKENDS, ids=lambda t: " ".join(map(str, t.values())) or "exact")
@pytest.mark.parametrize("inject", ["update", "gradient"])
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("slope", [0.0, 0.25])
def test_other_blocks_train_as_if_nothing_were_wrong(term, inject, bad, slope):
    ill, stats = run(bad, inject, None, slope, term)
    assert ill[0][5].isnan() if math.isnan(bad) else float(ill[0][5]) == bad
    others = [k for k in range(12) if k != 5]
    assert bool(ill[0][others].isfinite().all())
    assert stats.steps == 3
    assert math.isfinite(stats.effect_size)
    assert stats.effect_size > 0
    # Shots draw for all blocks together; a control is scaled to what its match gives for all.
    if term.get("shots") is None and term.get("perturbation") not in ("permuted", "uniform"):
        well, _ = run(None, inject, None, slope, term)
        outside = [k for k in range(12) if k not in range(4, 8)]  # blocks of four
        torch.testing.assert_close(ill[0][outside], well[0][outside])
        torch.testing.assert_close(ill[1], well[1])


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_term_normalised_to_the_update_stays_finite_beside_it(bad):
    ill, stats = run(bad, "update", "update", 0.25, {})
    others = [k for k in range(12) if k != 5]
    assert bool(ill[0][others].isfinite().all())
    assert stats.effect_size == pytest.approx(0.5, rel=0.2)
