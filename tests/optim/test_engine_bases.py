"""The term on every optimizer torch has, against a loop written by hand; and without a sync."""

from __future__ import annotations

import traceback
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode

import qsgd_core as qsgd
from qsgd_core.errors import ConfigError
from qsgd_core.optim.term.effect import BACKLOG
from qsgd_core.simulate.halfturns import sinpi

LR, WEIGHT = 0.01, 0.5

BASES: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "Adadelta": (torch.optim.Adadelta, {}),
    "Adafactor": (torch.optim.Adafactor, {}),
    "Adagrad": (torch.optim.Adagrad, {}),
    "Adam": (torch.optim.Adam, {"weight_decay": 0.1}),
    "AdamW": (torch.optim.AdamW, {}),
    "Adamax": (torch.optim.Adamax, {}),
    "ASGD": (torch.optim.ASGD, {}),
    "Muon": (getattr(torch.optim, "Muon", torch.optim.SGD), {}),
    "NAdam": (torch.optim.NAdam, {}),
    "RAdam": (torch.optim.RAdam, {}),
    "RMSprop": (torch.optim.RMSprop, {"centered": True, "momentum": 0.9}),
    "Rprop": (torch.optim.Rprop, {}),
    "SGD": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    "SGD plain": (torch.optim.SGD, {}),
    "fused Adam": (torch.optim.Adam, {"fused": True}),
    "fused Adagrad": (torch.optim.Adagrad, {"fused": True}),
    "fused SGD": (torch.optim.SGD, {"fused": True, "momentum": 0.9}),
}


def make_params(dtype: torch.dtype = torch.float32) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(s, generator=generator).to(dtype)) for s in [(3, 4), (2, 2)]]


def set_grads(params: list[Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(1000 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def test_every_dense_optimizer_of_torch_is_in_the_list():
    have = {cls for cls, _ in BASES.values()}
    public = {
        cls
        for name, cls in vars(torch.optim).items()
        if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and name != "Optimizer"
    }
    assert public - have == {torch.optim.LBFGS, torch.optim.SparseAdam}
    assert len(have) >= 12


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("scope", ["tensor", "all"])
def test_attached_it_is_a_hand_written_loop_to_the_bit(base, scope):
    cls, kwargs = BASES[base]
    ours, theirs = make_params(), make_params()
    opt, hand = cls(ours, lr=LR, **kwargs), cls(theirs, lr=LR, **kwargs)
    term = qsgd.attach(opt, quantum_weight=WEIGHT, scope=scope)
    for step in range(6):
        set_grads(ours, step)
        opt.step()
        set_grads(theirs, step)
        kept = [(p, p.detach().clone(), p.grad.clone()) for p in theirs]
        hand.step()
        for p, theta, g in kept:
            n = p.numel() if scope == "all" else 4
            added = (sinpi(theta.view(-1)[:n]) * g.view(-1)[:n]) * (-LR * WEIGHT)
            p.detach().view(-1)[:n].add_(added)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert term.qsgd_stats().effect_size > 0


@pytest.mark.parametrize("base", BASES)
def test_injected_it_is_the_base_fed_g_plus_lambda_q_and_the_shadow_step_leaves_no_trace(base):
    cls, kwargs = BASES[base]
    ours, theirs = make_params(), make_params()
    opt, hand = cls(ours, lr=LR, **kwargs), cls(theirs, lr=LR, **kwargs)
    qsgd.attach(opt, quantum_weight=WEIGHT, inject="gradient")
    for step in range(4):
        set_grads(ours, step)
        opt.step()
        set_grads(theirs, step)
        for p in theirs:
            g = p.grad.view(-1)[:4]
            g += (sinpi(p.detach().view(-1)[:4]) * g) * WEIGHT
        hand.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    for mine, other in zip(opt.state.values(), hand.state.values(), strict=True):
        for key in other:
            a, b = mine[key], other[key]
            assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, key


def test_a_wrapper_is_looked_through():
    """accelerate's AcceleratedOptimizer: an Optimizer without hooks that keeps the real one."""

    class Wrapper(torch.optim.Optimizer):
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

        param_groups = property(lambda self: self.optimizer.param_groups)

        def step(self, closure: Any = None) -> Any:
            return self.optimizer.step(closure)

    ours, theirs = make_params(), make_params()
    wrapper = Wrapper(torch.optim.SGD(ours, lr=LR))
    term = qsgd.attach(wrapper)
    assert term.optimizer is wrapper.optimizer
    base = torch.optim.SGD(theirs, lr=LR)
    qsgd.attach(base)
    for step in range(3):
        set_grads(ours, step)
        wrapper.step()
        set_grads(theirs, step)
        base.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_lbfgs_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"LBFGS cannot step without a closure.*AdamW"):
        qsgd.attach(torch.optim.LBFGS(make_params()))


def test_an_optimizer_without_a_learning_rate_is_refused():
    class Rateless(torch.optim.Optimizer):
        def step(self, closure: Any = None) -> None: ...

    with pytest.raises(ConfigError, match=r"Rateless has no learning rate.*-lr·λ·Q"):
        qsgd.attach(Rateless(make_params(), {}))


@pytest.mark.parametrize(
    ("inject", "normalize"), [("update", None), ("update", "update"), ("gradient", None)]
)
def test_a_learning_rate_that_comes_out_of_numpy_is_the_number_it_holds(inject, normalize):
    def stepped(lr: Any) -> list[torch.Tensor]:
        params = make_params()
        optimizer = torch.optim.SGD(params, lr=lr)
        qsgd.attach(optimizer, inject=inject, normalize=normalize)
        for _ in range(3):
            for p in params:
                p.grad = torch.ones_like(p)
            optimizer.step()
        return params

    for ours, plain in zip(stepped(np.float32(0.125)), stepped(0.125), strict=True):
        assert torch.equal(ours, plain)


@pytest.mark.parametrize("thing", ["adam", torch.nn.Linear(1, 1)])
def test_what_is_no_optimizer_is_refused_by_its_type(thing):
    with pytest.raises(ConfigError, match=rf"not {type(thing).__name__}"):
        qsgd.attach(thing)


@pytest.mark.parametrize("first", ["attach", "qsgd"])
def test_a_second_term_on_one_optimizer_is_refused(first):
    params = make_params()
    opt = qsgd.QSGD(params) if first == "qsgd" else torch.optim.SGD(params, lr=LR)
    if first == "attach":
        qsgd.attach(opt)
    with pytest.raises(ConfigError, match=r"already carries the term.*detach\(\)"):
        qsgd.attach(opt)
    set_grads(params, 0)
    opt.step()


class NoSync(TorchDispatchMode):
    """Fails on whatever would make a GPU wait, if code of ours asked for it."""

    BLOCKING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.__name__.partition(".")[0] in self.BLOCKING:
            ours = [f for f in traceback.extract_stack() if "qsgd_core" in f.filename]
            assert not ours, f"{func} from {ours[-1].filename}:{ours[-1].lineno}"
        return func(*args, **(kwargs or {}))


def test_the_guard_against_syncs_can_fail():
    """The first step of bfloat16 weights looks, once, whether the term rounds away."""
    params = make_params(torch.bfloat16)
    opt = torch.optim.SGD(params, lr=LR)
    qsgd.attach(opt)
    set_grads(params, 0)
    with NoSync(), pytest.raises(AssertionError, match=r"from .*qsgd_core"):
        opt.step()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scope": "all", "perturbation": "circuit"},
        {"scope": "model", "n_qubits": 6},
        {"normalize": "update", "n_qubits": 3, "scope": "all"},
        {
            "perturbation": "circuit",
            "perturbation_options": {"phases": "gradient"},
            "observers": [lambda _: None],
        },
        {"every": 3},
    ],
    ids=lambda s: " ".join(s) or "default",
)
@pytest.mark.parametrize("found_inf", [None, 0.0, 1.0])
def test_no_step_waits_for_the_device(settings, found_inf):
    """Also not the one that folds the statistics: by ops that read a value on the host."""
    params = make_params()
    opt = torch.optim.SGD(params, lr=LR, fused=found_inf is not None)
    term = qsgd.attach(opt, **settings)
    if found_inf is not None:
        opt.grad_scale, opt.found_inf = None, torch.tensor(found_inf)
    set_grads(params, 0)
    opt.step()  # layouts are made once
    with NoSync():
        for _ in range(BACKLOG + 1 if not settings else 4):
            opt.step()
    assert term.qsgd_stats().steps > 4
