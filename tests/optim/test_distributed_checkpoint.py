"""torch.distributed.checkpoint: what two processes saved goes on in two, in one, and the other way.

What a run measured and holds is in the checkpoint, so a resumed run ends with the weights of one
that never stopped: to the bit where the number of processes is the same.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)

import qsgd_core as qsgd

STEPS, SAVED, BATCH = 14, 6, 8
"""Six steps in, ``every=4`` holds what it measured two steps ago."""

HELD = {"perturbation": "circuit", "backend": "sampled", "shots": 32, "every": 4, "seed": 2}
TERMS: dict[str, dict[str, Any]] = {
    "sine": {},
    "normalized": {"normalize": "update", "scope": "all"},
    "gradient": {"inject": "gradient", "quantum_weight": 0.2},
    "held": HELD,
    "held, all": HELD | {"scope": "all", "n_qubits": 3},
    "held, model": HELD | {"scope": "model", "n_qubits": 17, "depth": 1},
    "control": {"perturbation": "uniform", "every": 5},
    "warming up": HELD | {"quantum_weight": lambda step: 0.0 if step < 9 else 0.5},
}
FAST = ("held", "warming up")
ALL_TERMS = [t if t in FAST else pytest.param(t, marks=pytest.mark.slow) for t in TERMS]
FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


class Run:
    """A model and its optimizer: bare, under DDP, or cut over the ranks by FSDP2."""

    def __init__(self, kind: str, how: str, term: str) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 6)).double()
        if how == "fsdp":
            from torch.distributed.fsdp import fully_shard

            fully_shard(self.model)
        elif how == "ddp":
            self.model = nn.parallel.DistributedDataParallel(self.model)
        elif how == "compiled":
            self.model = torch.compile(self.model, backend="eager")
        options = TERMS[term] | {"named_parameters": self.model.named_parameters()}
        self.stats: Any
        if kind == "qsgd":
            self.opt = self.stats = qsgd.QSGD(self.model.parameters(), lr=0.05, **options)
        else:  # without momentum torch's SGD keeps no state of its own
            momentum = 0.9 if kind == "momentum" else 0.0
            self.opt = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=momentum)
            self.stats = qsgd.attach(self.opt, **options)

    def train(self, steps: range) -> Run:
        for step in steps:
            generator = torch.Generator().manual_seed(1000 + step)
            x = torch.randn(BATCH, 5, generator=generator, dtype=torch.float64)
            y = x[:, :1] * x[:, 1:2]
            if dist.is_initialized():
                x, y = (data.chunk(dist.get_world_size())[dist.get_rank()] for data in (x, y))
            self.opt.zero_grad()
            (self.model(x) - y).square().mean().backward()
            self.opt.step()
        return self

    def save(self, folder: Path, options: StateDictOptions | None = None) -> None:
        model, state = get_state_dict(self.model, self.opt, options=options)
        dcp.save({"model": model, "optimizer": state}, checkpoint_id=folder)

    def load(self, folder: Path, options: StateDictOptions | None = None) -> Run:
        model, state = get_state_dict(self.model, self.opt, options=options)
        dcp.load({"model": model, "optimizer": state}, checkpoint_id=folder)
        set_state_dict(
            self.model,
            self.opt,
            model_state_dict=model,
            optim_state_dict=state,
            options=options,
        )
        return self

    def outcome(self) -> dict[str, Any]:
        weights = [p.detach() for p in self.model.parameters()]
        whole = [w.full_tensor() if hasattr(w, "full_tensor") else w for w in weights]
        return {"weights": [w.clone() for w in whole], "stats": asdict(self.stats.qsgd_stats())}


# -- what the ranks run ------------------------------------------------------------------------


def straight(kind: str, how: str, term: str) -> dict[str, Any]:
    return Run(kind, how, term).train(range(STEPS)).outcome()


def saved(folder: Path, kind: str, how: str, term: str, *, flat: bool = False) -> None:
    run = Run(kind, how, term).train(range(SAVED))
    run.save(folder, FLAT if flat else None)


def resumed(folder: Path, kind: str, how: str, term: str, *, flat: bool = False) -> dict[str, Any]:
    run = Run(kind, how, term).load(folder, FLAT if flat else None)
    return run.train(range(SAVED, STEPS)).outcome()


def assert_same(one: dict[str, Any], other: dict[str, Any], atol: float = 0.0) -> None:
    for a, b in zip(one["weights"], other["weights"], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)
    assert one["stats"]["steps"] == other["stats"]["steps"] == STEPS
    assert one["stats"]["sources"] == other["stats"]["sources"]


# -- the tests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("term", ALL_TERMS)
@pytest.mark.parametrize("kind, how", [("qsgd", "fsdp"), ("momentum", "fsdp"), ("qsgd", "ddp")])
def test_two_processes_go_on_to_the_bit_with_what_two_have_saved(two, tmp_path, kind, how, term):
    two.run("saved", tmp_path, kind, how, term)
    for expected, found in zip(
        two.run("straight", kind, how, term),
        two.run("resumed", tmp_path, kind, how, term),
        strict=True,
    ):
        assert_same(found, expected)


@pytest.mark.parametrize("term", ALL_TERMS)
@pytest.mark.parametrize("kind", ["qsgd", "momentum"])
def test_one_process_goes_on_with_what_two_have_saved_and_the_other_way(two, tmp_path, kind, term):
    """Sums over two processes are rounded otherwise, so not to the bit."""
    expected = straight(kind, "bare", term)
    two.run("saved", tmp_path / "two", kind, "fsdp", term)
    assert_same(resumed(tmp_path / "two", kind, "bare", term), expected, atol=1e-10)
    saved(tmp_path / "one", kind, "bare", term)
    for found in two.run("resumed", tmp_path / "one", kind, "fsdp", term):
        assert_same(found, expected, atol=1e-10)


@pytest.mark.parametrize("term", FAST)
def test_an_optimizer_without_a_state_of_its_own_goes_on_to_the_bit(two, tmp_path, term):
    two.run("saved", tmp_path, "sgd", "fsdp", term)
    expected = two.run("straight", "sgd", "fsdp", term)
    for found in two.run("resumed", tmp_path, "sgd", "fsdp", term):
        assert_same(found, expected[0])


@pytest.mark.parametrize("term", ["held", "warming up"])
@pytest.mark.parametrize("kind", ["qsgd", "momentum"])
def test_a_flattened_checkpoint_holds_as_much(two, tmp_path, kind, term):
    """What torchtitan saves."""
    two.run("saved", tmp_path, kind, "fsdp", term, flat=True)
    expected = two.run("straight", kind, "fsdp", term)
    for found in two.run("resumed", tmp_path, kind, "fsdp", term, flat=True):
        assert_same(found, expected[0])


def test_a_compiled_model_goes_on_with_what_a_plain_one_has_saved(tmp_path):
    saved(tmp_path, "qsgd", "bare", "held")
    assert_same(resumed(tmp_path, "qsgd", "compiled", "held"), straight("qsgd", "bare", "held"))


def saved_meanwhile(folder: Path, term: str) -> dict[str, Any]:
    """Training goes on while the checkpoint is written, which has a process group of its own."""
    group = dist.new_group(backend="gloo")
    run = Run("qsgd", "fsdp", term).train(range(SAVED))
    model, state = get_state_dict(run.model, run.opt)
    parts = {"model": model, "optimizer": state}
    written = dcp.async_save(parts, checkpoint_id=folder, process_group=group)
    run.train(range(SAVED, STEPS))
    written.result()
    return run.outcome()


def test_training_goes_on_while_a_checkpoint_is_written(two, tmp_path):
    expected = two.run("saved_meanwhile", tmp_path, "held")
    for found in two.run("resumed", tmp_path, "qsgd", "fsdp", "held"):
        assert_same(found, expected[0])


def test_the_terms_own_entries_are_saved_by_the_parameters_name(tmp_path):
    run = Run("qsgd", "bare", "held").train(range(SAVED))
    run.save(tmp_path)
    keys = set(dcp.FileSystemReader(tmp_path).read_metadata().state_dict_metadata)
    assert "optimizer.state.0.weight.qsgd_s" in keys
    assert {f"optimizer.param_groups.0.{k}" for k in ("quantum_weight", "scope", "qsgd")} <= keys


@pytest.mark.parametrize("kind", ["momentum", "sgd"])
def test_places_kept_for_what_is_not_measured_yet_are_gone_when_it_is(kind):
    asked, quiet = Run(kind, "bare", "held"), Run(kind, "bare", "held")
    _, state = get_state_dict(asked.model, asked.opt)
    places = [entry["qsgd_s"] for entry in state["state"].values()]
    assert len(places) == 4
    assert all(bool(place.isnan().all()) for place in places)
    asked.train(range(STEPS))
    assert_same(asked.outcome(), quiet.train(range(STEPS)).outcome())
    held = [entry["qsgd_s"] for entry in asked.opt.state.values()]
    assert held
    assert not any(bool(s.isnan().any()) for s in held)


def test_with_another_every_a_checkpoint_goes_on_if_it_may_lack_what_is_held(tmp_path):
    run = Run("qsgd", "bare", "sine").train(range(SAVED))
    run.save(tmp_path)
    other = Run("qsgd", "bare", "held")
    model, state = get_state_dict(other.model, other.opt)
    parts = {"model": model, "optimizer": state}
    with pytest.raises(dcp.CheckpointException, match=r"Missing key .*qsgd_s"):
        dcp.load(parts, checkpoint_id=tmp_path)
    partial = dcp.DefaultLoadPlanner(allow_partial_load=True)
    dcp.load(parts, checkpoint_id=tmp_path, planner=partial)
    set_state_dict(other.model, other.opt, model_state_dict=model, optim_state_dict=state)
    assert "qsgd_s" not in other.opt.state[next(other.model.parameters())]
    assert other.train(range(SAVED, STEPS)).outcome()["stats"]["steps"] == STEPS
    assert all(bool(p.isfinite().all()) for p in other.model.parameters())


def test_a_checkpoint_of_adamw_without_the_term_goes_on_with_it(tmp_path):
    run = Run("qsgd", "bare", "held")
    plain = torch.optim.AdamW(run.model.parameters(), lr=0.05)
    run.model(torch.ones(2, 5, dtype=torch.float64)).square().sum().backward()
    plain.step()
    model, state = get_state_dict(run.model, plain)
    dcp.save({"model": model, "optimizer": state}, checkpoint_id=tmp_path)
    other = Run("qsgd", "bare", "held")
    model, state = get_state_dict(other.model, other.opt)
    partial = dcp.DefaultLoadPlanner(allow_partial_load=True)
    dcp.load({"model": model, "optimizer": state}, checkpoint_id=tmp_path, planner=partial)
    set_state_dict(other.model, other.opt, model_state_dict=model, optim_state_dict=state)
    for p, q in zip(run.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(p, q)
        assert torch.equal(plain.state[p]["exp_avg"], other.opt.state[q]["exp_avg"])
    sources = other.train(range(STEPS)).outcome()["stats"]["sources"]
    assert sources["measured"] > 0
    assert sources["measured"] + sources["held"] == STEPS


def test_where_only_some_tensors_have_a_state_torch_is_told_not_to_be_strict(tmp_path):
    """SGD without momentum keeps none of its own, and scope model holds s of the first tensors."""
    relaxed = StateDictOptions(strict=False)
    saved(tmp_path, "sgd", "bare", "held, model")
    with pytest.raises(RuntimeError, match=r"StateDictOptions\(strict=False\)"):
        Run("sgd", "bare", "held, model").load(tmp_path)
    run = Run("sgd", "bare", "held, model").load(tmp_path, relaxed)
    assert_same(run.train(range(SAVED, STEPS)).outcome(), straight("sgd", "bare", "held, model"))
