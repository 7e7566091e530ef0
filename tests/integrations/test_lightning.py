"""The term in a LightningModule: closures, clipping, accumulation, manual optimization, resume."""

from __future__ import annotations

import csv
import logging
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from by_hand import children, flat, step_by_hand
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import qsgd_core as qsgd
from qsgd_core.errors import ConfigError
from qsgd_core.integrations.lightning import QSGDCallback
from qsgd_core.optim.attach import attached

ROOT = Path(__file__).parents[2]
EPOCHS, BATCHES, BATCH, LR, WEIGHT = 3, 6, 8, 0.05, 0.5
HELD = {"scope": "all", "perturbation": "circuit", "backend": "sampled", "shots": 32, "every": 4}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


class Module(L.LightningModule):
    """float64; its optimizer is AdamW, with the term by class, by attach or not at all."""

    def __init__(self, how: str, term: dict[str, Any], *, manual: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        self.how, self.term = how, term
        self.automatic_optimization = not manual

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        x, y = batch
        loss = nn.functional.mse_loss(self.net(x.to(self.net[0].weight.dtype)), y)
        if self.automatic_optimization:
            return loss
        opt = self.optimizers()
        opt.zero_grad()
        self.manual_backward(loss)
        opt.step()
        return None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.how == "class":
            return qsgd.QSGD(self.parameters(), lr=LR, **self.term)
        adamw = torch.optim.AdamW(self.parameters(), lr=LR)
        if self.how == "attach":
            qsgd.attach(adamw, **self.term)
        return adamw


def loader() -> DataLoader[Any]:
    x = torch.randn(BATCHES * BATCH, 5, generator=torch.Generator().manual_seed(1)).double()
    return DataLoader(TensorDataset(x, x[:, :1] * x[:, 1:2]), batch_size=BATCH)


def make_trainer(**more: Any) -> L.Trainer:
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary"), False)
    options = {"max_epochs": EPOCHS, "logger": False, "enable_checkpointing": False, **quiet}
    return L.Trainer(accelerator="cpu", **{**options, **more})


def fit(module: Module, *, ckpt_path: str | None = None, **more: Any) -> Tensor:
    trainer = make_trainer(**more)
    trainer.fit(module, loader(), ckpt_path=ckpt_path)
    return flat(module)


both = pytest.mark.parametrize("how", ["class", "attach"])

SETTINGS = [
    {},
    {"gradient_clip_val": 0.05},
    {"accumulate_grad_batches": 2, "gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
]


# --- the weights -------------------------------------------------------------------------------


def fit_by_hand(settings: dict[str, Any]) -> Tensor:
    module, pieces = Module("plain", {}), settings.get("accumulate_grad_batches", 1)
    params = list(module.parameters())
    base = module.configure_optimizers()
    clip = settings.get("gradient_clip_val")
    for _ in range(EPOCHS):
        for k, (x, y) in enumerate(loader()):
            (nn.functional.mse_loss(module.net(x), y) / pieces).backward()
            if (k + 1) % pieces:
                continue
            if settings.get("gradient_clip_algorithm") == "value":
                nn.utils.clip_grad_value_(params, clip)
            elif clip is not None:
                nn.utils.clip_grad_norm_(params, clip)
            step_by_hand(base, params, weight=WEIGHT)
            base.zero_grad()
    return flat(module)


@both
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_it_ends_with_the_weights_of_a_loop_by_hand(how, settings):
    """Lightning calls step with a closure that zeroes, runs backward and clips."""
    ours = fit(Module(how, {"quantum_weight": WEIGHT}), **settings)
    torch.testing.assert_close(ours, fit_by_hand(settings), rtol=0, atol=1e-12)
    assert (ours - fit(Module("plain", {}), **settings)).abs().max() > 1e-4


@both
def test_under_manual_optimization_it_ends_with_the_weights_of_a_loop_by_hand(how):
    ours = fit(Module(how, {"quantum_weight": WEIGHT}, manual=True))
    torch.testing.assert_close(ours, fit_by_hand({}), rtol=0, atol=1e-12)


@both
@pytest.mark.parametrize("manual", [False, True])
def test_without_a_weight_it_is_plain_lightning_to_the_bit(how, manual):
    settings = {} if manual else SETTINGS[1]
    ours = fit(Module(how, {"quantum_weight": 0.0}, manual=manual), **settings)
    assert torch.equal(ours, fit(Module("plain", {}, manual=manual), **settings))


@pytest.mark.parametrize(
    "term", [HELD, {"normalize": "update"}, {"inject": "gradient"}], ids=" ".join
)
def test_both_ways_are_the_same_to_the_bit(term):
    weights = [fit(Module(how, term), gradient_clip_val=0.05) for how in ("class", "attach")]
    assert torch.equal(*weights)


@both
def test_under_bf16_autocast_every_step_has_its_term(how):
    module = Module(how, {"quantum_weight": WEIGHT}).float()
    fit(module, precision="bf16-mixed")
    stats = attached(module.optimizers()).qsgd_stats()
    assert stats.steps == stats.sources["exact"] == EPOCHS * BATCHES
    assert 0 < stats.effect_size_mean < 1


# --- save and resume ---------------------------------------------------------------------------


@both
def test_a_resumed_run_ends_with_the_bits_of_one_that_was_not_interrupted(tmp_path, how):
    """Six steps an epoch and four to an s: the checkpoint is in the midst of one."""
    keep = {"enable_checkpointing": True}
    keep["callbacks"] = [ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)]
    module = Module(how, HELD)
    whole = fit(module, **keep)
    resumed = Module(how, HELD)
    assert torch.equal(fit(resumed, ckpt_path=str(tmp_path / "epoch=0.ckpt")), whole)
    stats = attached(resumed.optimizers()).qsgd_stats()
    assert stats == attached(module.optimizers()).qsgd_stats()
    assert stats.steps == EPOCHS * BATCHES


# --- the callback ------------------------------------------------------------------------------


def logged(module: Module, folder: Path) -> dict[int, dict[str, float]]:
    """What a logger of Lightning's is given of the term, by step."""
    fit(module, logger=CSVLogger(folder), callbacks=[QSGDCallback()], log_every_n_steps=6)
    with next(folder.rglob("metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    return {int(r["step"]): {k: float(r[k]) for k in r if k.startswith("qsgd")} for r in rows}


@both
def test_the_log_tells_effect_size_and_sources(tmp_path, how):
    module = Module(how, {"quantum_weight": WEIGHT})
    rows = logged(module, tmp_path)
    assert list(rows) == [5, 11, 17]
    effect = attached(module.optimizers()).qsgd_stats().effect_size
    rounded = pytest.approx(effect, rel=1e-6)  # Lightning logs float32
    assert rows[17] == {"qsgd_effect_size": rounded, "qsgd_exact": 1.0}


class Two(Module):
    """Two optimizers, as in a GAN."""

    def __init__(self) -> None:
        super().__init__("class", {}, manual=True)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for opt in self.optimizers():
            self.zero_grad()
            self.manual_backward(nn.functional.mse_loss(self.net(batch[0]), batch[1]))
            opt.step()

    def configure_optimizers(self) -> Any:
        first = qsgd.QSGD(self.net[0].parameters(), lr=LR)
        second = torch.optim.SGD(self.net[2].parameters(), lr=LR)
        qsgd.attach(second, perturbation="circuit")
        return [first, second]


def test_of_two_optimizers_each_has_its_own_readings(tmp_path):
    last = logged(Two(), tmp_path).popitem()[1]
    assert last.keys() == {f"qsgd{k}_{name}" for k in (0, 1) for name in ("effect_size", "exact")}
    assert last["qsgd0_effect_size"] != last["qsgd1_effect_size"]


def test_a_callback_without_a_term_says_what_to_write():
    with pytest.raises(ConfigError, match=r"no term on the optimizers of Module \(AdamW\)"):
        fit(Module("plain", {}), callbacks=[QSGDCallback()])


def test_a_term_on_an_optimizer_that_has_one_is_refused_through_lightnings_wrapper():
    module = Module("class", {})
    fit(module, max_epochs=1)
    with pytest.raises(ConfigError, match="This QSGD already carries the term"):
        qsgd.attach(module.optimizers())


# --- a paid backend ----------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_paid_runs_courier_ends_with_the_training_also_after_an_exception(paid, fails):
    term, ledger = paid
    term |= {"every": 6, "total_steps": EPOCHS * BATCHES}
    before, seen = children(), []

    class Look(Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *batch: Any) -> None:
            seen.append(children() - before)
            if fails and trainer.global_step == 8:
                raise RuntimeError("no more")

    module = Module("attach", term)
    if fails:
        with pytest.raises(RuntimeError, match="no more"):
            fit(module, callbacks=[QSGDCallback(), Look()])
    else:
        fit(module, callbacks=[QSGDCallback(), Look()])
    assert len(seen) == (8 if fails else 18)
    assert all(len(found) == 1 for found in seen)
    assert children() == before
    assert [job.step for job in ledger.jobs(run="r")] == ([0, 6] if fails else [0, 6, 12])


def test_the_example_runs_and_tells_the_effect_size(capsys):
    runpy.run_path(str(ROOT / "examples/lightning_module.py"))
    said = capsys.readouterr().out
    assert "Regression {'loss': " in said
    assert "WithSGD {'loss': " in said
    assert said.count("'qsgd_effect_size': 0.") == 2
