"""torch.compile of the model and of the step: the same weights, and nothing else in the seeds."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qsgd_core as qsgd

BACKENDS = [
    "eager",
    "aot_eager",
    pytest.param(
        "inductor",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler"),
        ],
    ),
]
LR, WEIGHT, STEPS = 0.05, 0.5, 12


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).double()


def backward(model: nn.Module, step: int) -> None:
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
    (model(x) - x[:, :2] * x[:, 2:3]).square().mean().backward()


def train(model: nn.Module, opt: torch.optim.Optimizer, step: Any = None) -> list[Tensor]:
    for k in range(STEPS):
        opt.zero_grad()
        backward(model, k)
        (step or opt.step)()
    return [p.detach() for p in model.parameters()]


def train_by_hand(model: nn.Module, base: torch.optim.Optimizer, step: Any = None) -> list[Tensor]:
    """The base step, and then -lr·λ·sin(π θ)·g on the first four coordinates of each tensor."""

    def both() -> None:
        before = [p.detach().clone() for p in model.parameters()]
        (step or base.step)()
        with torch.no_grad():
            for p, theta in zip(model.parameters(), before, strict=True):
                term = LR * WEIGHT * torch.sin(torch.pi * theta) * p.grad
                p.view(-1)[:4] -= term.view(-1)[:4]

    return train(model, base, both)


def assert_same(ours: list[Tensor], theirs: list[Tensor], atol: float = 1e-12) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=LR)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_model_ends_with_the_weights_of_a_hand_made_loop_over_it(backend):
    model = torch.compile(make_model(), backend=backend)
    opt = qsgd.QSGD(model.parameters(), lr=LR, quantum_weight=WEIGHT)
    ours = train(model, opt)
    other = torch.compile(make_model(), backend=backend)
    assert_same(ours, train_by_hand(other, adamw(other)))
    plain = make_model()
    far = train(plain, adamw(plain))
    assert max(float((a - b).abs().max()) for a, b in zip(ours, far, strict=True)) > 1e-4
    assert opt.qsgd_stats().sources["exact"] == STEPS


def wrapped(model: nn.Module, how: str) -> nn.Module:
    from torch.distributed.algorithms._checkpoint import checkpoint_wrapper

    if how == "compiled":
        return torch.compile(model, backend="eager")
    checkpoint_wrapper.apply_activation_checkpointing(model)
    return model


TERMS: list[dict[str, Any]] = [
    {"perturbation": "uniform"},
    {"perturbation": "uniform", "scope": "model", "n_qubits": 40, "depth": 1},
    {"perturbation": "frozen", "scope": "all"},
    {"perturbation": "circuit", "backend": "sampled", "shots": 16, "every": 3, "seed": 2},
]


@pytest.mark.parametrize("how", ["compiled", "checkpointed"])
@pytest.mark.parametrize("told", ["by keyword", "by torch"])
@pytest.mark.parametrize("term", TERMS, ids=" ".join)
def test_what_wraps_a_model_changes_no_seed_no_order_and_no_draw(how, told, term):
    def weights(model: nn.Module) -> list[Tensor]:
        named = list(model.named_parameters())
        if told == "by torch":  # torch.optim keeps the names in the group
            base = torch.optim.AdamW(named, lr=LR)
            qsgd.attach(base, **{"named_parameters": named} if "scope" in term else {}, **term)
            return train(model, base)
        opt = qsgd.QSGD(model.parameters(), lr=LR, named_parameters=named, **term)
        return train(model, opt)

    plain = weights(make_model())
    model = wrapped(make_model(), how)
    assert {name for name, _ in model.named_parameters()} != dict(
        make_model().named_parameters()
    ).keys()
    assert_same(weights(model), plain)


@pytest.mark.parametrize(
    "names, own",
    [
        (["module._orig_mod.a.weight", "module._orig_mod.b"], ["a.weight", "b"]),
        (["_orig_mod.module.a", "_orig_mod.module.b"], ["a", "b"]),
        (["a._checkpoint_wrapped_module.w", "a.b"], ["a.w", "a.b"]),
        (["module.a", "a"], ["module.a", "a"]),  # a child that is called so
        (["module"], ["module"]),
        ([], []),
    ],
)
def test_a_parameters_name_is_its_own_whatever_the_model_is_wrapped_in(names, own):
    from qsgd_core.optim.coordinates.groups import unwrapped

    assert unwrapped(names) == own


def test_a_checkpoint_of_a_compiled_model_goes_on_in_a_plain_one_to_the_bit():
    term = {"perturbation": "circuit", "backend": "sampled", "shots": 16, "every": 5}
    compiled, plain = torch.compile(make_model(), backend="eager"), make_model()
    opt, resumed = (qsgd.QSGD(m.parameters(), lr=LR, **term) for m in (compiled, plain))
    train(compiled, opt)  # ends two steps into the five that share an s
    saved = copy.deepcopy([p.detach() for p in compiled.parameters()])
    resumed.load_state_dict(copy.deepcopy(opt.state_dict()))
    with torch.no_grad():
        for p, value in zip(plain.parameters(), saved, strict=True):
            p.copy_(value)
    assert_same(train(plain, resumed), train(compiled, opt), atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [adamw, sgd])
def test_a_compiled_step_with_the_term_is_the_compiled_base_step_and_the_term(backend, make):
    """Not AdamW's eager step: compiled, its bias correction is in float32."""
    model, other = make_model(), make_model()
    if make is adamw:
        opt = term = qsgd.QSGD(model.parameters(), lr=LR, quantum_weight=WEIGHT)
    else:
        opt = make(model)
        term = qsgd.attach(opt, quantum_weight=WEIGHT)
    base = make(other)
    ours = train(model, opt, torch.compile(opt.step, backend=backend))
    assert_same(ours, train_by_hand(other, base, torch.compile(base.step, backend=backend)))
    stats = term.qsgd_stats()
    assert stats.steps == stats.sources["exact"] == STEPS
    assert stats.effect_size_mean > 0


@pytest.mark.parametrize(
    "term",
    [
        {"inject": "gradient"},
        {"normalize": "update", "scope": "all"},
        {"perturbation": "circuit", "backend": "sampled", "shots": 16, "every": 3, "seed": 2},
    ],
    ids=["gradient", "normalized", "sampled"],
)
def test_a_compiled_step_ends_with_the_weights_of_the_plain_one(term):
    ours, theirs = make_model(), make_model()
    opt, other = sgd(ours), sgd(theirs)
    stats, expected = qsgd.attach(opt, **term), qsgd.attach(other, **term)
    compiled = train(ours, opt, torch.compile(opt.step, backend="aot_eager"))
    assert_same(compiled, train(theirs, other))
    assert stats.qsgd_stats().sources == expected.qsgd_stats().sources
