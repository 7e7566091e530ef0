"""The term under a GradScaler: gradients are scaled, steps are skipped, nothing leaks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

import qsgd_core as qsgd
from qsgd_core.builtin.simulators import SampledSimulator

SCALE = 2.0**10


def make_params() -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(s, generator=generator)) for s in [(3, 4), (2,)]]


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 + step)
    return [torch.randn(p.shape, generator=generator) for p in make_params()]


def make(kind: str, params: list[Parameter], *, fused: bool, **kwargs: Any) -> Any:
    """(optimizer, what has its statistics)."""
    if kind == "qsgd":
        opt = qsgd.QSGD(params, lr=0.05, fused=fused, **kwargs)
        return opt, opt
    opt = torch.optim.AdamW(params, lr=0.05, fused=fused)
    return opt, qsgd.attach(opt, **kwargs)


def scaler() -> torch.amp.GradScaler:
    made = torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=3)
    made.scale(torch.ones(()))  # creates the scale tensor
    return made


both = pytest.mark.parametrize("kind", ["qsgd", "attach"])
routes = pytest.mark.parametrize(
    "route",
    [
        {},
        {"inject": "gradient"},
        {"normalize": "update"},
        {
            "scope": "model",
            "perturbation": "circuit",
            "perturbation_options": {"phases": "gradient"},
        },
    ],
    ids=lambda route: " ".join(route) or "default",
)


@both
@routes
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("unscale_and_clip", [False, True])
def test_scaled_training_is_unscaled_training(kind, route, fused, unscale_and_clip):
    """A power of two scales without rounding, so the weights are equal to the bit."""
    ours, theirs = make_params(), make_params()
    opt, term = make(kind, ours, fused=fused, **route)
    base, other = make(kind, theirs, fused=fused, **route)
    scale = scaler()
    for step in range(8):
        factor = scale.get_scale()
        for p, q, g in zip(ours, theirs, gradients(step), strict=True):
            p.grad, q.grad = g * factor, g.clone()
        if unscale_and_clip:
            scale.unscale_(opt)
            torch.nn.utils.clip_grad_norm_(ours, 0.5)
            torch.nn.utils.clip_grad_norm_(theirs, 0.5)
        scale.step(opt)
        scale.update()
        base.step()
        assert all(torch.equal(p.grad, q.grad) for p, q in zip(ours, theirs, strict=True))
    assert scale.get_scale() > SCALE
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert term.qsgd_stats() == other.qsgd_stats()


@both
@routes
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_a_step_with_infinite_gradients_changes_no_weight_and_no_gradient(kind, route, fused, bad):
    params = make_params()
    opt, term = make(kind, params, fused=fused, **route)
    before = [p.detach().clone() for p in params]
    for p, g in zip(params, gradients(0), strict=True):
        p.grad = g * SCALE
    params[0].grad[0, 1] = bad
    kept = [p.grad.clone() for p in params]
    scale = scaler()
    scale.step(opt)
    scale.update()
    assert scale.get_scale() == SCALE / 2
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    for p, g in zip(params, kept, strict=True):
        factor = 1.0 if fused else 1 / SCALE  # torch unscales before it looks, unless fused
        torch.testing.assert_close(p.grad, g * factor, rtol=0, atol=0, equal_nan=True)
    stats = term.qsgd_stats()
    assert stats.effect_size == stats.effect_size_mean == 0.0


@both
@pytest.mark.parametrize("backend", ["exact", "sampled"])
@pytest.mark.parametrize("entangler", ["chain", "ring"])
def test_phases_from_infinite_gradients_poison_no_later_step(kind, backend, entangler, monkeypatch):
    """The first steps of a GradScaler usually overflow; s is held for five steps here."""
    runs = []
    run = SampledSimulator.run
    monkeypatch.setattr(SampledSimulator, "run", lambda *a, **k: runs.append(1) or run(*a, **k))
    params = make_params()
    options = {"phases": "gradient", "entangler": entangler}
    opt, _ = make(
        kind,
        params,
        fused=True,
        perturbation="circuit",
        perturbation_options=options,
        backend=backend,
        shots=64 if backend == "sampled" else None,
        every=5,
    )
    scale = scaler()
    for step in range(4):
        for p, g in zip(params, gradients(step), strict=True):
            p.grad = g * (float("inf") if step == 0 else SCALE)
        scale.step(opt)
        scale.update(SCALE)
        assert len(runs) == (min(step, 1) if backend == "sampled" else 0)
    assert all(p.isfinite().all() for p in params)
    assert not torch.equal(params[0], make_params()[0])
