"""Saving, loading, copying, detaching: nothing of the term is lost, nothing is left behind."""

from __future__ import annotations

import copy
import gc
import io
import logging
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import qsgd_core as qsgd
from qsgd_core.errors import ConfigError
from qsgd_core.optim.attach import attached
from qsgd_core.optim.config import GROUP_KEYS
from qsgd_core.optim.term.effect import BACKLOG


def make_params(dtype: torch.dtype = torch.float32) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(s, generator=generator).to(dtype)) for s in [(3, 4), (5,), ()]]


def train(opt: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(1000 + step)
        for group in opt.param_groups:
            for p in group["params"]:
                p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        opt.step()


def make(kind: str, params: Any, **kwargs: Any) -> tuple[torch.optim.Optimizer, Any]:
    if kind == "qsgd":
        opt = qsgd.QSGD(params, lr=0.05, **kwargs)
        return opt, opt
    base = torch.optim.SGD(params, lr=0.05, momentum=0.9)
    return base, qsgd.attach(base, **kwargs)


def params_of(opt: torch.optim.Optimizer) -> list[Parameter]:
    return [p for g in opt.param_groups for p in g["params"]]


def assert_same_weights(one: torch.optim.Optimizer, other: torch.optim.Optimizer) -> None:
    pairs = zip(params_of(one), params_of(other), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def through_disk(state: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


both = pytest.mark.parametrize("kind", ["qsgd", "attach"])

TERMS: list[dict[str, Any]] = [
    {},
    {"scope": "all", "normalize": "update"},
    {"scope": "model", "perturbation": "circuit", "every": 3},
    {"inject": "gradient"},
    {"backend": "sampled", "shots": 16, "every": 4, "seed": 7},
    {
        "backend": "sampled",
        "shots": lambda step: 8 + step,
        "seed": 0,
        "quantum_weight": lambda step: 1 / (step + 1),
    },
]
terms = pytest.mark.parametrize("term", TERMS, ids=lambda term: " ".join(term) or "default")


@both
@terms
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_resumed_run_is_bit_identical_to_the_uninterrupted_one(kind, term, dtype):
    straight, stats = make(kind, make_params(dtype), **term)
    first, _ = make(kind, make_params(dtype), **term)
    train(straight, range(10))
    train(first, range(6))
    resumed, resumed_stats = make(kind, make_params(dtype), **term)
    for p, q in zip(params_of(resumed), params_of(first), strict=True):
        p.data.copy_(q.data)
    resumed.load_state_dict(through_disk(first.state_dict()))
    train(resumed, range(6, 10))
    assert_same_weights(straight, resumed)
    assert resumed_stats.qsgd_stats() == stats.qsgd_stats()
    assert stats.qsgd_stats().steps == 10


@both
def test_how_often_statistics_are_read_or_saved_does_not_change_their_bits(kind):
    quiet, stats = make(kind, make_params())
    nosy, read = make(kind, make_params())
    steps = BACKLOG + 20
    for step in range(steps):
        train(quiet, range(step, step + 1))
        train(nosy, range(step, step + 1))
        if step % 50 == 3:
            read.qsgd_stats()
            nosy.load_state_dict(through_disk(nosy.state_dict()))
    assert stats.qsgd_stats() == read.qsgd_stats()
    assert stats.qsgd_stats().effect_size_mean > 0


@terms
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_and_pickles_of_qsgd_go_on_identically(term, copier):
    if copier is not copy.deepcopy and any(callable(v) for v in term.values()):
        term = {k: v for k, v in term.items() if not callable(v)}  # lambdas do not pickle
    opt = qsgd.QSGD(make_params(), **term)
    train(opt, range(5))
    copied = copier(opt)
    train(opt, range(5, 9))
    train(copied, range(5, 9))
    assert_same_weights(opt, copied)
    assert copied.qsgd_stats() == opt.qsgd_stats()
    assert copied.qsgd_stats().sources == opt.qsgd_stats().sources
    twice = copier(copied)
    train(twice, range(9, 10))
    train(opt, range(9, 10))
    assert_same_weights(opt, twice)


def test_a_copy_keeps_the_models_order():
    params = make_params()
    named = [(f"p{i}", p) for i, p in enumerate(params)]
    groups = [{"params": params[:1]}, {"params": params[1:]}]
    opt = qsgd.QSGD(groups, scope="model", named_parameters=reversed(named))
    copied = copy.deepcopy(opt)
    assert list(copied._term.names().values()) == ["p2", "p1", "p0"]
    train(opt, range(3))
    train(copied, range(3))
    assert_same_weights(opt, copied)


def test_the_copy_of_an_attached_optimizer_may_be_attached_again():
    """torch drops hooks in copies: the copy steps without the term until attach() is called."""
    opt, _ = make("attach", make_params())
    train(opt, range(3))
    bare, again = copy.deepcopy(opt), copy.deepcopy(opt)
    plain = torch.optim.SGD(make_params(), lr=0.05, momentum=0.9)
    plain.load_state_dict(opt.state_dict())
    for p, q in zip(params_of(plain), params_of(opt), strict=True):
        p.data.copy_(q.data)
    plain = copy.deepcopy(plain)
    qsgd.attach(again)
    for o in (opt, bare, again, plain):
        train(o, range(3, 6))
    assert_same_weights(opt, again)
    assert_same_weights(bare, plain)


@both
def test_a_plain_checkpoint_leaves_the_term_on_with_the_settings_it_had(kind):
    """Without care the group's λ would vanish with the loaded group, and the term with it."""
    settings = {"quantum_weight": 0.7, "n_qubits": 3, "scope": "all", "normalize": "update"}
    opt, stats = make(kind, make_params(), **settings)
    base = torch.optim.AdamW if kind == "qsgd" else torch.optim.SGD
    kwargs = {} if kind == "qsgd" else {"momentum": 0.9}
    plain = base(make_params(), lr=0.02, **kwargs)
    train(plain, range(3))
    opt.load_state_dict(through_disk(plain.state_dict()))
    group = opt.param_groups[0]
    assert {k: group[k] for k in settings} == settings
    assert group["lr"] == 0.02
    for p, q in zip(params_of(opt), params_of(plain), strict=True):
        p.data.copy_(q.data)
    train(opt, range(3, 5))
    train(plain, range(3, 5))
    assert not torch.equal(params_of(opt)[0], params_of(plain)[0])
    assert stats.qsgd_stats().sources["exact"] == 2


@both
@pytest.mark.parametrize("every", [None, 3])
def test_a_checkpoint_with_the_term_loads_into_the_plain_optimizer(kind, every):
    opt, _ = make(kind, make_params(), backend="sampled", shots=4, every=every)
    train(opt, range(4))
    base = torch.optim.AdamW if kind == "qsgd" else torch.optim.SGD
    plain = base(make_params(), lr=9.0)
    plain.load_state_dict(through_disk(opt.state_dict()))
    train(plain, range(4, 6))
    assert plain.param_groups[0]["lr"] == 0.05


@both
@pytest.mark.parametrize("steps", [0, 3])
def test_detaching_leaves_the_optimizer_as_it_was_without_the_term(kind, steps):
    params, others = make_params(), make_params()
    cls = torch.optim.AdamW if kind == "qsgd" else torch.optim.SGD
    opt, plain = cls(params, lr=0.05), cls(others, lr=0.05)
    untouched = set(vars(opt))
    term = qsgd.attach(opt, backend="sampled", shots=4, every=2)
    train(opt, range(steps))
    opt.state_dict()
    term.detach()
    assert set(vars(opt)) == untouched
    assert opt.param_groups[0].keys() == plain.param_groups[0].keys()
    assert not any(key.startswith("qsgd") for s in opt.state.values() for key in s)
    hooks = {k: v for k, v in vars(opt).items() if k.endswith("_hooks")}
    assert len(hooks) == 6
    assert not any(hooks.values())
    plain.load_state_dict(copy.deepcopy(opt.state_dict()))
    for p, q in zip(others, params, strict=True):
        p.data.copy_(q.data)
    train(opt, range(steps, steps + 3))
    train(plain, range(steps, steps + 3))
    assert_same_weights(opt, plain)
    qsgd.attach(opt, quantum_weight=0.25)
    assert opt.param_groups[0]["quantum_weight"] == 0.25


@pytest.mark.parametrize("route", ["deepcopy", "checkpoint"])
def test_attaching_anew_takes_the_new_arguments_where_the_old_ones_were_left_over(route):
    """The copy's groups hold the old settings, which once hid those of the call."""
    opt, term = make("attach", make_params(), quantum_weight=0.5, n_qubits=3, inject="gradient")
    train(opt, range(3))
    if route == "deepcopy":
        again = copy.deepcopy(opt)
    else:
        again = torch.optim.SGD(make_params(), lr=9.0)
        again.load_state_dict(through_disk(opt.state_dict()))
        for p, q in zip(params_of(again), params_of(opt), strict=True):
            p.data.copy_(q.data)
    term.detach()
    new = {"quantum_weight": lambda step: 1.0 + step, "scope": "all"}
    stats = qsgd.attach(again, **new)
    qsgd.attach(opt, **new)  # on the original, from which the term was taken off
    for step in range(3):
        train(again, range(step, step + 1))
        train(opt, range(step, step + 1))
        group = again.param_groups[0]
        assert [group[k] for k in GROUP_KEYS] == [1.0 + step, 4, "all", "update", None]
    assert_same_weights(opt, again)
    assert stats.qsgd_stats().steps == 3


def test_what_a_group_brought_itself_holds_in_a_copy_that_is_attached_anew():
    groups = [{"params": make_params(), "n_qubits": 3, "quantum_weight": 0.25}]
    opt, _ = make("attach", groups, scope="all")
    again = copy.deepcopy(opt)
    qsgd.attach(again, n_qubits=2, quantum_weight=lambda step: 7.0, scope="tensor")
    train(again, range(1))
    group = again.param_groups[0]
    assert [group[k] for k in GROUP_KEYS] == [0.25, 3, "tensor", "update", None]


@pytest.mark.parametrize("late", [False, True])
def test_a_group_taken_over_from_an_attached_optimizer_brings_no_leftovers(late):
    opt, _ = make("attach", make_params(), quantum_weight=0.5, n_qubits=3)
    group = copy.deepcopy(opt.param_groups[0])
    if late:
        other, _ = make("attach", make_params(), quantum_weight=0.1)
        other.add_param_group(group)
        train(other, range(1))
    else:
        other, _ = make("attach", [group], quantum_weight=0.1)
    assert (group["quantum_weight"], group["n_qubits"]) == (0.1, 4)


def test_an_s_held_before_a_copy_is_not_used_by_the_next_attachment():
    """A tensor without a gradient at the first measurement would have found the old one."""
    opt, _ = make("attach", make_params(), backend="sampled", shots=4, every=8)
    train(opt, range(3))
    again = copy.deepcopy(opt)
    qsgd.attach(again, backend="sampled", shots=4, every=8)
    assert not any(key.startswith("qsgd") for s in again.state.values() for key in s)
    assert "qsgd" not in again.param_groups[0]


@both
def test_a_group_that_came_just_before_a_load_keeps_what_is_loaded(kind):
    """Adopted only at the next step, it would take the loaded settings for leftovers."""
    saved, _ = make(kind, make_params(), n_qubits=3)
    saved.add_param_group({"params": make_params()})
    opt, _ = make(kind, make_params(), n_qubits=2)
    opt.add_param_group({"params": make_params()})
    train(saved, range(1))
    opt.load_state_dict(through_disk(saved.state_dict()))
    train(opt, range(1, 2))
    assert [g["n_qubits"] for g in opt.param_groups] == [3, 3]


def test_a_schedule_of_the_weight_survives_the_load_of_a_fixed_one():
    fixed, _ = make("attach", [{"params": make_params(), "quantum_weight": 0.25}])
    opt, _ = make("attach", make_params(), quantum_weight=lambda step: 2.0 + step)
    train(fixed, range(2))
    opt.load_state_dict(through_disk(fixed.state_dict()))
    train(opt, range(2, 3))
    assert opt.param_groups[0]["quantum_weight"] == 4.0


@pytest.mark.parametrize("copied", [False, True])
def test_detaching_leaves_the_settings_that_a_group_brought(copied):
    own = {"quantum_weight": 0.25, "scope": "all"}
    plain = torch.optim.SGD([{"params": make_params(), **own}], lr=0.05)
    opt, term = make("attach", [{"params": make_params(), **own}], n_qubits=3)
    train(opt, range(2))
    if copied:
        opt.load_state_dict(through_disk(opt.state_dict()))
        opt = copy.deepcopy(opt)
        term = qsgd.attach(opt, n_qubits=2)
    term.detach()
    group = opt.param_groups[0]
    assert group.keys() == plain.param_groups[0].keys()
    assert {k: group[k] for k in own} == own


@both
def test_the_numbers_in_a_checkpoint_are_plain_and_its_s_is_a_tensor(kind):
    opt, _ = make(kind, make_params(), backend="sampled", shots=4, every=3)
    train(opt, range(2))
    saved = opt.state_dict()
    group = saved["param_groups"][0]
    assert isinstance(group["qsgd"], str)
    assert {k: type(group[k]) for k in GROUP_KEYS} == {
        "quantum_weight": float,
        "n_qubits": int,
        "scope": str,
        "inject": str,
        "normalize": type(None),
    }
    assert [s["qsgd_s"].shape for s in saved["state"].values()] == [(4,), (4,), (1,)]


@both
@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("{", "cannot be read"),
        ('{"format": 1, "what": 2}', "cannot be read"),
        ('{"format": 99}', "newer qsgd-core.*format 99"),
    ],
)
def test_a_record_that_cannot_be_read_says_what_to_do(kind, record, said):
    opt, _ = make(kind, make_params())
    saved = opt.state_dict()
    saved["param_groups"][0]["qsgd"] = record
    with pytest.raises(ConfigError, match=said):
        opt.load_state_dict(saved)


@both
def test_a_checkpoint_of_another_backend_is_loaded_with_a_warning(kind, caplog):
    opt, _ = make(kind, make_params(), backend="sampled", shots=4)
    train(opt, range(2))
    other, _ = make(kind, make_params(), backend="exact")
    with caplog.at_level(logging.WARNING, "qsgd_core"):
        other.load_state_dict(opt.state_dict())
    assert len(caplog.records) == 1
    assert "sampled" in caplog.text
    assert "exact" in caplog.text
    train(other, range(2, 3))
    assert attached(other).qsgd_stats().sources["exact"] == 1


@both
def test_an_optimizer_with_the_term_is_garbage_once_nothing_refers_to_it(kind):
    opt, term = make(kind, make_params())
    train(opt, range(2))
    reference = weakref.ref(opt)
    del opt, term
    assert reference() is None


@both
def test_a_trial_that_went_out_of_scope_keeps_no_memory(kind):
    """A search loop makes one after the other; nothing may wait for the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        alive = []
        for every in (None, 2):
            params = make_params()
            alive += [weakref.ref(p) for p in params]
            opt, term = make(kind, params, backend="sampled", shots=4, every=every)
            train(opt, range(3))
            opt.state_dict()
            term.close()
            del params, opt, term
        assert [reference() for reference in alive] == [None] * 6
    finally:
        gc.enable()


def test_a_term_stays_on_its_optimizer_when_nobody_holds_it():
    opt = torch.optim.SGD(make_params(), lr=0.05)
    qsgd.attach(opt)
    train(opt, range(2))
    found = attached(opt)
    assert found is attached(opt)
    assert found.qsgd_stats().steps == 2
    found.detach()
    assert attached(opt) is None


def test_qsgd_close_of_earlier_programs_is_close():
    assert qsgd.QSGD.qsgd_close is qsgd.QSGD.close
