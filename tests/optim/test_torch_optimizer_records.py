"""torch's own generic optimizer checks, on QSGD and on an attached AdamW.

The inputs are torch's: the ``OptimizerInfo`` record of AdamW. The checks of its
``test/test_optim.py``, which the wheel does not carry, are written anew. ``scope="all"`` lets the
term reach every coordinate, so that splitting a tensor in two never changes which ones it reaches.
"""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.testing._internal.common_optimizers import (
    OptimizerErrorEnum,
    _get_optim_inputs_including_global_cliquey_kwargs,
    optim_db,
)

import qsgd_core as qsgd

Make = Callable[..., Optimizer]


def attached(params: Any, *args: Any, **kwargs: Any) -> Optimizer:
    optimizer = AdamW(params, *args, **kwargs)
    qsgd.attach(optimizer, quantum_weight=0.5, scope="all")
    return optimizer


MAKERS: dict[str, Make] = {
    "QSGD": partial(qsgd.QSGD, quantum_weight=0.5, scope="all"),
    "attached": attached,
}
RECORDS = {info.optim_cls: info for info in optim_db}
RECORD = RECORDS[AdamW]
INPUTS = {i.desc: i.kwargs for i in RECORD.optim_inputs_func("cpu")}
IMPLEMENTATIONS = {
    "loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
PLAIN = {
    f"{desc}, {name}": kwargs | IMPLEMENTATIONS[name]
    for k, (desc, kwargs) in enumerate(INPUTS.items())
    for name in (list(IMPLEMENTATIONS) * 2)[k % 3 : k % 3 + 2]  # each meets each, in few tests
}
SCHEDULES = [s for cls in (AdamW, Adam, SGD) for s in RECORDS[cls].scheduler_inputs]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each optimizer where a test takes one; with inputs, they take turns from input to input."""
    if "make" not in metafunc.fixturenames:
        return
    for name, inputs in (("kwargs", INPUTS), ("plain", PLAIN)):
        if name in metafunc.fixturenames:
            turns = zip(itertools.cycle(MAKERS), inputs.items())
            given = [
                pytest.param(MAKERS[maker], kwargs, id=f"{maker}-{desc}")
                for maker, (desc, kwargs) in turns
            ]
            metafunc.parametrize(["make", name], given, indirect=[name])
            return
    metafunc.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.fixture(name="kwargs")
def _kwargs(request: pytest.FixtureRequest) -> dict[str, Any]:
    return copy.deepcopy(request.param)


@pytest.fixture(name="plain")
def _plain(request: pytest.FixtureRequest) -> dict[str, Any]:
    return copy.deepcopy(request.param)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def some_params(dtype: torch.dtype = torch.float32) -> list[Parameter]:
    return [Parameter(randn(*s, seed=i, dtype=dtype)) for i, s in enumerate([(3, 4), (5,), ()])]


def set_grads(params: list[Parameter], step: int) -> None:
    for i, p in enumerate(params):
        p.grad = randn(*p.shape, seed=100 * step + i % 3, dtype=p.dtype)


def train(opt: Optimizer, params: list[Parameter], steps: range = range(3)) -> None:
    for step in steps:
        set_grads(params, step)
        opt.step()


def flat(state: Any) -> Iterator[tuple[str, Any]]:
    """Leaves of a state dict with their paths."""
    if isinstance(state, dict):
        for key in sorted(state, key=str):
            yield from ((f"{key}.{path}", leaf) for path, leaf in flat(state[key]))
    elif isinstance(state, list | tuple):
        yield from flat(dict(enumerate(state)))
    else:
        yield "", state


def assert_same_state(one: Any, other: Any) -> None:
    a, b = dict(flat(one)), dict(flat(other))
    assert a.keys() == b.keys()
    for path, value in a.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, b[path]), path
            assert value.dtype == b[path].dtype, path
        else:
            assert value == b[path], path


def assert_equal(ours: list[Parameter], theirs: list[Parameter], **tolerance: float) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), **(tolerance or {"rtol": 0, "atol": 0}))


def test_the_record_leaves_the_choice_of_implementation_to_the_tests():
    assert not {"foreach", "fused", "differentiable"} & {k for kw in INPUTS.values() for k in kw}
    assert "cpu" in RECORD.supports_fused_on


@pytest.mark.parametrize(
    "error", RECORD.optim_error_inputs_func("cpu", torch.float32), ids=lambda e: e.error_regex[:40]
)
def test_bad_arguments_raise_what_adamw_raises(error):
    assert error.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR
    given = error.optimizer_error_input
    params = [Parameter(torch.ones(1))] if given.params is None else copy.deepcopy(given.params)
    if issubclass(error.error_type, Warning):
        with pytest.warns(error.error_type, match=error.error_regex):
            MAKERS["QSGD"](params, **given.kwargs)
    else:
        with pytest.raises(error.error_type, match=error.error_regex):
            MAKERS["QSGD"](params, **given.kwargs)


def descend(
    make: Make, kwargs: dict[str, Any], *, contiguous: bool, schedule: Any, groups: bool = False
) -> tuple[float, float]:
    """Loss before and after 30 steps of a small least-squares problem."""
    weight = Parameter(randn(2, 5, 2)[..., 0] if not contiguous else randn(2, 5))
    bias, data = Parameter(randn(2, seed=1)), randn(5, seed=2)
    assert weight.is_contiguous() is contiguous
    params: Any = (
        [{"params": [weight]}, {"params": [bias], "lr": 0.02}] if groups else [weight, bias]
    )
    opt = make(params, **kwargs)
    schedulers = [s(opt) for s in schedule]
    sign = -1.0 if kwargs.get("maximize") else 1.0
    losses = []
    for _ in range(30):
        opt.zero_grad()
        loss = sign * (weight.mv(data) + bias).square().sum()
        losses.append(float(loss.detach()) * sign)
        loss.backward()
        opt.step()
        for scheduler in schedulers:
            scheduler.step(*([losses[-1]] if isinstance(scheduler, ReduceLROnPlateau) else []))
    return losses[0], losses[-1]


@pytest.mark.parametrize("foreach, contiguous", [(False, True), (True, False)])
def test_it_goes_in_the_right_direction(make, kwargs, foreach, contiguous):
    kwargs |= {"foreach": foreach}
    first, last = descend(make, kwargs, contiguous=contiguous, schedule=())
    assert last < first


@pytest.mark.parametrize(
    "schedule, foreach, groups", [(s, k % 2 == 0, k % 4 < 2) for k, s in enumerate(SCHEDULES)]
)
def test_it_goes_in_the_right_direction_under_every_schedule(make, schedule, foreach, groups):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns if it takes scheduler and step for swapped
        first, last = descend(
            make, {"foreach": foreach}, contiguous=True, schedule=schedule, groups=groups
        )
    assert last < first


@pytest.mark.parametrize("num_dim", [0, 1, 2])
def test_a_tensor_learning_rate_is_the_number_it_holds(make, kwargs, num_dim):
    lr = kwargs.pop("lr", 1e-3)
    ours, theirs = some_params(), some_params()
    tensor = torch.tensor(lr).reshape([1] * num_dim)
    train(make([{"params": ours[:1]}, {"params": ours[1:]}], lr=tensor, **kwargs), ours)
    train(make(theirs, lr=lr, **kwargs), theirs)
    assert_equal(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("foreach", [False, True])
def test_complex_parameters_move_as_their_real_views(make, kwargs, foreach):
    kwargs |= {"foreach": foreach}
    ours = [Parameter(randn(*s, seed=i, dtype=torch.complex64)) for i, s in enumerate([(3, 4), ()])]
    theirs = [Parameter(torch.view_as_real(p.detach()).clone()) for p in ours]
    opt, base = make(ours, **kwargs), make(theirs, **kwargs)
    for step in range(3):
        set_grads(ours, step)
        for a, b in zip(ours, theirs, strict=True):
            b.grad = torch.view_as_real(a.grad).clone()
        opt.step()
        base.step()
    assert_equal([torch.view_as_real(p.detach()) for p in ours], theirs, rtol=1e-6, atol=1e-7)


def test_a_complex_parameter_moves_as_two_real_ones(make, kwargs):
    ours = [Parameter(randn(4, 2, dtype=torch.complex64))]
    theirs = [Parameter(ours[0].detach().real.clone()), Parameter(ours[0].detach().imag.clone())]
    opt, base = make(ours, **kwargs), make(theirs, **kwargs)
    for step in range(3):
        set_grads(ours, step)
        theirs[0].grad, theirs[1].grad = ours[0].grad.real.clone(), ours[0].grad.imag.clone()
        opt.step()
        base.step()
    assert_equal([ours[0].detach().real, ours[0].detach().imag], theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
def test_foreach_matches_the_loop(make, kwargs, dtype):
    ours, theirs = some_params(dtype), some_params(dtype)
    opt = make(ours, foreach=True, **kwargs)
    base = make(theirs, foreach=False, **kwargs)
    train(opt, ours, range(7))
    train(base, theirs, range(7))
    assert_equal(ours, theirs, rtol=1e-6, atol=1e-7)
    assert opt.state_dict()["state"].keys() == base.state_dict()["state"].keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_fused_matches_the_loop(make, dtype):
    low = dtype in (torch.bfloat16, torch.float16)
    for given in RECORD.optim_inputs_func("cpu", dtype):
        ours, theirs = some_params(dtype), some_params(dtype)
        train(make(ours, fused=True, **given.kwargs), ours, range(7))
        train(make(theirs, foreach=False, **given.kwargs), theirs, range(7))
        # torch's own tolerance for the low precisions
        tolerance = {"rtol": 5e-3, "atol": 5e-3} if low else {"rtol": 1e-6, "atol": 1e-7}
        assert_equal(ours, theirs, **tolerance)


def test_fused_does_not_step_where_a_scaler_found_infinities(make, kwargs):
    params = some_params()
    opt = make(params, fused=True, **kwargs)
    before = [p.detach().clone() for p in params]
    opt.grad_scale, opt.found_inf = torch.tensor(2.0), torch.tensor(1.0)
    train(opt, params, range(2))
    assert_equal(params, before)
    assert all(float(s["step"]) == 0 for s in opt.state.values())


def test_fused_under_a_scaler_equals_unscaled_training(make, kwargs):
    ours, theirs = some_params(), some_params()
    opt, base = make(ours, fused=True, **kwargs), make(theirs, fused=True, **kwargs)
    scaler = torch.amp.GradScaler("cpu", init_scale=128.0, growth_interval=2)
    for step in range(6):
        factor = float(scaler.scale(torch.ones(())))
        for p, q in zip(ours, theirs, strict=True):
            q.grad = randn(*p.shape, seed=step)
            p.grad = q.grad * factor
        scaler.step(opt)
        scaler.update()
        base.step()
    assert_equal(ours, theirs)


def test_weight_decay_is_per_group(make):
    ours, theirs = some_params(), some_params()
    groups = [{"params": ours[:1], "weight_decay": 0.3}, {"params": ours[1:]}]
    train(make(groups, lr=0.1, weight_decay=0.0), ours)
    train(make(theirs[:1], lr=0.1, weight_decay=0.3), theirs[:1])
    assert_equal(ours[:1], theirs[:1])
    assert not torch.equal(ours[0], some_params()[0])


def test_the_learning_rate_is_per_group(make):
    ours, theirs = some_params(), some_params()
    train(make([{"params": ours[:1], "lr": 0.1}, {"params": ours[1:]}], lr=0.0), ours)
    train(make(theirs[:1], lr=0.1), theirs[:1])
    assert_equal(ours[:1], theirs[:1])
    assert_equal(ours[1:], some_params()[1:])


def test_without_gradients_a_step_does_nothing(make, plain):
    params = some_params()
    opt = make(params, **plain)
    before = [p.detach().clone() for p in params]
    opt.step()
    assert_equal(params, before)
    assert not opt.state


def test_with_zero_gradients_and_no_decay_a_step_moves_nothing(make, plain):
    params = some_params()
    opt = make(params, **(plain | {"weight_decay": 0.0}))
    before = [p.detach().clone() for p in params]
    for _ in range(5):
        for p in params:
            p.grad = torch.zeros_like(p)
        opt.step()
    assert_equal(params, before)


def test_parameters_without_elements_are_stepped_over(make, plain):
    params = [Parameter(torch.zeros(0)), Parameter(torch.zeros(0, 3)), Parameter(randn(3))]
    before = params[2].detach().clone()
    train(make(params, **plain), params)
    assert not torch.equal(params[2], before)


def test_gradients_may_come_for_some_parameters_only(make, plain):
    ours, theirs = some_params(), some_params()
    opt, base = make(ours, **plain), make(theirs, **(plain | {"fused": None, "foreach": False}))
    for step in range(6):
        for params in (ours, theirs):
            set_grads(params, step)
            params[step % 3].grad = None
        opt.step()
        base.step()
    assert_equal(ours, theirs, rtol=1e-6, atol=1e-7)


def test_it_can_be_printed(make, plain):
    opt = make([{"params": [p]} for p in some_params()], **plain)
    text = repr(opt)
    assert text.startswith(f"{type(opt).__name__} (")
    assert text.count("Parameter Group") == 3
    assert text.count("quantum_weight: 0.5") == 3


def named(params: list[Parameter]) -> list[tuple[str, Parameter]]:
    return [(f"p{i}", p) for i, p in enumerate(params)]


@pytest.mark.parametrize("with_names", [False, True])
def test_a_copy_from_the_state_dict_goes_on_identically(make, plain, with_names):
    ours, theirs = some_params(), some_params()
    given = (lambda ps: named(ps)) if with_names else (lambda ps: ps)
    opt = make(given(ours), **plain)
    train(opt, ours, range(4))
    for p, q in zip(ours, theirs, strict=True):
        q.data.copy_(p.data)
    copied = make(given(theirs), **plain)
    copied.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert_same_state(opt.state_dict(), copied.state_dict())
    train(opt, ours, range(4, 8))
    train(copied, theirs, range(4, 8))
    assert_equal(ours, theirs)
    assert_same_state(opt.state_dict(), copied.state_dict())


@pytest.mark.parametrize("flag", RECORD.not_og_supported_flags)
def test_an_older_state_dict_without_a_newer_flag_loads(make, kwargs, flag):
    params = some_params()
    opt = make(params, **kwargs)
    train(opt, params)
    older = copy.deepcopy(opt.state_dict())
    for group in older["param_groups"]:
        del group[flag]
    opt.load_state_dict(older)
    train(opt, params, range(3, 6))
    assert flag in opt.param_groups[0]


@pytest.mark.parametrize("from_named", [False, True])
@pytest.mark.parametrize("to_named", [False, True])
def test_state_dicts_move_between_named_and_unnamed_parameters(make, from_named, to_named):
    ours, theirs = some_params(), some_params()
    opt = make(named(ours) if from_named else ours)
    train(opt, ours)
    other = make(named(theirs) if to_named else theirs)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    for p, q in zip(ours, theirs, strict=True):
        q.data.copy_(p.data)
    train(opt, ours, range(3, 6))
    train(other, theirs, range(3, 6))
    assert_equal(ours, theirs)
    assert ("param_names" in other.param_groups[0]) == (from_named or to_named)


def test_what_is_saved_loads_with_weights_only(make, plain):
    ours = some_params()
    opt = make(ours, **plain)
    train(opt, ours)
    buffer = io.BytesIO()
    torch.save(opt.state_dict(), buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    assert_same_state(opt.state_dict(), loaded)
    other = make(some_params(), **plain)
    other.load_state_dict(loaded)
    assert_same_state(opt.state_dict(), other.state_dict())


def test_a_step_counter_that_is_a_number_loads(make, plain):
    params = some_params()
    opt = make(params, **plain)
    train(opt, params)
    saved = copy.deepcopy(opt.state_dict())
    for state in saved["state"].values():
        state["step"] = float(state["step"])
    opt.load_state_dict(saved)
    train(opt, params, range(3, 5))
    assert all(float(s["step"]) == 5 for s in opt.state.values())


def test_loading_casts_state_to_the_parameters_dtype(make, plain):
    single, double = some_params(), some_params(torch.float64)
    opt = make(single, **plain)
    train(opt, single)
    other = make(double, **plain)
    other.load_state_dict(opt.state_dict())
    train(other, double, range(3, 5))
    for state in other.state.values():
        assert state["exp_avg"].dtype == torch.float64
        assert state["step"].dtype == torch.float32


def test_every_parameter_that_stepped_has_state(make, plain):
    params = some_params()
    opt = make(params, **plain)
    train(opt, params)
    assert set(opt.state) == set(params)
    assert all({"step", "exp_avg", "exp_avg_sq"} <= set(s) for s in opt.state.values())


def test_parameters_of_several_dtypes_in_one_group(make, plain):
    dtypes = [torch.float64, torch.float32, torch.bfloat16]
    if not plain.get("fused"):  # torch's fused kernels take no complex numbers
        dtypes.append(torch.complex64)
    ours = [p for dtype in dtypes for p in some_params(dtype)]
    theirs = [p for dtype in dtypes for p in some_params(dtype)]
    train(make(ours, **plain), ours, range(5))
    for k in range(0, len(theirs), 3):
        mine = theirs[k : k + 3]
        train(make(mine, **(plain | {"fused": None, "foreach": False})), mine, range(5))
        tolerance = 5e-3 if mine[0].dtype == torch.bfloat16 else 1e-6
        assert_equal(ours[k : k + 3], mine, rtol=tolerance, atol=tolerance)


def test_another_default_dtype_changes_nothing(make, plain):
    ours, theirs = some_params(), some_params()
    train(make(ours, **plain), ours)
    torch.set_default_dtype(torch.float64)
    try:
        opt = make(theirs, **plain)
        train(opt, theirs)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_equal(ours, theirs, rtol=1e-6, atol=1e-7)


def test_step_hooks_run_once_in_order_also_after_an_adamw_exists(make):
    AdamW([Parameter(torch.ones(1))])  # torch patches step once for a class and its subclasses
    params, calls = some_params(), []
    opt = make(params)
    set_grads(params, 0)
    handles = [
        register_optimizer_step_pre_hook(lambda *_: calls.append("global pre")),
        register_optimizer_step_post_hook(lambda *_: calls.append("global post")),
        opt.register_step_pre_hook(lambda *_: calls.append("pre")),
        opt.register_step_post_hook(lambda *_: calls.append("post")),
    ]
    opt.step()
    assert calls == ["global pre", "pre", "post", "global post"]
    for handle in handles:
        handle.remove()
    opt.step()
    assert len(calls) == 4


def test_a_pre_hook_may_replace_the_arguments(make):
    params, given = some_params(), []
    opt = make(params)
    set_grads(params, 0)

    def closure() -> float:
        given.append("called")
        return 7.0

    opt.register_step_pre_hook(lambda _, args, kwargs: (args, kwargs))
    assert opt.step(closure) == 7.0
    assert opt.step(closure=closure) == 7.0
    assert given == ["called"] * 2


def test_state_dict_hooks_run_in_order_and_may_replace_the_dict(make):
    params, calls = some_params(), []
    opt = make(params)
    train(opt, params)
    opt.register_state_dict_pre_hook(lambda _: calls.append("pre"))
    opt.register_state_dict_post_hook(lambda _, d: calls.append("post") or {**d, "mine": 1})
    assert opt.state_dict()["mine"] == 1
    assert calls == ["pre", "post"]


@pytest.mark.parametrize("prepend", [False, True])
def test_load_hooks_run_in_order_and_may_replace_the_dict(make, prepend):
    params, calls = some_params(), []
    opt = make(params)
    train(opt, params)
    saved = copy.deepcopy(opt.state_dict())
    saved["param_groups"][0]["lr"] = 0.25

    def doubled(_: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        calls.append("pre")
        changed = copy.deepcopy(state_dict)
        changed["param_groups"][0]["lr"] *= 2
        return changed

    opt.register_load_state_dict_pre_hook(doubled, prepend=prepend)
    opt.register_load_state_dict_post_hook(lambda _: calls.append("post"), prepend=prepend)
    opt.load_state_dict(saved)
    assert calls == ["pre", "post"]
    assert opt.param_groups[0]["lr"] == 0.5
    assert saved["param_groups"][0]["lr"] == 0.25
    train(opt, params)


def public(opt: Optimizer) -> set[str]:
    return {name for name in vars(opt) if not name.startswith("_")}


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_and_pickles_have_every_public_attribute_and_step(make, plain, copier):
    params = some_params()
    opt = make([{"params": [p]} for p in params], **plain)
    train(opt, params)
    copied = copier(opt)
    assert public(copied) == public(opt)
    assert_same_state(opt.state_dict()["state"], copied.state_dict()["state"])
    theirs = [p for g in copied.param_groups for p in g["params"]]
    assert not set(theirs) & set(params)
    assert_equal(params, theirs)
    train(copied, theirs, range(3, 5))
    assert not torch.equal(theirs[0], params[0])


def test_groups_added_later_are_trained(make, plain):
    ours, theirs = some_params(), some_params()
    opt = make(ours[:1], **plain)
    base = make(theirs, **plain)
    opt.add_param_group({"params": ours[1:]})
    train(opt, ours)
    train(base, theirs)
    assert_equal(ours, theirs)
    assert opt.param_groups[0].keys() == opt.param_groups[1].keys()


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_clears_every_gradient(make, set_to_none):
    params = some_params()
    opt = make(params)
    train(opt, params)
    opt.zero_grad(set_to_none=set_to_none)
    assert all(p.grad is None if set_to_none else not p.grad.any() for p in params)


def test_a_closure_is_evaluated_once_with_gradients_and_its_loss_returned(make, plain):
    ours, theirs, calls = some_params(), some_params(), []
    opt, base = make(ours, **plain), make(theirs, **plain)

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        opt.zero_grad()
        loss = torch.stack([p.square().sum() for p in ours]).sum()
        loss.backward()
        return loss

    expected = float(sum(p.detach().square().sum() for p in ours))
    assert float(opt.step(closure).detach()) == pytest.approx(expected)
    assert calls == [True]
    for p in theirs:
        p.grad = 2 * p.detach()
    base.step()
    assert_equal(ours, theirs)


def cuda_inputs() -> list[dict[str, Any]]:
    """AdamW's inputs on a GPU, capturable ones among them, in every implementation."""
    inputs = _get_optim_inputs_including_global_cliquey_kwargs("cuda", torch.float32, RECORD)
    return [i.kwargs for i in inputs if not i.kwargs["differentiable"]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_every_input_matches_the_loop_on_the_cpu(make):
    for kwargs in cuda_inputs():
        on_host = {"foreach": False, "fused": False, "capturable": False}
        ours = [Parameter(p.detach().cuda()) for p in some_params()]
        theirs = some_params()
        opt, base = make(ours, **kwargs), make(theirs, **(kwargs | on_host))
        for step in range(4):
            set_grads(theirs, step)
            for p, q in zip(ours, theirs, strict=True):
                p.grad = q.grad.cuda()
            opt.step()
            base.step()
        assert_equal([p.detach().cpu() for p in ours], theirs, rtol=1e-5, atol=1e-6)
        base.load_state_dict(opt.state_dict())
        assert all(s["exp_avg"].device.type == "cpu" for s in base.state.values())
