"""The term in an accelerate loop: one process, two, FSDP2, accumulation, clipping, resume."""

from __future__ import annotations

import os
import runpy
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DataLoaderConfiguration, DistributedType
from accelerate.utils.deepspeed import DeepSpeedOptimizerWrapper
from by_hand import flat, step_by_hand
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import qsgd_core as qsgd
from qsgd_core.errors import ConfigError
from qsgd_core.optim.attach import attached

ROOT = Path(__file__).parents[2]
STEPS, BATCH, LR, WEIGHT = 20, 8, 0.05, 0.5
HELD = {"scope": "all", "perturbation": "circuit", "backend": "sampled", "shots": 32, "every": 3}
WIDE = {"scope": "model", "n_qubits": 17, "depth": 1}
"""Over five of the six tensors."""
NAMED = {"perturbation": "uniform", "scope": "all"}
"""Draws that the tensors' names decide."""


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    """accelerate keeps what it knows of the processes in its classes."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


# --- what is trained, and how ------------------------------------------------------------------


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1)
    return nn.Sequential(*layers).double()


def make_accelerator(*, pieces: int = 1, sharded: bool = False) -> Accelerator:
    """On the CPU, with the batches of the loader divided between the processes.

    accelerate shards on a GPU only; told to do it here, it does, by way of gloo.
    """
    forget()
    if dist.is_initialized():
        os.environ |= {"LOCAL_RANK": os.environ["RANK"], "LOCAL_WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1"}
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=pieces,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    if sharded:
        for state in (accelerator.state, PartialState()):
            state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="no_wrap", state_dict_type="SHARDED_STATE_DICT"
        )
    return accelerator


def groups_of(model: nn.Module) -> list[dict[str, Any]]:
    """Matrices first: not the model's order."""
    params = list(model.parameters())
    decayed = {"params": [p for p in params if p.dim() > 1], "weight_decay": 0.1}
    return [decayed, {"params": [p for p in params if p.dim() == 1], "weight_decay": 0.0}]


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(STEPS * BATCH, 5, generator=torch.Generator().manual_seed(1)).double()
    return x, x[:, :1] * x[:, 1:2]


def loader_of(batch: int = BATCH) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*data()), batch_size=batch)


def prepare(
    accelerator: Accelerator, how: str, term: dict[str, Any], loader: DataLoader[Any]
) -> tuple[nn.Module, Any, Any]:
    model = make_model()
    named = {"named_parameters": list(model.named_parameters())} if how != "plain" else {}
    if how == "class":
        opt: Any = qsgd.QSGD(groups_of(model), lr=LR, **named, **term)
    else:
        opt = torch.optim.AdamW(groups_of(model), lr=LR)
    if how == "attach first":
        qsgd.attach(opt, **named, **term)
    prepared = accelerator.prepare(model, opt, loader)
    if how == "attach after":
        qsgd.attach(prepared[1], **named, **term)
    return prepared


def train(
    accelerator: Accelerator, model: nn.Module, opt: Any, batches: Any, clip: float | None = None
) -> None:
    for x, y in batches:
        with accelerator.accumulate(model):
            accelerator.backward(nn.functional.mse_loss(model(x), y))
            if clip is not None and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), clip)
            opt.step()
            opt.zero_grad()


def run(
    how: str,
    term: dict[str, Any],
    *,
    pieces: int = 1,
    clip: float | None = None,
    sharded: bool = False,
) -> dict[str, Any]:
    """A run, in however many processes this is called; ``BATCH`` rows a step in all of them."""
    accelerator = make_accelerator(pieces=pieces, sharded=sharded)
    model, opt, loader = prepare(accelerator, how, term, loader_of(BATCH // pieces))
    train(accelerator, model, opt, loader, clip)
    on = attached(opt)
    stats = None if on is None else asdict(on.qsgd_stats())
    cut = {hasattr(p, "full_tensor") for p in model.parameters()}
    processes = accelerator.num_processes
    return {"weights": flat(model), "stats": stats, "processes": processes, "cut": cut}


def by_hand(clip: float | None) -> Tensor:
    model = make_model()
    params, base = list(model.parameters()), torch.optim.AdamW(groups_of(model), lr=LR)
    for x, y in loader_of():
        base.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(params, clip)
        step_by_hand(base, params, weight=WEIGHT)
    return flat(model)


ways = pytest.mark.parametrize("how", ["class", "attach first", "attach after"])


# --- one process -------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("clip", [None, 0.05])
def test_one_process_ends_with_the_weights_of_a_loop_by_hand(how, clip):
    ours = run(how, {"quantum_weight": WEIGHT}, clip=clip)["weights"]
    torch.testing.assert_close(ours, by_hand(clip), rtol=0, atol=1e-12)
    assert (ours - run("plain", {}, clip=clip)["weights"]).abs().max() > 1e-4


@ways
def test_accumulated_gradients_end_with_the_weights_of_whole_batches(how):
    term = {"perturbation": "circuit"}
    ours = run(how, term, pieces=2, clip=0.05)
    whole = run(how, term, clip=0.05)
    torch.testing.assert_close(ours["weights"], whole["weights"], rtol=0, atol=1e-10)
    assert ours["stats"]["steps"] == whole["stats"]["steps"] == STEPS


@ways
def test_without_a_weight_it_is_plain_accelerate_to_the_bit(how):
    ours = run(how, {"quantum_weight": 0.0}, pieces=2, clip=0.05)
    assert torch.equal(ours["weights"], run("plain", {}, pieces=2, clip=0.05)["weights"])


# --- two processes -----------------------------------------------------------------------------


def assert_same(answers: list[dict[str, Any]], how: str, term: dict[str, Any], **more: Any) -> None:
    alone = run(how, term, **more)
    assert (alone["weights"] - run("plain", {}, **more)["weights"]).abs().max() > 1e-4
    assert alone["processes"] == 1
    assert {answer["processes"] for answer in answers} == {2}
    for answer in answers:
        torch.testing.assert_close(answer["weights"], alone["weights"], rtol=0, atol=1e-10)
        assert answer["stats"]["sources"] == alone["stats"]["sources"]
        effect = alone["stats"]["effect_size_mean"]
        assert answer["stats"]["effect_size_mean"] == pytest.approx(effect, rel=1e-8)


def own_rows() -> tuple[int, list[Tensor]]:
    accelerator = make_accelerator()
    return accelerator.process_index, [x for x, _ in accelerator.prepare(loader_of())]


def test_each_process_has_its_half_of_every_batch(two):
    for rank, batches in two.run("own_rows"):
        expected = [part.chunk(2)[rank] for part in data()[0].split(BATCH)]
        assert all(torch.equal(a, b) for a, b in zip(batches, expected, strict=True))


@pytest.mark.parametrize(
    "how, term, more",
    [
        ("class", {}, {}),
        ("attach first", HELD, {"clip": 0.05}),
        ("attach after", WIDE, {}),
        ("class", {"normalize": "update"}, {"pieces": 2}),
        ("attach after", {"inject": "gradient"}, {"clip": 0.05}),
        ("attach first", NAMED, {}),
    ],
    ids=str,
)
def test_two_processes_end_with_the_weights_of_one(two, how, term, more):
    assert_same(two.run("run", how, term, **more), how, term, **more)


# --- FSDP2: accelerate replaces the optimizer's parameters by their shards --------------------


@pytest.mark.parametrize(
    "how, term",
    [
        ("class", WIDE),
        ("class", NAMED),
        ("attach first", HELD),
        ("attach first", {"normalize": "update"}),
    ],
    ids=str,
)
def test_sharded_parameters_keep_their_names_order_and_weights(two, how, term):
    answers = two.run("run", how, term, sharded=True)
    assert all(answer["cut"] == {True} for answer in answers)
    assert_same(answers, how, term)


def leftovers() -> tuple[int, list[str], int]:
    """Whole parameters that are still alive; the shards' names before the first step; circuits."""
    accelerator = make_accelerator(sharded=True)
    model = make_model()
    opt = qsgd.QSGD(groups_of(model), named_parameters=model.named_parameters(), **WIDE)
    whole = [weakref.ref(p) for p in model.parameters()]
    model, prepared, loader = accelerator.prepare(model, opt, loader_of())
    blocks = opt.qsgd_describe().n_blocks
    names = list(opt._term.names().values())
    train(accelerator, model, prepared, loader)
    return sum(ref() is not None for ref in whole), names, blocks


def test_no_whole_parameter_is_kept_once_a_model_is_sharded(two):
    names = [name for name, _ in make_model().named_parameters()]
    assert two.run("leftovers") == [(0, names, 1)] * 2


# --- save and load -----------------------------------------------------------------------------


def run_resumed(how: str, folder: str, *, sharded: bool = False) -> dict[str, Any]:
    """Eight steps, save_state, and the rest in new objects after load_state."""
    for part in (range(8), range(8, STEPS)):
        accelerator = make_accelerator(sharded=sharded)
        model, opt, loader = prepare(accelerator, how, HELD, loader_of())
        if part.start:
            accelerator.load_state(folder)
        train(accelerator, model, opt, [b for k, b in enumerate(loader) if k in part])
        if not part.start:
            accelerator.save_state(folder)
    stats = asdict(attached(opt).qsgd_stats())
    return {"weights": flat(model), "stats": stats, "processes": accelerator.num_processes}


@ways
def test_a_loaded_state_goes_on_with_the_bits_of_a_run_that_was_not_interrupted(tmp_path, how):
    """The checkpoint is two steps into the three that share an s."""
    resumed, whole = run_resumed(how, str(tmp_path)), run(how, HELD)
    assert torch.equal(resumed["weights"], whole["weights"])
    assert resumed["stats"] == whole["stats"]


@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_that_load_a_state_end_with_the_weights_of_one(two, tmp_path, sharded):
    answers = two.run("run_resumed", "class", str(tmp_path), sharded=sharded)
    assert_same(answers, "class", HELD)


# --- what is refused; the example ----------------------------------------------------------------


def test_what_wraps_no_torch_optimizer_is_refused():
    class Engine:
        """What DeepSpeed has in the place of an optimizer."""

    make_accelerator()
    with pytest.raises(ConfigError, match="DeepSpeedOptimizerWrapper is a wrapper around Engine"):
        qsgd.attach(DeepSpeedOptimizerWrapper(Engine()))


def test_the_term_is_found_in_accelerates_wrapper_and_not_put_on_twice():
    _, opt, _ = prepare(make_accelerator(), "attach first", {}, loader_of())
    assert attached(opt) is attached(opt.optimizer) is not None
    with pytest.raises(ConfigError, match="This AdamW already carries the term"):
        qsgd.attach(opt)


def test_the_example_runs_and_tells_the_effect_size(capsys):
    runpy.run_path(str(ROOT / "examples/accelerate_loop.py"))
    assert "% of the AdamW step" in capsys.readouterr().out
