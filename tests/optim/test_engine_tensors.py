"""The term on tensors of every kind: dtypes, sparse gradients, memory that is replaced."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import qsgd_core as qsgd
from qsgd_core.errors import ConfigError

LR, WEIGHT = 0.5, 0.5


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def flat(tensor: Tensor) -> Tensor:
    real = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
    return real.contiguous().reshape(-1)


def sine_term(param: Tensor, grad: Tensor, count: int) -> Tensor:
    """-lr·λ·sin(πθ)⊙g on the first ``count`` coordinates, 0 on the rest."""
    theta, g = flat(param), flat(grad)
    term = -LR * WEIGHT * torch.sin(math.pi * theta) * g
    term[count:] = 0
    return term


@pytest.mark.parametrize("foreach", [False, True])
def test_parameters_of_several_dtypes_get_the_same_term(foreach):
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
    params = [Parameter(torch.full((5,), 0.25, dtype=dtype)) for dtype in dtypes]
    for p in params:
        p.grad = torch.ones_like(p)
    opt = torch.optim.SGD(params, lr=LR, foreach=foreach)
    qsgd.attach(opt, quantum_weight=WEIGHT)
    opt.step()
    expected = 0.25 - LR - LR * WEIGHT * math.sin(math.pi * 0.25)
    for p in params:
        eps = torch.finfo(p.dtype).eps  # one rounding of the step, one of the term
        assert abs(float(p[0].detach()) - expected) <= 2 * eps * abs(expected)
        assert float(p[4].detach()) == 0.25 - LR


def test_low_precision_terms_are_computed_in_float32():
    """θ = 1000.25 as bfloat16 is 1000; what is left to check is sin and product at float32."""
    theta = randn(512, dtype=torch.float32).to(torch.bfloat16)
    g = randn(512, seed=1, dtype=torch.float32).to(torch.bfloat16)
    p = Parameter(theta.clone())
    p.grad = g.clone()
    opt = torch.optim.SGD([p], lr=1.0)
    qsgd.attach(opt, quantum_weight=WEIGHT, scope="all")
    opt.step()
    stepped = (theta - g).float()  # SGD itself rounds to bfloat16
    term = -WEIGHT * torch.sin(math.pi * theta.double()) * g.double()
    exact = stepped.double() + term
    ulp = torch.finfo(torch.bfloat16).eps * exact.abs().clamp_min(1e-3)
    assert bool(((p.detach().double() - exact).abs() <= 0.5001 * ulp + 1e-7).all())


def test_a_parameter_swapped_for_another_in_its_group_carries_the_term():
    """What growing models do: optimizer.param_groups[0]["params"][0] = new_parameter."""
    old, new = Parameter(randn(4)), Parameter(randn(6, seed=1))
    opt = torch.optim.SGD([old], lr=LR)
    qsgd.attach(opt, quantum_weight=WEIGHT)
    for p in (old, new):
        p.grad = randn(*p.shape, seed=2)
    opt.step()
    opt.param_groups[0]["params"][0] = new
    before = new.detach().clone()
    opt.step()
    expected = before - LR * new.grad + sine_term(before, new.grad, 4)
    torch.testing.assert_close(new.detach(), expected, rtol=1e-9, atol=1e-12)


def test_a_parameter_whose_memory_was_replaced_carries_the_term():
    p = Parameter(randn(3, 4))
    opt = torch.optim.SGD([p], lr=LR)
    qsgd.attach(opt, quantum_weight=WEIGHT)
    p.grad = randn(3, 4, seed=1)
    opt.step()
    for replacement in (randn(3, 4, seed=2), randn(4, 3, seed=3).t()):
        p.data = replacement.clone(memory_format=torch.preserve_format)
        before, grad = p.detach().clone(), p.grad
        opt.step()
        expected = flat(before - LR * grad) + sine_term(before, grad, 4)
        torch.testing.assert_close(flat(p), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("inject", ["update", "gradient"])
def test_maximising_climbs_with_the_term_as_minimising_descends(make, inject):
    theta, g = randn(4), randn(4, seed=1)
    up, down = Parameter(theta.clone()), Parameter(theta.clone())
    up.grad, down.grad = g.clone(), -g
    for p, maximize in ((up, True), (down, False)):
        opt = make([p], lr=LR, maximize=maximize)
        qsgd.attach(opt, inject=inject, perturbation="circuit")
        opt.step()
    assert torch.equal(up, down)
    assert torch.equal(up.grad, g)


def sparse(shape: tuple[int, int], rows: list[int]) -> Tensor:
    values = randn(len(rows), shape[1], seed=3)
    return torch.sparse_coo_tensor(torch.tensor([rows]), values, shape, check_invariants=True)


@pytest.mark.parametrize("rows", [[0, 2], [2, 0, 0], [3], [1, 1]])
@pytest.mark.parametrize("scope", ["tensor", "model", "all"])
def test_sparse_gradients_give_the_term_of_the_dense_ones(rows, scope):
    """Also uncoalesced ones: a row that comes twice counts with its sum."""
    ours, theirs = Parameter(randn(5, 3)), Parameter(randn(5, 3))
    for cls, kwargs in ((torch.optim.SGD, {}), (torch.optim.SparseAdam, {"eps": 1e-4})):
        opt = cls([ours], lr=LR, **kwargs)
        qsgd.attach(opt, quantum_weight=WEIGHT, scope=scope)
        base = cls([theirs], lr=LR, **kwargs)
        for _ in range(2):
            ours.grad, theirs.grad = sparse((5, 3), rows), sparse((5, 3), rows)
            count = {"tensor": 4, "model": 4, "all": 15}[scope]
            term = sine_term(theirs, theirs.grad.to_dense(), count)
            opt.step()
            base.step()
            theirs.data.view(-1).add_(term)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_a_sparse_gradient_cannot_be_injected_into():
    p = Parameter(randn(5, 3))
    p.grad = sparse((5, 3), [0])
    opt = torch.optim.SGD([p], lr=LR)
    qsgd.attach(opt, inject="gradient", named_parameters=[("table", p)])
    with pytest.raises(ConfigError, match=r"'table' has a sparse gradient.*inject=\"update\""):
        opt.step()
