"""An optimizer whose lr is no step size: the term overwhelms it, and that is said once."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import qsgd_core as qsgd
from qsgd_core.events import Warned


class Rateless(torch.optim.Optimizer):
    """lr = 1 multiplies a rate that it finds itself, from a tiny one upwards (Prodigy)."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 1.0, "d": 1e-6})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad.sign(), alpha=-group["lr"] * group["d"])
            group["d"] *= 1.2


def run(make: Any, steps: int = 5, **term: Any) -> tuple[Any, list[str]]:
    params = [Parameter(torch.linspace(0.1, 0.9, 6))]
    opt = make(params)
    told: list[Any] = []
    attachment = qsgd.attach(opt, observers=[told.append], **term)
    for _ in range(steps):
        params[0].grad = params[0].detach() - 0.3
        opt.step()
    return attachment.qsgd_stats(), [e.message for e in told if isinstance(e, Warned)]


@pytest.mark.parametrize("scope", ["tensor", "all"])
def test_a_term_that_overwhelms_the_first_steps_is_said_once_with_the_way_out(scope, caplog):
    with caplog.at_level(logging.WARNING, "qsgd_core"):
        stats, warned = run(Rateless, scope=scope)
    assert stats.effect_size_max > 1000
    assert len(warned) == len(caplog.records) == 1
    assert 'normalize="update"' in warned[0]
    assert "times the base optimizer's step" in warned[0]


def test_normalised_to_the_update_the_rate_is_what_the_base_step_shows():
    stats, warned = run(Rateless, normalize="update", quantum_weight=0.5)
    assert stats.effect_size == pytest.approx(0.5, rel=1e-4)
    assert stats.effect_size_max == pytest.approx(0.5, rel=1e-2)  # float32 weights round a 1e-6
    assert warned == []


def test_a_ratio_above_one_that_was_asked_for_is_not_warned_of():
    _, warned = run(Rateless, normalize="update", quantum_weight=2.0)
    assert warned == []


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_whose_lr_is_a_step_size_is_not_warned_of(make):
    _, warned = run(lambda params: make(params, lr=0.1))
    assert warned == []


def test_a_term_that_grows_over_the_step_in_the_third_step_is_said_too():
    _, warned = run(
        lambda params: torch.optim.SGD(params, lr=0.1),
        quantum_weight=lambda step: 0.1 if step < 2 else 50.0,
    )
    assert len(warned) == 1
