"""Optimizers whose ``step`` is not torch's: other signatures, two gradients, other methods."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import Parameter

import qsgd_core as qsgd
from qsgd_core.errors import ConfigError
from qsgd_core.events import Warned
from qsgd_core.simulate.halfturns import sinpi

LR, WEIGHT, RHO = 0.05, 0.5, 0.1

# --- signatures ----------------------------------------------------------------------------------


class KeywordOnly(torch.optim.SGD):
    def step(self, *, closure: Any = None) -> Any:
        return super().step(closure)


class AfterScale(torch.optim.SGD):
    def step(self, scale: Any = None, closure: Any = None) -> Any:
        assert scale is None or isinstance(scale, float)
        return super().step(closure)


class WithScaler(torch.optim.SGD):
    def step(self, closure: Any = None, *, grad_scaler: Any = None) -> Any:
        assert grad_scaler is None or grad_scaler == "scaler"
        return super().step(closure)


class Anything(torch.optim.SGD):
    def step(self, *args: Any, **kwargs: Any) -> Any:
        assert set(kwargs) <= {"closure"}
        return super().step(*args, **kwargs)


def undocumented(method: Callable[..., Any]) -> Callable[..., Any]:
    def inner(self: Any, *args: Any, **kwargs: Any) -> Any:
        return method(self, *args, **kwargs)

    return inner


def documented(method: Callable[..., Any]) -> Callable[..., Any]:
    return functools.wraps(method)(undocumented(method))


class Decorated(torch.optim.SGD):
    @undocumented
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class Wrapped(torch.optim.SGD):
    @documented
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class EvaluationFunction(torch.optim.SGD):
    def step(self, eval_closure: Any = None) -> Any:
        return super().step(eval_closure)


class Needed(torch.optim.SGD):
    def step(self, closure: Any) -> Any:
        return super().step(closure)


class Chooser(torch.optim.SGD):
    """Takes another path if a closure is given: that of the caller, not of the term."""

    def step(self, closure: Any = None) -> Any:
        self.given = closure is not None
        return super().step(closure)


CALLS: list[tuple[type[torch.optim.Optimizer], Callable[[Any, Any], Any]]] = [
    (KeywordOnly, lambda o, c: o.step(closure=c)),
    (AfterScale, lambda o, c: o.step(2.0, c)),
    (AfterScale, lambda o, c: o.step(closure=c)),
    (WithScaler, lambda o, c: o.step(c, grad_scaler="scaler")),
    (Anything, lambda o, c: o.step(c)),
    (Anything, lambda o, c: o.step(closure=c)),
    (Decorated, lambda o, c: o.step(c)),
    (Wrapped, lambda o, c: o.step(c)),
    (EvaluationFunction, lambda o, c: o.step(c)),
    (Needed, lambda o, c: o.step(c)),
    (Chooser, lambda o, c: o.step(c)),
    (torch.optim.SGD, lambda o, c: o.step(c)),
]


def make_params() -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(s, generator=generator)) for s in [(3, 4), (2,), ()]]


def backward(params: list[Parameter]) -> torch.Tensor:
    for p in params:
        p.grad = None
    loss = torch.stack([(p - 1).square().sum() for p in params]).sum()
    loss.backward()
    return loss


def hand_step(params: list[Parameter]) -> None:
    """Plain descent plus -lr·λ·sin(πθ)⊙g, on the first four coordinates."""
    with torch.no_grad():
        for p in params:
            theta, g = p.detach().view(-1)[:4].clone(), p.grad.view(-1)[:4].clone()
            p.add_(p.grad, alpha=-LR)
            p.view(-1)[:4].add_((sinpi(theta) * g) * (-LR * WEIGHT))


@pytest.mark.parametrize(
    ("kind", "call", "given"),
    [(*c, given) for c in CALLS for given in (True, False) if given or c[0] is not Needed],
)
def test_what_step_was_given_arrives_as_it_was_wherever_it_takes_its_closure(kind, call, given):
    ours, theirs = make_params(), make_params()
    opt = kind(ours, lr=LR)
    term = qsgd.attach(opt, quantum_weight=WEIGHT)
    for _ in range(3):
        if given:
            loss = call(opt, lambda: backward(ours))
            assert isinstance(loss, torch.Tensor)
        else:
            backward(ours)
            assert call(opt, None) is None
        backward(theirs)
        hand_step(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert term.qsgd_stats().sources["exact"] == term.qsgd_stats().steps == 3
    assert getattr(opt, "given", given) is given


def test_a_clipping_hook_that_is_registered_late_or_removed_leaves_one_term():
    ours, theirs = make_params(), make_params()
    opt = torch.optim.SGD(ours, lr=LR)
    term = qsgd.attach(opt, quantum_weight=WEIGHT)
    handles = []

    def clip(*_: Any) -> None:
        torch.nn.utils.clip_grad_norm_(ours, 0.01)

    for step in range(8):
        if step in (2, 4):
            handles.append(opt.register_step_pre_hook(clip))
        if step in (3, 6):
            handles.pop().remove()
        backward(ours)
        opt.step()
        backward(theirs)
        if step in (2, 4, 5):
            torch.nn.utils.clip_grad_norm_(theirs, 0.01)
        hand_step(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert term.qsgd_stats().sources["exact"] == 8


def test_a_late_hook_that_raised_leaves_no_second_term():
    ours, theirs = make_params(), make_params()
    opt = torch.optim.SGD(ours, lr=LR)
    qsgd.attach(opt, quantum_weight=WEIGHT)
    fails = [True]

    def first(*_: Any) -> None:
        if fails.pop():
            raise RuntimeError("not yet")

    opt.register_step_pre_hook(first)
    opt.register_step_pre_hook(lambda *_: fails.append(False))
    backward(ours)
    with pytest.raises(RuntimeError, match="not yet"):
        opt.step()
    fails.append(False)
    opt.step()
    backward(theirs)
    hand_step(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", ["LBFGS", "FullBatchLBFGS", "History"])
def test_an_optimizer_that_searches_along_a_line_is_refused(name):
    class Searching(torch.optim.Optimizer):
        def __init__(self, params: Any) -> None:
            known = {"history_size": 10, "max_iter": 20} if name == "History" else {}
            super().__init__(params, {"lr": 1.0, **known})

        def step(self, closure: Any) -> Any:
            return closure()

    Searching.__name__ = name
    with pytest.raises(ConfigError, match=r"not the size of a gradient step.*AdamW"):
        qsgd.attach(Searching(make_params()))


# --- two gradients -------------------------------------------------------------------------------


class Climber(torch.optim.Optimizer):
    """A sharpness-aware optimizer, in the forms in which they are found."""

    def __init__(self, params: Any, form: str, base: Any = torch.optim.SGD, **kwargs: Any) -> None:
        super().__init__(params, {"lr": LR, **kwargs})
        self.form = form
        self.base_optimizer = base(self.param_groups, lr=LR, **kwargs)
        self.param_groups = self.base_optimizer.param_groups
        self.old: list[torch.Tensor] = []

    @torch.no_grad()
    def first_step(self) -> None:
        params = [p for g in self.param_groups for p in g["params"]]
        self.old = [p.detach().clone() for p in params]
        norm = torch.stack([p.grad.norm() for p in params]).norm()
        for p in params:
            step = p.grad * (RHO / norm)
            if "data" in self.form:
                p.data.add_(step)  # moves no version counter
            else:
                p.add_(step)
            p.grad = None

    @torch.no_grad()
    def second_step(self) -> None:
        params = [p for g in self.param_groups for p in g["params"]]
        for p, old in zip(params, self.old, strict=True):
            p.data = old if "data" in self.form else p.copy_(old).data
        self.base_optimizer.step()

    def step(self, closure: Any = None) -> Any:
        assert closure is not None
        closure = torch.enable_grad()(closure)
        loss = closure() if "evaluates first" in self.form else None
        self.first_step()
        again = closure()
        self.second_step()
        return again if loss is None else loss


FORMS = ["climbs first", "climbs first in data", "evaluates first", "evaluates first in data"]


def moved(form: str, base: Any, **term: Any) -> tuple[torch.Tensor, Any, list[Parameter]]:
    torch.manual_seed(0)
    model = nn.Linear(6, 3).double()
    x, y = torch.randn(32, 6).double(), torch.randn(32, 3).double()
    opt = Climber(model.parameters(), form, base)
    attachment = qsgd.attach(opt, scope="all", **term) if term else None

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss

    before = [p.detach().clone() for p in model.parameters()]
    closure()
    opt.step(closure)
    moves = [(p.detach() - b).flatten() for p, b in zip(model.parameters(), before, strict=True)]
    return torch.cat(moves), attachment, before


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("normalize", [None, "update"])
@pytest.mark.parametrize("form", FORMS)
def test_the_step_of_a_climber_begins_and_ends_where_the_weights_do(form, normalize, base):
    plain, _, before = moved(form, base)
    both, term, _ = moved(form, base, quantum_weight=WEIGHT, normalize=normalize)
    true = float((both - plain).norm() / plain.norm())
    assert term.qsgd_stats().effect_size == pytest.approx(true, abs=1e-9)
    if normalize:
        assert true == pytest.approx(WEIGHT, abs=1e-9)
        return
    torch.manual_seed(0)
    model = nn.Linear(6, 3).double()
    x, y = torch.randn(32, 6).double(), torch.randn(32, 3).double()
    (model(x) - y).square().mean().backward()
    theta = torch.cat([p.flatten() for p in before])
    g = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(both - plain, -LR * WEIGHT * sinpi(theta) * g, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("form", FORMS)
def test_a_tiny_injected_weight_leaves_a_climber_as_it_is(form):
    plain, _, _ = moved(form, torch.optim.SGD)
    both, term, _ = moved(form, torch.optim.SGD, quantum_weight=1e-30, inject="gradient")
    assert torch.equal(plain, both)
    assert term.qsgd_stats().effect_size is None


# --- training without step -----------------------------------------------------------------------


def train(opt: Any, params: list[Parameter], go: Callable[[], None], steps: int = 8) -> list[Any]:
    events: list[Any] = []
    qsgd.attach(opt, observers=[events.append])
    for _ in range(steps):
        backward(params)
        go()
    return [e for e in events if isinstance(e, Warned)]


def test_steps_by_other_methods_are_said_once_with_what_to_attach_to(caplog):
    params = make_params()
    opt = Climber(params, "climbs first")

    def go() -> None:
        opt.first_step()
        backward(params)
        opt.second_step()

    with caplog.at_level(logging.WARNING, "qsgd_core"):
        warned = train(opt, params, go)
    assert len(warned) == len(caplog.records) == 1
    assert "Climber.step() has not been called" in caplog.text
    assert "attach(optimizer.base_optimizer)" in caplog.text


def test_a_step_replaced_on_the_object_is_said(caplog):
    params = make_params()
    opt = torch.optim.SGD(params, lr=LR)
    opt.step = lambda: [p.data.sub_(p.grad, alpha=LR) for p in params]  # type: ignore[assignment]
    assert len(train(opt, params, opt.step)) == 1


def test_steps_that_are_taken_accumulated_or_not_begun_are_not_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "qsgd_core"):
        params = make_params()
        opt = torch.optim.SGD(params, lr=LR)
        assert train(opt, params, opt.step) == []
        assert train(torch.optim.SGD(params, lr=LR), params, lambda: None) == []
    assert caplog.records == []


# --- wrappers ------------------------------------------------------------------------------------


class Lookahead(torch.optim.Optimizer):
    """As timm's: an optimizer that does not call torch's constructor, around another."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self._base_optimizer = inner
        self.param_groups, self.defaults = inner.param_groups, inner.defaults
        self._optimizer_step_pre_hooks: dict[int, Any] = {}
        self._optimizer_step_post_hooks: dict[int, Any] = {}

    def step(self, closure: Any = None) -> Any:
        return self._base_optimizer.step(closure)


def test_a_wrapper_without_hooks_is_looked_through_wherever_it_has_its_optimizer():
    ours, theirs = make_params(), make_params()
    opt = Lookahead(torch.optim.SGD(ours, lr=LR))
    term = qsgd.attach(opt, quantum_weight=WEIGHT)
    assert term.optimizer is opt._base_optimizer
    for _ in range(2):
        backward(ours)
        opt.step()
        backward(theirs)
        hand_step(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_wrapper_around_two_optimizers_is_refused_and_left_as_it_was():
    opt = Lookahead(torch.optim.SGD(make_params(), lr=LR))
    opt._other = torch.optim.SGD(make_params(), lr=LR)
    before = set(vars(opt)), set(opt.param_groups[0])
    with pytest.raises(ConfigError, match=r"Lookahead is a wrapper around several optimizers"):
        qsgd.attach(opt)
    assert (set(vars(opt)), set(opt.param_groups[0])) == before


def constructed(params: list[Parameter]) -> None:
    qsgd.QSGD(params, differentiable=True)


def in_a_group(params: list[Parameter]) -> None:
    qsgd.attach(torch.optim.SGD([{"params": params, "differentiable": True}], lr=LR))


def in_the_defaults(params: list[Parameter]) -> None:
    opt = torch.optim.SGD(params, lr=LR)
    opt.defaults["differentiable"] = True
    qsgd.attach(opt)


def in_mid_run(params: list[Parameter]) -> None:
    opt = qsgd.QSGD(params)
    backward(params)
    opt.param_groups[0]["differentiable"] = True
    opt.step()


def in_a_checkpoint(params: list[Parameter]) -> None:
    opt = qsgd.QSGD(params)
    saved = opt.state_dict()
    saved["param_groups"][0]["differentiable"] = True
    opt.load_state_dict(saved)


def in_a_late_group(params: list[Parameter]) -> None:
    opt = qsgd.QSGD(params)
    opt.add_param_group({"params": make_params(), "differentiable": True})


@pytest.mark.parametrize(
    "way",
    [constructed, in_a_group, in_the_defaults, in_mid_run, in_a_checkpoint, in_a_late_group],
    ids=lambda way: way.__name__,
)
def test_differentiable_is_refused_whatever_way_it_is_set(way):
    with pytest.raises(ConfigError, match="differentiable=True asks for"):
        way(make_params())
