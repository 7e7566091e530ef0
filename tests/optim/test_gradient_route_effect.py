"""The effect size of ``inject="gradient"``: what the term does to a step, on clean moments."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

import qsgd_core as qsgd
from qsgd_core.simulate.halfturns import sinpi

WEIGHT = 0.5

BASES: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "Adadelta": (torch.optim.Adadelta, {}),
    "Adagrad": (torch.optim.Adagrad, {}),
    "Adam": (torch.optim.Adam, {"weight_decay": 0.1, "amsgrad": True}),
    "AdamW": (torch.optim.AdamW, {}),
    "Adamax": (torch.optim.Adamax, {}),
    "ASGD": (torch.optim.ASGD, {}),
    "NAdam": (torch.optim.NAdam, {}),
    "RAdam": (torch.optim.RAdam, {}),
    "RMSprop": (torch.optim.RMSprop, {"centered": True, "momentum": 0.9}),
    "Rprop": (torch.optim.Rprop, {}),
    "SGD": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "SGD plain": (torch.optim.SGD, {}),
    "fused AdamW": (torch.optim.AdamW, {"fused": True}),
}


def backward(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 6, generator=generator, dtype=torch.float64)
    (model(x) - x[:, :3] * x[:, 3:]).square().mean().backward()


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def stepped(
    model: nn.Module, clean: torch.optim.Optimizer, make: Any, weight: float
) -> torch.Tensor:
    """The move of a step from the model's weights and the clean state, fed g + weight·Q."""
    other = copy.deepcopy(model)
    opt = make(other.parameters())
    opt.load_state_dict(copy.deepcopy(clean.state_dict()))
    for p, q in zip(other.parameters(), model.parameters(), strict=True):
        p.grad = q.grad * (1 + weight * sinpi(q.detach()))
    before = flat(other)
    opt.step()
    return flat(other) - before


@pytest.mark.parametrize("base", BASES)
def test_it_is_the_difference_of_two_steps_from_a_state_that_saw_raw_gradients_only(base):
    cls, kwargs = BASES[base]

    def make(params: Any) -> torch.optim.Optimizer:
        return cls(params, lr=0.01, **kwargs)

    model, twin = make_model(), make_model()
    opt, clean = make(model.parameters()), make(twin.parameters())
    term = qsgd.attach(opt, quantum_weight=WEIGHT, inject="gradient", scope="all")
    ratios = []
    for step in range(6):
        opt.zero_grad()
        backward(model, step)
        if step == 4:
            opt.param_groups[0]["lr"] = clean.param_groups[0]["lr"] = 0.003
        both = stepped(model, clean, make, WEIGHT)
        plain = stepped(model, clean, make, 0.0)
        ratios.append(float((both - plain).norm() / plain.norm()))
        for p, q in zip(twin.parameters(), model.parameters(), strict=True):
            p.data.copy_(q.data)
            p.grad = q.grad.clone()
        clean.step()
        opt.step()
    stats = term.qsgd_stats()
    assert stats.effect_size == pytest.approx(ratios[-1], rel=1e-6, abs=1e-12)
    assert stats.effect_size_mean == pytest.approx(sum(ratios) / 6, rel=1e-6)
    assert base == "Rprop" or min(ratios[1:]) > 0


class Elsewhere(torch.optim.AdamW):
    """Keeps state where no copy of ``state[p]`` has it, uses up its gradients, and draws."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.01)
        self.count = 0

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        group = self.param_groups[0]
        group["lr"] = 0.01 / self.count
        group["seen"] = [*group.get("seen", []), self.count]
        for p in group["params"]:
            p.grad.add_(torch.randn_like(p.grad), alpha=0.1)
        loss = super().step(closure)
        for p in group["params"]:
            p.grad = None
        return loss


@pytest.mark.parametrize("make", [Elsewhere, lambda p: torch.optim.Adafactor(p, lr=0.01)])
def test_of_an_unknown_rule_it_is_unknown_and_the_optimizer_is_left_alone(make):
    events: list[Any] = []
    moves = []
    for weight in (None, 1e-30):
        model = make_model()
        opt = make(model.parameters())
        if weight is not None:
            term = qsgd.attach(
                opt, quantum_weight=weight, inject="gradient", observers=[events.append]
            )
        torch.manual_seed(3)
        for step in range(4):
            opt.zero_grad()
            backward(model, step)
            opt.step()
        moves.append(flat(model))
    assert torch.equal(*moves)
    stats = term.qsgd_stats()
    assert stats.effect_size is stats.effect_size_mean is stats.effect_size_max is None
    assert stats.sources["exact"] == 4
    assert [e.effect_size for e in events] == [None] * 4


def test_hooks_of_the_process_see_no_step_beside_the_real_ones():
    seen = []
    handle = register_optimizer_step_pre_hook(lambda o, *_: seen.append(o))
    try:
        model = make_model()
        opt = qsgd.QSGD(model.parameters(), inject="gradient")
        backward(model, 0)
        opt.step()
    finally:
        handle.remove()
    assert seen == [opt]


def test_a_term_put_on_in_mid_run_begins_with_the_state_that_is_there():
    model = make_model()
    opt = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(5):
        opt.zero_grad()
        backward(model, step)
        opt.step()
    term = qsgd.attach(opt, quantum_weight=WEIGHT, inject="gradient", scope="all")
    opt.zero_grad()
    backward(model, 5)

    def make(params: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(params, lr=0.01)

    bare = make(copy.deepcopy(model).parameters())
    bare.load_state_dict(copy.deepcopy(opt.state_dict()))
    both, plain = (stepped(model, bare, make, w) for w in (WEIGHT, 0.0))
    opt.step()
    expected = float((both - plain).norm() / plain.norm())
    assert term.qsgd_stats().effect_size == pytest.approx(expected, rel=1e-6)


def test_a_step_that_a_scaler_skips_counts_for_nothing():
    model, other = make_model().float(), make_model().float()
    kept = []
    for m, skips in ((model, False), (other, True)):
        opt = torch.optim.AdamW(m.parameters(), lr=0.01, fused=True)
        term = qsgd.attach(opt, quantum_weight=WEIGHT, inject="gradient", scope="all")
        for step in range(4):
            for skipped in (True, False) if skips and step == 2 else (False,):
                for k, p in enumerate(m.parameters()):
                    g = torch.Generator().manual_seed(10 * step + k)
                    p.grad = torch.randn(p.shape, generator=g) / (0.0 if skipped else 1.0)
                opt.grad_scale, opt.found_inf = None, torch.tensor(float(skipped))
                opt.step()
        kept.append(term.qsgd_stats())
    assert kept[0].effect_size == pytest.approx(kept[1].effect_size, rel=1e-6)
    assert kept[0].effect_size_mean == pytest.approx(kept[1].effect_size_mean, rel=1e-6)
