"""g is the gradient that the base optimizer uses, whoever made it and whenever."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import qsgd_core as qsgd
from qsgd_core.optim.attach import Attachment
from qsgd_core.optim.qsgd import QSGD
from qsgd_core.simulate.halfturns import sinpi

LR, WEIGHT, N = 0.05, 0.5, 4


def make_params(seed: int = 0) -> list[Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [Parameter(torch.randn(s, generator=generator)) for s in [(3, 4), (2,), ()]]


def set_grads(params: list[Parameter], step: int = 0) -> None:
    generator = torch.Generator().manual_seed(1000 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator)


def qsgd_on(params: list[Parameter], **kwargs: Any) -> tuple[torch.optim.Optimizer, QSGD]:
    optimizer = qsgd.QSGD(params, lr=LR, quantum_weight=WEIGHT, **kwargs)
    return optimizer, optimizer


def attach_to(params: list[Parameter], **kwargs: Any) -> tuple[torch.optim.Optimizer, Attachment]:
    optimizer = torch.optim.AdamW(params, lr=LR)
    return optimizer, qsgd.attach(optimizer, quantum_weight=WEIGHT, **kwargs)


both = pytest.mark.parametrize("make", [qsgd_on, attach_to])


def hand_step(base: torch.optim.Optimizer, params: list[Parameter]) -> None:
    """The base optimizer's step plus -lr·λ·sin(πθ)⊙g, θ and g as they are now."""
    kept = [
        (p, p.detach().reshape(-1)[:N].clone(), p.grad.detach().reshape(-1)[:N].clone())
        for p in params
        if p.grad is not None
    ]
    base.step()
    for p, theta, g in kept:
        p.detach().view(-1)[:N].add_((sinpi(theta) * g) * (-LR * WEIGHT))


def assert_bit_equal(ours: list[Parameter], theirs: list[Parameter]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def loss_of(params: list[Parameter]) -> torch.Tensor:
    return torch.stack([(p - 1).square().sum() for p in params]).sum()


@both
@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("as_keyword", [False, True])
def test_a_closure_that_zeroes_runs_backward_and_clips_gives_the_g_it_leaves(
    make, clip, as_keyword
):
    """What Lightning passes to every optimizer: before the closure, p.grad is stale."""
    ours, theirs = make_params(), make_params()
    opt, _ = make(ours)
    base = torch.optim.AdamW(theirs, lr=LR)
    set_grads(ours, step=99)  # stale gradients of another step

    def evaluate(o: torch.optim.Optimizer, params: list[Parameter]) -> torch.Tensor:
        o.zero_grad()
        loss = loss_of(params)
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(params, clip)
        return loss

    for _ in range(5):
        calls = []

        def closure(calls: list[int] = calls) -> torch.Tensor:
            calls.append(1)
            return evaluate(opt, ours)

        returned = opt.step(closure=closure) if as_keyword else opt.step(closure)
        loss = evaluate(base, theirs)
        hand_step(base, theirs)
        assert torch.equal(returned, loss)
        assert calls == [1]
    assert_bit_equal(ours, theirs)


def test_a_closure_called_again_in_the_same_step_does_not_change_g():
    class Twice(torch.optim.SGD):
        """Evaluates the closure a second time after its step, as line searches do."""

        def step(self, closure: Callable[[], Any] | None = None) -> Any:
            loss = super().step(closure)
            if closure is not None:
                with torch.enable_grad():
                    closure()
            return loss

    ours, theirs = make_params(), make_params()
    opt = Twice(ours, lr=LR)
    qsgd.attach(opt, quantum_weight=WEIGHT)

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = loss_of(ours)
        loss.backward()
        return loss

    opt.step(closure)
    loss_of(theirs).backward()
    hand_step(torch.optim.SGD(theirs, lr=LR), theirs)
    assert_bit_equal(ours, theirs)


@pytest.mark.parametrize("inject", ["update", "gradient"])
@pytest.mark.parametrize("parents_exist", [False, True])
@pytest.mark.parametrize("calls_closure_itself", [False, True])
def test_a_step_that_calls_its_parents_step_gets_one_term(
    inject, parents_exist, calls_closure_itself
):
    """Once a parent exists, torch runs the hooks of such a step twice, one run in the other."""

    class Parent(Descent):
        def step(self, closure: Callable[[], Any] | None = None) -> Any:
            loss = closure() if closure is not None else None
            self.descend()
            return loss

    class Child(Parent):
        def step(self, closure: Callable[[], Any] | None = None) -> Any:
            if not calls_closure_itself or closure is None:
                return super().step(closure)
            loss = closure()
            super().step()
            return loss

    ours, theirs, events = make_params(), make_params(), []
    opt = Child(ours, lr=LR)
    term = qsgd.attach(opt, quantum_weight=WEIGHT, inject=inject, observers=[events.append])
    if parents_exist:
        Parent(make_params(), lr=LR)
    base = torch.optim.SGD(theirs, lr=LR)
    qsgd.attach(base, quantum_weight=WEIGHT, inject=inject)
    for step in range(3):
        set_grads(ours, step)
        opt.step()
        set_grads(theirs, step)
        base.step()
    assert_bit_equal(ours, theirs)
    assert term.qsgd_stats().steps == len(events) == 3
    assert term.qsgd_stats().sources["exact"] == 3


def test_a_step_that_raised_leaves_the_injected_term_in_no_later_step():
    ours, theirs = make_params(), make_params()
    opt, _ = attach_to(ours, inject="gradient")
    base, _ = attach_to(theirs, inject="gradient")
    set_grads(ours)
    state = opt.state
    opt.state = None  # the base optimizer's own step fails on this
    with pytest.raises(TypeError):
        opt.step()
    opt.state = state
    opt.step()
    set_grads(theirs)
    base.step()
    assert_bit_equal(ours, theirs)


@both
@pytest.mark.parametrize("inject", ["update", "gradient"])
def test_gradients_clipped_by_a_pre_hook_registered_later_are_the_g_of_the_term(make, inject):
    ours, theirs = make_params(), make_params()
    opt, _ = make(ours, inject=inject)
    base, _ = make(theirs, inject=inject)
    opt.register_step_pre_hook(lambda *_: torch.nn.utils.clip_grad_norm_(ours, 0.01) and None)
    for step in range(3):
        set_grads(ours, step)
        set_grads(theirs, step)
        torch.nn.utils.clip_grad_norm_(theirs, 0.01)
        opt.step()
        base.step()
    assert_bit_equal(ours, theirs)
    reference = make_params()
    hand = torch.optim.AdamW(reference, lr=LR)
    for step in range(3):
        set_grads(reference, step)
        torch.nn.utils.clip_grad_norm_(reference, 0.01)
        hand_step(hand, reference)
    if inject == "update":
        assert_bit_equal(ours, reference)


@both
def test_user_hooks_see_the_weights_before_and_after_the_whole_step(make):
    params, seen = make_params(), {}
    opt, _ = make(params)
    opt.register_step_pre_hook(lambda *_: seen.update(before=params[0].detach().clone()))
    opt.register_step_post_hook(lambda *_: seen.update(after=params[0].detach().clone()))
    start = params[0].detach().clone()
    set_grads(params)
    opt.step()
    assert torch.equal(seen["before"], start)
    assert torch.equal(seen["after"], params[0])
    plain = make_params()
    set_grads(plain)
    torch.optim.AdamW(plain, lr=LR).step()
    assert not torch.equal(seen["after"], plain[0])


@both
def test_accumulated_gradients_get_one_term_for_their_sum(make):
    ours, theirs = make_params(), make_params()
    opt, term = make(ours)
    base = torch.optim.AdamW(theirs, lr=LR)
    for _ in range(3):
        for params in (ours, theirs):
            for p in params:
                p.grad = None
            for part in range(4):
                (loss_of(params) * (part + 1) / 4).backward()
        opt.step()
        hand_step(base, theirs)
    assert_bit_equal(ours, theirs)
    assert term.qsgd_stats().steps == 3


@both
def test_an_exception_in_the_closure_leaves_the_weights_and_the_next_step_alone(make):
    ours, theirs = make_params(), make_params()
    opt, term = make(ours)

    def broken() -> float:
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        opt.step(broken)
    assert_bit_equal(ours, make_params())
    set_grads(ours)
    opt.step()
    set_grads(theirs)
    hand_step(torch.optim.AdamW(theirs, lr=LR), theirs)
    assert_bit_equal(ours, theirs)
    assert term.qsgd_stats().steps == 1


class Descent(torch.optim.Optimizer):
    """Plain descent that spoils p.grad as it goes."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def descend(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad, alpha=-group["lr"])
                p.grad.mul_(-7.0)


class WithoutClosure(Descent):
    def step(self) -> None:
        self.descend()


class Spoiling(Descent):
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = closure() if closure is not None else None
        self.descend()
        return loss


class Deaf(Descent):
    """Takes a closure and never calls it."""

    def step(self, closure: Callable[[], Any] | None = None) -> None:
        self.descend()


@pytest.mark.parametrize("kind", [WithoutClosure, Spoiling])
def test_an_optimizer_that_spoils_the_gradient_still_gets_the_g_it_used(kind):
    ours, theirs = make_params(), make_params()
    opt = kind(ours, lr=LR)
    qsgd.attach(opt, quantum_weight=WEIGHT)
    base = torch.optim.SGD(theirs, lr=LR)
    for step in range(3):
        set_grads(ours, step)
        opt.step()
        set_grads(theirs, step)
        hand_step(base, theirs)
    assert_bit_equal(ours, theirs)


@pytest.mark.parametrize("given", [False, True])
def test_an_optimizer_that_never_calls_its_closure_gets_the_term_all_the_same(given, caplog):
    ours, theirs = make_params(), make_params()
    opt = Deaf(ours, lr=LR)
    term = qsgd.attach(opt, quantum_weight=WEIGHT)
    base = torch.optim.SGD(theirs, lr=LR)
    with caplog.at_level(logging.WARNING, "qsgd_core"):
        for step in range(3):
            set_grads(ours, step)
            opt.step(lambda: pytest.fail("called")) if given else opt.step()
            set_grads(theirs, step)
            hand_step(base, theirs)
    assert_bit_equal(ours, theirs)
    assert term.qsgd_stats().sources["exact"] == 3
    assert caplog.records == []


def test_a_closure_that_is_never_called_delays_an_injected_term_by_a_step_and_says_so(caplog):
    ours, theirs = make_params(), make_params()
    opt, base = Deaf(ours, lr=LR), torch.optim.SGD(theirs, lr=LR)
    term = qsgd.attach(opt, quantum_weight=WEIGHT, inject="gradient")
    with caplog.at_level(logging.WARNING, "qsgd_core"):
        for step in range(3):
            set_grads(ours, step)
            opt.step(lambda: pytest.fail("called"))
            set_grads(theirs, step)
            for p in theirs if step else []:
                g = p.grad.view(-1)[:N]
                g += (sinpi(p.detach().view(-1)[:N]) * g) * WEIGHT
            base.step()
    assert_bit_equal(ours, theirs)
    assert term.qsgd_stats().sources["exact"] == 2
    assert len(caplog.records) == 1
    assert "ignores its closure" in caplog.text


@both
def test_a_compiled_step_gives_the_same_numbers(make):
    ours, theirs = make_params(), make_params()
    opt, term = make(ours)
    other, _ = make(theirs)
    torch._dynamo.reset()
    compiled = torch.compile(opt.step, backend="eager")
    for step in range(3):
        set_grads(ours, step)
        compiled()
        set_grads(theirs, step)
        other.step()
    for a, b in zip(ours, theirs, strict=True):
        # Compiled, AdamW itself rounds otherwise; the term is a thousand times larger than this.
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-6)
    assert term.qsgd_stats().sources["exact"] == 3
