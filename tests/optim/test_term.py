"""The term is what the paper says it is, to the bit where bits can be compared."""

from __future__ import annotations

import math

import pytest
import torch

import qsgd_core as qsgd
from qsgd_core.optim.coordinates.selection import Bucket
from qsgd_core.simulate.halfturns import sinpi

SHAPES = [(8, 5), (3,), (7, 2, 2), (), (0, 4), (1,), (4,)]


def make_params(dtype: torch.dtype = torch.float32, seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype))
        for s in SHAPES
    ]


def set_grads(params: list[torch.nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(1000 + step)
    for p in params:
        grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        p.grad = grad.to(p.dtype)


def run(opt: torch.optim.Optimizer, params: list[torch.nn.Parameter], steps: int) -> None:
    for step in range(steps):
        set_grads(params, step)
        opt.step()


def leading(tensors: list[torch.Tensor]) -> torch.Tensor:
    """The first four coordinates of each, joined: what scope tensor selects with 4 qubits."""
    return torch.cat([t.detach().reshape(-1)[:4] for t in tensors])


def selected(scope: str, n: int) -> list[int]:
    """How many leading coordinates of each of SHAPES the scope selects."""
    sizes = [math.prod(s) for s in SHAPES]
    if scope == "tensor":
        return [min(n, size) for size in sizes]
    if scope == "all":
        return sizes
    left, taken = n, []
    for size in sizes:
        taken.append(min(left, size))
        left -= taken[-1]
    return taken


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("mode", [{"foreach": False}, {"foreach": True}, {"fused": True}])
@pytest.mark.parametrize("extra", [{}, {"amsgrad": True, "maximize": True}])
def test_quantum_weight_zero_is_adamw_to_the_bit(dtype, mode, extra):
    ours, theirs = make_params(dtype), make_params(dtype)
    run(qsgd.QSGD(ours, lr=0.01, quantum_weight=0.0, **mode, **extra), ours, 50)
    run(torch.optim.AdamW(theirs, lr=0.01, **mode, **extra), theirs, 50)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("scope", ["tensor", "model", "all"])
@pytest.mark.parametrize("n_qubits", [1, 3, 4])
def test_the_term_handed_to_the_add_is_minus_lr_lambda_s_g(scope, n_qubits, monkeypatch):
    params = make_params()
    opt = qsgd.QSGD(params, lr=0.02, quantum_weight=0.3, scope=scope, n_qubits=n_qubits)
    handed: dict[torch.Tensor, torch.Tensor] = {}
    add = Bucket.add_to_params

    def spy(bucket, term):
        for member, part in zip(bucket.members, term.split(bucket.lengths), strict=True):
            handed[member.param] = part.clone()
        add(bucket, term)

    monkeypatch.setattr(Bucket, "add_to_params", spy)
    for step in range(3):
        set_grads(params, step)
        before = [p.detach().double().reshape(-1) for p in params]
        handed.clear()
        opt.step()
        for p, theta, count in zip(params, before, selected(scope, n_qubits), strict=True):
            if count == 0:
                assert p not in handed
                continue
            g = p.grad.double().reshape(-1)[:count]
            expected = -0.02 * 0.3 * torch.sin(math.pi * theta[:count]) * g
            assert handed[p].dtype == torch.float32
            torch.testing.assert_close(handed[p].double(), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("scope", ["tensor", "model", "all"])
def test_weights_equal_a_hand_written_loop_to_the_bit(dtype, scope):
    ours, theirs = make_params(dtype), make_params(dtype)
    opt = qsgd.QSGD(ours, lr=0.05, quantum_weight=0.5, scope=scope, foreach=False)
    base = torch.optim.AdamW(theirs, lr=0.05, foreach=False)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    for step in range(10):
        set_grads(ours, step)
        opt.step()
        set_grads(theirs, step)
        before = [p.detach().clone().reshape(-1).to(compute) for p in theirs]
        base.step()
        for p, theta, count in zip(theirs, before, selected(scope, 4), strict=True):
            if count:
                g = p.grad.reshape(-1)[:count].to(compute)
                s = sinpi(theta[:count])
                term = (s * g) * (-0.05 * 0.5)
                flat = p.detach().reshape(-1)
                flat[:count] = (flat[:count].to(compute) + term).to(dtype)
                p.detach().copy_(flat.reshape(p.shape))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("scope", ["tensor", "model", "all"])
def test_injected_into_the_gradient_it_is_the_base_optimizer_fed_g_plus_lambda_q(scope):
    ours, theirs = make_params(), make_params()
    opt = qsgd.QSGD(ours, lr=0.05, quantum_weight=0.5, scope=scope, inject="gradient")
    base = torch.optim.AdamW(theirs, lr=0.05)
    for step in range(5):
        set_grads(ours, step)
        kept = [p.grad.clone() for p in ours]
        opt.step()
        assert all(torch.equal(p.grad, g) for p, g in zip(ours, kept, strict=True))
        set_grads(theirs, step)
        for p, count in zip(theirs, selected(scope, 4), strict=True):
            if count:
                theta, g = p.detach().reshape(-1)[:count], p.grad.reshape(-1)
                s = sinpi(theta)
                g[:count] += (s * g[:count]) * 0.5
        base.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("scope", ["tensor", "model", "all"])
def test_normalised_to_the_update_lambda_is_the_effect_size_of_each_tensor(scope):
    ours, theirs = make_params(torch.float64), make_params(torch.float64)
    kwargs = {"scope": scope, "normalize": "update", "quantum_weight": 0.5}
    opt = qsgd.QSGD(ours, lr=0.01, **kwargs)
    base = torch.optim.AdamW(theirs, lr=0.01)
    set_grads(ours, 0)
    set_grads(theirs, 0)
    before = [p.detach().clone().reshape(-1) for p in theirs]
    opt.step()
    base.step()
    for p, b, start, count in zip(ours, theirs, before, selected(scope, 4), strict=True):
        if count:
            term = (p.detach() - b.detach()).reshape(-1)[:count]
            step = b.detach().reshape(-1)[:count] - start[:count]
            assert abs(float(term.norm() / step.norm()) - 0.5) < 1e-6
    assert opt.qsgd_stats().effect_size == pytest.approx(0.5, abs=1e-9)


def test_normalised_term_is_zero_where_q_vanishes():
    p = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))  # sin(0) = 0, so Q = 0
    q = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    p.grad, q.grad = torch.ones(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    qsgd.QSGD([p], normalize="update").step()
    torch.optim.AdamW([q]).step()
    assert torch.equal(p, q)


def test_effect_size_is_the_ratio_of_rms_over_the_selected_coordinates():
    ours, theirs = make_params(torch.float64), make_params(torch.float64)
    opt, base = qsgd.QSGD(ours, quantum_weight=0.5), torch.optim.AdamW(theirs)
    ratios = []
    for step in range(4):
        for a, b in zip(ours, theirs, strict=True):
            b.data.copy_(a.data)
        before = [p.detach().clone() for p in theirs]
        set_grads(ours, step)
        set_grads(theirs, step)
        opt.step()
        base.step()
        term = leading(ours) - leading(theirs)
        moved = leading(theirs) - leading(before)
        ratios.append(float(term.norm() / moved.norm()))
    stats = opt.qsgd_stats()
    assert stats.steps == 4
    assert stats.effect_size == pytest.approx(ratios[-1], rel=1e-9)
    assert stats.effect_size_mean == pytest.approx(sum(ratios) / 4, rel=1e-9)
    assert stats.effect_size_max == pytest.approx(max(ratios), rel=1e-9)
    assert stats.sources["exact"] == 4


def test_effect_size_of_the_gradient_route_is_the_difference_to_a_shadow_step():
    ours, theirs, plain = (make_params(torch.float64) for _ in range(3))
    opt = qsgd.QSGD(ours, quantum_weight=0.5, inject="gradient")
    base = torch.optim.AdamW(plain)
    set_grads(ours, 0)
    set_grads(plain, 0)
    opt.step()
    base.step()
    with_term, without = leading(ours) - leading(theirs), leading(plain) - leading(theirs)
    expected = float((with_term - without).norm() / without.norm())
    assert opt.qsgd_stats().effect_size == pytest.approx(expected, rel=1e-9)
