"""Parameter groups: each may have settings of its own, also one that comes later."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import qsgd_core as qsgd
from qsgd_core.errors import ConfigError
from qsgd_core.optim.config import GROUP_KEYS


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def make_params() -> list[Parameter]:
    return [Parameter(randn(2, 5, seed=i)) for i in range(3)]


def set_grads(params: list[Parameter], step: int = 0) -> None:
    for i, p in enumerate(params):
        p.grad = randn(*p.shape, seed=100 + 10 * step + i)


def make(kind: str, groups: Any, **kwargs: Any) -> torch.optim.Optimizer:
    if kind == "qsgd":
        return qsgd.QSGD(groups, lr=0.1, **kwargs)
    opt = torch.optim.AdamW(groups, lr=0.1)
    qsgd.attach(opt, **kwargs)
    return opt


both = pytest.mark.parametrize("kind", ["qsgd", "attach"])

OWN: list[dict[str, Any]] = [
    {"quantum_weight": 0.0},
    {"quantum_weight": 2.0},
    {"n_qubits": 3},
    {"scope": "all"},
    {"inject": "gradient"},
    {"normalize": "update"},
    {"scope": "all", "quantum_weight": 0.1},
    {"scope": "all", "n_qubits": 2, "quantum_weight": 0.2, "inject": "update", "normalize": None},
    {"lr": 0.01},
    {"maximize": True, "weight_decay": 0.5, "amsgrad": True},
]


@both
@pytest.mark.parametrize("own", OWN, ids=str)
@pytest.mark.parametrize("late", [False, True])
def test_a_group_with_settings_of_its_own_is_an_optimizer_of_its_own(kind, own, late):
    """Also when the group comes later, with some of the settings or with all of them."""
    ours, theirs = make_params(), make_params()
    if late:
        opt = make(kind, ours[:1], perturbation="circuit")
        opt.add_param_group({"params": ours[1:], **own})
    else:
        groups = [{"params": ours[:1]}, {"params": ours[1:], **own}]
        opt = make(kind, groups, perturbation="circuit")
    one = make(kind, theirs[:1], perturbation="circuit")
    other = make(kind, [{"params": theirs[1:], **own}], perturbation="circuit")
    for step in range(4):
        set_grads(ours, step)
        set_grads(theirs, step)
        opt.step()
        one.step()
        other.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert all(set(GROUP_KEYS) <= set(g) for g in opt.param_groups)


@both
def test_settings_changed_in_mid_run_hold_from_the_next_step(kind):
    ours, theirs = make_params(), make_params()
    opt = make(kind, ours)
    base = make(kind, theirs, n_qubits=6, scope="all", quantum_weight=0.2, inject="gradient")
    opt.param_groups[0].update(n_qubits=6, scope="all", quantum_weight=0.2, inject="gradient")
    for step in range(3):
        set_grads(ours, step)
        set_grads(theirs, step)
        opt.step()
        base.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_one_model_wide_block_may_lie_in_groups_of_every_kind():
    """lr, λ, direction and route differ between the groups that share the block."""
    ours = make_params()
    before = [p.detach().clone().reshape(-1) for p in ours]
    settings: list[dict[str, Any]] = [
        {"lr": 0.1, "quantum_weight": 0.5},
        {"lr": torch.tensor([[0.2]], dtype=torch.float64), "quantum_weight": 1.5},
        {"lr": 0.3, "quantum_weight": 0.7, "inject": "gradient"},
    ]
    groups = [{"params": [p], **s} for p, s in zip(ours, settings, strict=True)]
    opt = torch.optim.SGD(groups)
    named = [("a", ours[0]), ("b", ours[1]), ("c", ours[2])]
    qsgd.attach(opt, scope="model", n_qubits=24, named_parameters=named)
    set_grads(ours)
    opt.step()
    for p, theta, own, count in zip(ours, before, settings, (10, 10, 4), strict=True):
        g = p.grad.reshape(-1)
        q = torch.sin(math.pi * theta) * g
        q[count:] = 0
        expected = theta - float(own["lr"]) * (g + own["quantum_weight"] * q)
        torch.testing.assert_close(p.detach().reshape(-1), expected, rtol=1e-9, atol=1e-12)


@both
@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"quantum_weight": -1.0}, "quantum_weight must be finite and at least 0, not -1"),
        ({"quantum_weight": "much"}, "quantum_weight must be a number, not 'much'"),
        ({"n_qubits": 0}, "n_qubits must be an integer of at least 1, not 0"),
        ({"scope": "layer"}, "scope must be .* not 'layer'"),
        ({"inject": "both"}, "inject must be .* not 'both'"),
        ({"normalize": "rms"}, "normalize must be .* not 'rms'"),
        ({"inject": "gradient", "normalize": "update"}, 'Use inject="update"'),
        (
            {"scope": "all", "quantum_weight": math.nan, "n_qubits": 2, "inject": "update"},
            "not nan",
        ),
    ],
)
def test_settings_of_a_group_that_cannot_be_used_are_refused_with_the_value(kind, own, said):
    params = make_params()
    with pytest.raises(ConfigError, match=said):
        make(kind, [{"params": params[:1]}, {"params": params[1:], **own}])


def test_gradient_injection_into_a_differentiable_step_is_refused():
    with pytest.raises(ConfigError, match="differentiable"):
        qsgd.QSGD(make_params(), inject="gradient", differentiable=True)


@both
def test_names_in_the_groups_are_the_names_in_errors_and_seeds(kind):
    params = make_params()
    named = [(f"layer{i}.weight", p) for i, p in enumerate(params)]
    opt = make(kind, named)
    attachment = vars(opt)["_qsgd_attachment"]
    assert list(attachment.names().values()) == [n for n, _ in named]
    other = make(kind, make_params())
    assert list(vars(other)["_qsgd_attachment"].names().values()) == ["0.0", "0.1", "0.2"]


def test_a_group_that_replaces_another_gets_the_terms_settings():
    first, second = (torch.nn.Parameter(torch.full((4,), 0.3)) for _ in range(2))
    sgd = torch.optim.SGD([first], lr=0.1)
    qsgd.attach(sgd, quantum_weight=0.5)
    sgd.param_groups.clear()
    sgd.add_param_group({"params": [second]})
    second.grad = torch.ones(4)
    sgd.step()
    assert sgd.param_groups[0]["quantum_weight"] == 0.5
    s = torch.sin(torch.tensor(0.3 * torch.pi))
    torch.testing.assert_close(second.detach(), torch.full((4,), 0.3) - 0.1 - 0.1 * 0.5 * s)
