"""When something is measured, and when s is held: circuits are counted, not trusted."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import qsgd_core as qsgd
from qsgd_core.builtin.simulators import SampledSimulator
from qsgd_core.circuits import Workload

Make = Callable[..., tuple[torch.optim.Optimizer, Any]]


def make_params() -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(s, generator=generator)) for s in [(3, 4), (5,)]]


def qsgd_on(params: list[Parameter], *, lr: float = 0.01, **kwargs: Any) -> tuple[Any, Any]:
    opt = qsgd.QSGD(params, lr=lr, backend="sampled", **kwargs)
    return opt, opt


def attach_to(params: list[Parameter], *, lr: float = 0.01, **kwargs: Any) -> tuple[Any, Any]:
    opt = torch.optim.SGD(params, lr=lr)
    return opt, qsgd.attach(opt, backend="sampled", **kwargs)


both = pytest.mark.parametrize("make", [qsgd_on, attach_to])


@pytest.fixture(name="calls")
def _calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Workload, int, int]]:
    """(workload, shots, seed) of every call of the sampled simulator."""
    calls: list[tuple[Workload, int, int]] = []
    run = SampledSimulator.run

    def counting(self: SampledSimulator, work: Workload, *, shots: int, seed: int) -> Any:
        calls.append((work, shots, seed))
        return run(self, work, shots=shots, seed=seed)

    monkeypatch.setattr(SampledSimulator, "run", counting)
    return calls


def step_with(opt: torch.optim.Optimizer, params: list[Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(1000 + step)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
    opt.step()


@both
def test_each_step_is_one_call_with_a_seed_of_its_own(make, calls):
    params = make_params()
    opt, term = make(params)
    for step in range(4):
        step_with(opt, params, step)
    assert len(calls) == len({seed for _, _, seed in calls}) == 4
    assert term.qsgd_stats().sources["measured"] == 4


@both
def test_every_k_measures_at_0_k_2k_and_holds_s_in_between(make, calls):
    params = make_params()
    opt, term = make(params, every=3, shots=8)
    at = []
    for step in range(8):
        before = len(calls)
        step_with(opt, params, step)
        at += [step] * (len(calls) - before)
        held = opt.state[params[0]]["qsgd_s"]
        if at[-1] == step:
            s = held.clone()
        assert torch.equal(held, s)
    assert at == [0, 3, 6]
    sources = term.qsgd_stats().sources
    assert (sources["measured"], sources["held"]) == (3, 5)


def test_the_held_s_times_the_new_gradient_is_what_is_added():
    params = make_params()
    opt, _ = attach_to(params, every=4, shots=8, quantum_weight=0.5)
    step_with(opt, params, 0)
    s = opt.state[params[0]]["qsgd_s"].clone()
    before = params[0].detach().clone()
    step_with(opt, params, 1)
    g = params[0].grad
    expected = before - 0.01 * g
    expected.view(-1)[:4] -= 0.01 * 0.5 * s * g.reshape(-1)[:4]
    torch.testing.assert_close(params[0].detach(), expected, rtol=1e-6, atol=1e-8)


@both
def test_every_may_be_a_schedule(make, calls):
    params = make_params()
    opt, _ = make(params, every=lambda step: 1 if step < 3 else 4)
    at = []
    for step in range(10):
        before = len(calls)
        step_with(opt, params, step)
        at += [step] * (len(calls) - before)
    assert at == [0, 1, 2, 3, 7]  # step 3 is the first whose s is held


@both
@pytest.mark.parametrize("into_new", [False, True])
def test_a_resume_in_mid_hold_measures_nothing_again(make, calls, into_new):
    ours, theirs = make_params(), make_params()
    opt, term = make(ours, every=4)
    for step in range(6):
        step_with(opt, ours, step)
    assert len(calls) == 2
    buffer = io.BytesIO()
    torch.save(opt.state_dict(), buffer)
    buffer.seek(0)
    for p, q in zip(ours, theirs, strict=True):
        q.data.copy_(p.data)
    if into_new:
        other, again = make(theirs, every=4)
        other.load_state_dict(torch.load(buffer, weights_only=True))
    else:
        opt.load_state_dict(torch.load(buffer, weights_only=True))
        other, again, theirs = opt, term, ours
    for step in (6, 7):
        step_with(other, theirs, step)
    assert len(calls) == 2
    step_with(other, theirs, 8)
    assert len(calls) == 3
    assert again.qsgd_stats().steps == 9


@both
def test_a_changed_block_size_is_measured_anew_in_mid_hold(make, calls):
    params = make_params()
    opt, _ = make(params, every=10)
    for step in range(4):
        if step == 2:
            opt.param_groups[0]["n_qubits"] = 5
        step_with(opt, params, step)
    assert [work.n_qubits for work, _, _ in calls] == [4, 5]


@both
@pytest.mark.parametrize("scope", ["tensor", "model", "all"])
def test_a_tensor_whose_gradients_begin_in_mid_hold_is_measured_then(make, calls, scope):
    """Also: a held s never stands where the base optimizer looks for state of its own."""
    params = [Parameter(torch.tensor([0.3, -0.7])), Parameter(torch.randn(6))]
    opt, _ = make(params, every=10, scope=scope)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        if step < 2:
            params[1].grad = None
        opt.step()
    assert len(calls) == 2
    assert all("qsgd_s" in opt.state[p] for p in params)


@both
def test_lr_zero_measures_nothing_and_is_no_step(make, calls):
    """torch.distributed.checkpoint makes state by stepping with lr 0 and zero gradients."""
    params = make_params()
    opt, term = make(params, every=3)
    before = [p.detach().clone() for p in params]
    for group in opt.param_groups:
        group["lr"] = 0.0
    step_with(opt, params, 0)
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    assert calls == []
    assert term.qsgd_stats().steps == 0
    opt.param_groups[0]["lr"] = 0.01
    for step in range(4):
        step_with(opt, params, step)
    assert len(calls) == 2
    assert term.qsgd_stats().steps == 4


@both
@pytest.mark.parametrize("gradient", [0.0, None])
def test_zero_or_no_gradients_measure_nothing(make, calls, gradient):
    params = make_params()
    opt, term = make(params)
    for p in params:
        p.grad = None if gradient is None else torch.zeros_like(p)
    opt.step()
    opt.step()
    assert calls == []
    stats = term.qsgd_stats()
    assert stats.steps == 2
    assert stats.sources["zero"] == (0 if gradient is None else 2)
    step_with(opt, params, 0)
    assert len(calls) == 1


@both
def test_quantum_weight_zero_measures_nothing(make, calls):
    params = make_params()
    opt, term = make(params, quantum_weight=0.0)
    for step in range(3):
        step_with(opt, params, step)
    assert calls == []
    assert term.qsgd_stats().steps == 3
    assert sum(term.qsgd_stats().sources.values()) == 0


@both
def test_quantum_weight_may_be_a_schedule_that_switches_the_term_on(make, calls):
    ours, theirs = make_params(), make_params()
    opt, term = make(ours, quantum_weight=lambda step: 0.0 if step < 2 else 0.1 * step)
    base, _ = make(theirs, quantum_weight=0.0)
    for step in range(4):
        step_with(opt, ours, step)
        step_with(base, theirs, step)
        same = all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert same is (step < 2)
    assert len(calls) == 2
    assert opt.param_groups[0]["quantum_weight"] == pytest.approx(0.3)
    assert term.qsgd_stats().sources["measured"] == 2


def test_a_weight_schedule_goes_on_in_copies_and_after_a_resume():
    params = make_params()
    opt = qsgd.QSGD(params, quantum_weight=lambda step: 1.0 / (step + 1))
    for step in range(3):
        step_with(opt, params, step)
    copied = copy.deepcopy(opt)
    resumed = qsgd.QSGD(make_params(), quantum_weight=lambda step: 1.0 / (step + 1))
    resumed.load_state_dict(opt.state_dict())
    for other in (opt, copied, resumed):
        step_with(other, other.param_groups[0]["params"], 3)
        assert other.param_groups[0]["quantum_weight"] == 0.25


@both
def test_shots_may_be_a_schedule(make, calls):
    params = make_params()
    opt, _ = make(params, shots=lambda step: 10 * 2**step)
    for step in range(4):
        step_with(opt, params, step)
    assert [shots for _, shots, _ in calls] == [10, 20, 40, 80]


def test_the_default_number_of_shots_is_the_backends(calls):
    params = make_params()
    opt, _ = qsgd_on(params)
    step_with(opt, params, 0)
    assert [shots for _, shots, _ in calls] == [SampledSimulator.capabilities.default_shots]


@both
def test_measured_s_is_the_sine_within_shot_noise(make, calls):
    params, shots = make_params(), 4000
    opt, _ = make(params, shots=shots, every=2)
    theta = params[0].detach().reshape(-1)[:4].clone()
    step_with(opt, params, 0)
    s = opt.state[params[0]]["qsgd_s"]
    exact = torch.sin(math.pi * theta)
    sigma = ((1 - exact**2).clamp_min(1e-3) / shots).sqrt()
    assert bool(((s - exact).abs() < 5 * sigma).all())  # 5 sigma
    assert s.dtype == torch.float32


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_s_of_a_low_precision_parameter_is_kept_in_float32_through_a_load(low, calls):
    params = [Parameter(p.detach().to(low)) for p in make_params()]
    opt, _ = qsgd_on(params, every=5, shots=1000, quantum_weight=20.0, lr=0.1)
    step_with(opt, params, 0)
    s = opt.state[params[0]]["qsgd_s"].clone()
    assert s.dtype == torch.float32
    assert not torch.equal(s, s.to(low).float())  # low precision would lose it
    other, _ = qsgd_on([Parameter(p.detach().clone()) for p in params], every=5, shots=1000)
    other.load_state_dict(opt.state_dict())
    loaded = other.state[other.param_groups[0]["params"][0]]["qsgd_s"]
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, s)
    step_with(other, other.param_groups[0]["params"], 1)
    assert len(calls) == 1


def test_distributed_checkpoints_init_step_costs_nothing_and_round_trips(calls):
    from torch.distributed.checkpoint.state_dict import (
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    def build() -> tuple[torch.nn.Module, qsgd.QSGD]:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 3)
        return model, qsgd.QSGD(model.parameters(), backend="sampled", every=4, shots=16)

    model, opt = build()
    get_optimizer_state_dict(model, opt)
    assert calls == []
    assert opt.qsgd_stats().steps == 0
    for step in range(2):
        step_with(opt, list(model.parameters()), step)
    saved = copy.deepcopy(get_optimizer_state_dict(model, opt))
    other_model, other = build()
    other_model.load_state_dict(model.state_dict())
    set_optimizer_state_dict(other_model, other, saved)
    assert len(calls) == 1
    for step in range(2, 6):
        step_with(opt, list(model.parameters()), step)
        step_with(other, list(other_model.parameters()), step)
    assert torch.equal(model.weight, other_model.weight)
    assert other.qsgd_stats() == opt.qsgd_stats()
    assert len(calls) == 3
