"""A paid run on two processes: rank 0 has the courier and pays, every rank has what it brought."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from gang import Gang
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

import qsgd_core as qsgd
from qsgd_core.errors import BudgetExceededError

STEPS, SAVED = 14, 8
RUNS: dict[str, dict[str, Any]] = {
    "sync": {"policy": "sync", "every": 3, "budget": "$1", "run": "r"},
    "tracked": {"every": 6, "total_steps": STEPS, "wait": "always", "budget": "$1", "run": "r"},
    "unnamed": {"policy": "sync", "every": 3, "budget": "$1"},
    "poor": {"total_steps": STEPS, "budget": "$0.0001"},
}
ASKED = {"sync": [0, 3, 6, 9, 12], "tracked": [0, 6, 12], "unnamed": [0, 3, 6, 9, 12]}
"""Steps at which a run asks for a refresh, each of which is one job."""
DRIFT = 1e-7
"""By how much two tracked runs differ: the twin drifts with the seconds between two results."""


class Shop:
    """The vendor that a test's runs buy from, in whichever process they are."""

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder = folder
        options = {"folder": str(folder / "vendor"), "coins": True}
        self.environment = {
            "HOME": str(folder),
            "QSGD_HOME": str(folder / "home"),
            "QSGD_LOAD_PLUGINS": "qsgd-filebox",
            "PYTHONPATH": f"{site}:{Path(__file__).parents[2]}",
            "QSGD_BACKEND": "filebox:x",
            "QSGD_BACKEND_OPTIONS": json.dumps(options),
            "QSGD_LEDGER": f"sqlite:///{folder / 'ledger.sqlite'}",
        }
        self.site = str(site)

    def enter(self) -> None:
        """Have the vendor in this process, and no other."""
        from qsgd_core.plugins.registry import forget_registries

        os.environ.update(self.environment)
        if self.site not in sys.path:
            sys.path.insert(0, self.site)
        forget_registries()

    @property
    def sold(self) -> list[dict[str, Any]]:
        paths = sorted((self.folder / "vendor" / "jobs").glob("*.json"))
        return [json.loads(path.read_text()) for path in paths]


@pytest.fixture
def shops(tmp_path: Path, filebox_site: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes shops; this process is as before when the test is over."""
    before = dict(os.environ)
    monkeypatch.syspath_prepend(filebox_site)

    def make(name: str) -> Shop:
        (tmp_path / name).mkdir()
        return Shop(tmp_path / name, filebox_site)

    yield make
    os.environ.clear()
    os.environ.update(before)


# -- what the ranks run ------------------------------------------------------------------------


class Training:
    """A net under DDP, cut by FSDP2, or in one process."""

    def __init__(self, how: str, run: str, **options: Any) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
        if how == "ddp":
            self.model = nn.parallel.DistributedDataParallel(self.model)
        elif how == "fsdp":
            from torch.distributed.fsdp import fully_shard

            fully_shard(self.model)
        self.opt = qsgd.QSGD(self.model.parameters(), lr=0.05, shots=8, **RUNS[run], **options)

    def go(self, steps: range) -> Training:
        for step in steps:
            generator = torch.Generator().manual_seed(1000 + step)
            x = torch.randn(8, 3, generator=generator, dtype=torch.float64)
            if dist.is_initialized():
                x = x.chunk(dist.get_world_size())[dist.get_rank()]
            self.opt.zero_grad()
            (self.model(x) - x[:, :2].square()).square().mean().backward()
            self.opt.step()
        return self

    def outcome(self, *, finished: bool) -> dict[str, Any]:
        self.opt.close(finished=finished)
        stats = self.opt.qsgd_stats()
        weights = [p.detach() for p in self.model.parameters()]
        return {
            "weights": [w.full_tensor() if hasattr(w, "full_tensor") else w for w in weights],
            "sources": stats.sources,
            "spending": stats.spending,
        }


def straight(shop: Shop, how: str, run: str) -> dict[str, Any]:
    shop.enter()
    return Training(how, run).go(range(STEPS)).outcome(finished=True)


def stopped(shop: Shop, how: str, run: str) -> dict[str, Any]:
    """Saved after 8 steps, killed after 11."""
    shop.enter()
    training = Training(how, run).go(range(SAVED))
    folder = shop.folder / "checkpoint"
    if how == "fsdp":
        model, state = get_state_dict(training.model, training.opt)
        dcp.save({"model": model, "optimizer": state}, checkpoint_id=folder)
    elif dist.get_rank() == 0:  # as scripts do: the others have nothing to add
        torch.save((training.model.state_dict(), training.opt.state_dict()), folder)
    dist.barrier()
    record = training.opt.state_dict()["param_groups"][0]["qsgd"]
    return training.go(range(SAVED, 11)).outcome(finished=False) | {"record": record}


def resumed(shop: Shop, how: str, run: str) -> dict[str, Any]:
    shop.enter()
    training = Training(how, run)
    folder = shop.folder / "checkpoint"
    if how == "fsdp":
        model, state = get_state_dict(training.model, training.opt)
        dcp.load({"model": model, "optimizer": state}, checkpoint_id=folder)
        set_state_dict(training.model, training.opt, model_state_dict=model, optim_state_dict=state)
    else:
        model, state = torch.load(folder, weights_only=True)
        training.model.load_state_dict(model)
        training.opt.load_state_dict(state)
    return training.go(range(SAVED, STEPS)).outcome(finished=True)


def refused(shop: Shop) -> str:
    shop.enter()
    training = Training("ddp", "poor")
    try:
        training.go(range(1))
    except BudgetExceededError as error:
        return str(error)
    finally:
        training.opt.close()
    return "nothing"


# -- the tests ---------------------------------------------------------------------------------


def assert_same(one: dict[str, Any], other: dict[str, Any], atol: float = 0.0) -> None:
    for a, b in zip(one["weights"], other["weights"], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=atol)
    assert one["sources"] == other["sources"]


@pytest.mark.parametrize(
    "how, run",
    [
        ("fsdp", "tracked"),
        pytest.param("ddp", "sync", marks=pytest.mark.slow),
        pytest.param("ddp", "tracked", marks=pytest.mark.slow),
    ],
)
def test_two_processes_pay_once_and_end_with_the_weights_of_one(
    two: Gang, shops: Callable[[str], Shop], how: str, run: str
):
    shop, other = shops("two"), shops("one")
    first, second = two.run("straight", shop, how, run)
    assert len(shop.sold) == len(ASKED[run])
    assert_same(first, second)
    alone = straight(other, "alone", run)
    assert_same(first, alone, atol=DRIFT if run == "tracked" else 1e-10)
    assert sum(first["sources"].values()) == STEPS
    if run == "tracked":
        assert first["sources"]["tracked"] == STEPS
    else:
        assert first["sources"]["measured"] == len(ASKED[run])
    assert first["spending"] == alone["spending"]
    assert first["spending"]["jobs"] == len(ASKED[run])
    assert second["spending"] is None  # rank 1 may be on a machine without a ledger


@pytest.mark.parametrize(
    "how, run",
    [
        ("ddp", "unnamed"),
        pytest.param("fsdp", "tracked", marks=pytest.mark.slow),
        pytest.param("ddp", "sync", marks=pytest.mark.slow),
        pytest.param("fsdp", "sync", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_pays_nothing_twice_and_ends_the_same(
    two: Gang, shops: Callable[[str], Shop], how: str, run: str
):
    expected, _ = two.run("straight", shops("straight"), how, run)
    shop = shops("stopped")
    first, second = two.run("stopped", shop, how, run)
    assert first["record"] == second["record"]  # whichever of them a checkpoint holds
    paid = len(shop.sold)
    assert paid == len([step for step in ASKED[run] if step < 11])
    for found in two.run("resumed", shop, how, run):
        assert_same(found, expected, atol=DRIFT if run == "tracked" else 0.0)
    assert len(shop.sold) == len(ASKED[run])
    assert len({job["tag"] for job in shop.sold}) == len(ASKED[run])


def test_a_budget_that_pays_for_nothing_ends_every_rank_with_the_reason(
    two: Gang, shops: Callable[[str], Shop]
):
    shop = shops("poor")
    first, second = two.run("refused", shop)
    assert first == second
    assert "can cost up to" in first
    assert shop.sold == []


def watched(folder: Path) -> list[str]:
    os.chdir(folder)
    heard: list[Any] = []
    weight = nn.Parameter(torch.ones(4))
    opt = qsgd.QSGD([weight], backend="exact", observers=["tensorboard", heard.append])
    for _ in range(10):
        weight.grad = torch.ones(4)
        opt.step()
    return sorted({type(event).__name__ for event in heard})


def test_an_observer_with_a_name_writes_on_rank_0_alone_and_a_function_is_called_on_all(
    two: Gang, tmp_path: Path
):
    pytest.importorskip("tensorboard")
    assert two.run("watched", tmp_path) == [["StepTaken"]] * 2
    assert len(list((tmp_path / "runs").iterdir())) == 1
