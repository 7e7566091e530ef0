"""Which coordinates get the term: logical row-major order, whatever the tensor looks like."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import qsgd_core as qsgd
from qsgd_core.circuits import CircuitBatch
from qsgd_core.errors import ConfigError
from qsgd_core.optim.source.modulation import ClosedForm
from qsgd_core.simulate import chain

LR, WEIGHT = 0.5, 0.5


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def qsgd_term(params: list[Parameter], grads: list[Tensor | None], **kwargs: Any) -> list[Tensor]:
    """What QSGD adds to AdamW's step, in logical order, as flat real vectors."""
    return difference(
        lambda ps: qsgd.QSGD(ps, lr=LR, quantum_weight=WEIGHT, **kwargs),
        lambda ps: torch.optim.AdamW(ps, lr=LR),
        params,
        grads,
    )


def attach_term(params: list[Parameter], grads: list[Tensor | None], **kwargs: Any) -> list[Tensor]:
    """What an attachment adds to plain SGD's step."""

    def attached(ps: list[Parameter]) -> torch.optim.Optimizer:
        opt = torch.optim.SGD(ps, lr=LR)
        qsgd.attach(opt, quantum_weight=WEIGHT, **kwargs)
        return opt

    return difference(attached, lambda ps: torch.optim.SGD(ps, lr=LR), params, grads)


def difference(
    ours: Callable[[list[Parameter]], torch.optim.Optimizer],
    base: Callable[[list[Parameter]], torch.optim.Optimizer],
    params: list[Parameter],
    grads: list[Tensor | None],
) -> list[Tensor]:
    results = []
    for make in (ours, base):
        copies = [
            Parameter(torch.empty_strided(p.shape, p.stride(), dtype=p.dtype).copy_(p.detach()))
            for p in params
        ]
        for p, g in zip(copies, grads, strict=True):
            p.grad = None if g is None else g.clone()
        make(copies).step()
        results.append([flat(p) for p in copies])
    return [a - b for a, b in zip(*results, strict=True)]


def flat(tensor: Tensor) -> Tensor:
    real = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
    return real.contiguous().reshape(-1)


def sine_term(param: Tensor, grad: Tensor, count: int) -> Tensor:
    """-lr·λ·sin(πθ)⊙g on the first ``count`` coordinates, 0 on the rest."""
    theta, g = flat(param), flat(grad)
    term = -LR * WEIGHT * torch.sin(math.pi * theta) * g
    term[count:] = 0
    return term


both = pytest.mark.parametrize("term_of", [qsgd_term, attach_term])

LAYOUTS: dict[str, Tensor] = {
    "transposed": randn(5, 3).t(),
    "sliced": randn(6, 8)[:, ::2],
    "channels last": randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
    "permuted": randn(2, 3, 4).permute(2, 0, 1),
    "offset view": randn(20)[3:13],
    "0-dim": randn(),
    "one element": randn(1),
    "shorter than n": randn(3),
    "empty": randn(0, 4),
    "complex": torch.complex(randn(3, 3), randn(3, 3, seed=1)),
    "complex transposed": torch.complex(randn(4, 3), randn(4, 3, seed=1)).t(),
    "complex 0-dim": torch.complex(randn(), randn(seed=1)),
}


@both
@pytest.mark.parametrize("scope", ["tensor", "all"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("grad_like_param", [True, False])
def test_coordinates_are_logical_for_every_layout(term_of, scope, layout, grad_like_param):
    param = Parameter(LAYOUTS[layout])
    grad = randn(*param.shape, seed=5, dtype=param.dtype)
    if grad_like_param:  # the strides autograd would give it
        grad = torch.empty_like(param).copy_(grad)
    (term,) = term_of([param], [grad], scope=scope)
    count = len(flat(param)) if scope == "all" else 4
    torch.testing.assert_close(term, sine_term(param, grad, count), rtol=1e-9, atol=1e-12)


@both
@pytest.mark.parametrize("scope", ["tensor", "model", "all"])
@pytest.mark.parametrize("missing", [(), (0,), (1,), (0, 1), (0, 1, 2)])
def test_tensors_without_gradient_keep_their_place_and_their_weights(term_of, scope, missing):
    params = [Parameter(randn(*s, seed=i)) for i, s in enumerate([(2,), (3, 3), (5,)])]
    grads = [None if i in missing else randn(*p.shape, seed=9) for i, p in enumerate(params)]
    terms = term_of(params, grads, scope=scope)
    counts = {"tensor": (2, 4, 4), "model": (2, 2, 0), "all": (2, 9, 5)}[scope]
    for p, g, term, count in zip(params, grads, terms, counts, strict=True):
        expected = torch.zeros_like(flat(p)) if g is None else sine_term(p, g, count)
        torch.testing.assert_close(term, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_qubits", [1, 2, 3, 4, 5, 7])
def test_blocks_of_scope_all_are_circuits_of_their_own_and_the_remainder_a_smaller_one(n_qubits):
    """With the entangled circuit s depends on the whole block, so wrong cuts show."""
    params = [Parameter(randn(*s, seed=i)) for i, s in enumerate([(3, 4), (5,), (), (7, 2), (2,)])]
    grads: list[Tensor | None] = [randn(*p.shape, seed=10 + i) for i, p in enumerate(params)]
    terms = attach_term(params, grads, scope="all", n_qubits=n_qubits, perturbation="circuit")
    for p, g, term in zip(params, grads, terms, strict=True):
        assert g is not None
        blocks = flat(p).split(n_qubits)
        s = -torch.cat(
            [
                chain.expectations(b[None], depth=2, entangler="chain", phases=None)[0]
                for b in blocks
            ]
        )
        torch.testing.assert_close(term, -LR * WEIGHT * s * flat(g), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scope", ["tensor", "model", "all"])
def test_the_description_counts_what_a_step_runs(scope, monkeypatch):
    shapes = [(3, 4), (5,), (), (0,), (2,)]
    params = [Parameter(randn(*s, seed=i)) for i, s in enumerate(shapes)]
    opt = qsgd.QSGD(params, scope=scope, backend="sampled", shots=4)
    asked: list[CircuitBatch] = []
    runner = opt._term.source.runner
    run = runner.run
    monkeypatch.setattr(
        runner, "run", lambda work, **k: asked.extend(work.batches) or run(work, **k)
    )
    for i, p in enumerate(params):
        p.grad = randn(*p.shape, seed=i + 1)
    opt.step()
    ran: dict[int, int] = {}
    for batch in asked:
        ran[batch.circuit.n_qubits] = ran.get(batch.circuit.n_qubits, 0) + len(batch.angles)
    described = opt.qsgd_describe()
    assert ran == described.block_sizes
    expected = {
        "tensor": {4: 2, 2: 1, 1: 1},
        "model": {4: 1},
        "all": {4: 4, 2: 1, 1: 2},
    }[scope]
    assert ran == expected
    assert described.n_blocks == sum(expected.values())
    assert described.n_coordinates == sum(size * k for size, k in expected.items())
    assert described.n_tensors == {"tensor": 4, "model": 1, "all": 4}[scope]
    assert described.first_circuit is not None
    assert described.first_circuit.n_qubits == 4


def test_all_blocks_of_one_size_are_one_batch(monkeypatch):
    seen = []
    formula = ClosedForm.modulate

    def spy(self: ClosedForm, buckets: Any, theta: Any, grad: Any, *, step: int) -> Any:
        seen.extend([(b.total, [blocks.size for blocks in b.blocks]) for b in buckets])
        return formula(self, buckets, theta, grad, step=step)

    monkeypatch.setattr(ClosedForm, "modulate", spy)
    params = [Parameter(randn(8, 8, seed=i, dtype=torch.float32)) for i in range(50)]
    for p in params:
        p.grad = torch.ones_like(p)
    qsgd.QSGD(params).step()
    assert seen == [(200, [4])]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("n_groups", [1, 2, 3])
def test_scope_model_follows_the_models_order_whatever_the_groups_are(reverse, n_groups):
    model = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.Linear(3, 2)).double()
    named = list(model.named_parameters())
    for i, (_, p) in enumerate(named):
        p.data.copy_(randn(*p.shape, seed=i))
    order = list(reversed(named)) if reverse else named
    groups = [{"params": [p for _, p in order[i::n_groups]]} for i in range(n_groups)]
    groups[0]["lr"] = 0.25
    before = {n: flat(p).clone() for n, p in named}
    grads = {n: randn(*p.shape, seed=20 + i) for i, (n, p) in enumerate(named)}
    for n, p in named:
        p.grad = grads[n].clone()
    opt = torch.optim.SGD(groups, lr=LR)
    qsgd.attach(opt, quantum_weight=WEIGHT, scope="model", n_qubits=5, named_parameters=iter(named))
    opt.step()
    counts = {"0.weight": 3, "0.bias": 2}  # of 3 and 3: the first five of the model
    for n, p in named:
        lr = 0.25 if any(p is q for q in groups[0]["params"]) else LR
        expected = before[n] - lr * flat(grads[n])
        count = counts.get(n, 0)
        expected[:count] -= (
            lr * WEIGHT * torch.sin(math.pi * before[n][:count]) * flat(grads[n])[:count]
        )
        torch.testing.assert_close(flat(p), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("told", [lambda w: {"w": w}, lambda w: [w], lambda w: [(w, "w")]])
def test_named_parameters_that_are_no_pairs_are_refused(told):
    w = Parameter(randn(3))
    with pytest.raises(ConfigError, match=r"as model\.named_parameters\(\) gives them"):
        qsgd.QSGD([w], named_parameters=told(w))


def test_scope_model_over_several_groups_without_names_is_refused():
    a, b = Parameter(randn(3)), Parameter(randn(3))
    refused = pytest.raises(ConfigError, match=r"named_parameters=model\.named_parameters\(\)")
    with refused:
        qsgd.QSGD([{"params": [a]}, {"params": [b]}], scope="model")
    opt = qsgd.QSGD([a], scope="model")
    with refused:
        opt.add_param_group({"params": [b]})
