"""The term under the Hugging Face Trainer: by optimizer_cls_and_kwargs and by callback."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from by_hand import children, flat, step_by_hand
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

import qsgd_core as qsgd
from qsgd_core.errors import ConfigError
from qsgd_core.integrations.huggingface import QSGDCallback

ROOT = Path(__file__).parents[2]
STEPS, BATCH, WEIGHT = 12, 4, 0.5
HELD = {"scope": "all", "perturbation": "circuit", "backend": "sampled", "shots": 32, "every": 4}


class Net(nn.Module):
    """float64, with dropout on request; forward() is what the Trainer wants of a model."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inp, self.norm, self.out = nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 1)
        self.dropout = nn.Dropout(dropout)
        self.double()

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        y = self.out(self.dropout(torch.tanh(self.norm(self.inp(x)))))
        return {"loss": nn.functional.mse_loss(y, labels), "logits": y}


def rows() -> list[dict[str, Tensor]]:
    x = torch.randn(2 * STEPS * BATCH, 5, generator=torch.Generator().manual_seed(1)).double()
    return [{"x": row, "labels": row[:1] * row[1:2]} for row in x]


def arguments(folder: Path, **more: Any) -> TrainingArguments:
    options: dict[str, Any] = {
        "max_steps": STEPS,
        "learning_rate": 0.05,
        "weight_decay": 0.1,
        "per_device_train_batch_size": BATCH,
        "train_sampling_strategy": "sequential",
        "logging_steps": 3,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
    }
    return TrainingArguments(str(folder), **{**options, **more})


def make(
    how: str, term: dict[str, Any], args: TrainingArguments, model: nn.Module | None = None
) -> tuple[Trainer, QSGDCallback | None]:
    """A Trainer with the term by class or by callback, or one that knows nothing of it."""
    model = Net() if model is None else model
    callback, more = None, {}
    if how == "class":
        _, settings = Trainer.get_optimizer_cls_and_kwargs(args)
        names = list(model.named_parameters())
        more["optimizer_cls_and_kwargs"] = (
            qsgd.QSGD,
            {**settings, "named_parameters": names, **term},
        )
        callback = QSGDCallback()
    elif how == "callback":
        callback = QSGDCallback(term)
    callbacks = [callback] if callback else []
    data = rows() if isinstance(model, Net) else tokens()
    return Trainer(model, args, train_dataset=data, callbacks=callbacks, **more), callback


both = pytest.mark.parametrize("how", ["class", "callback"])


def one(fast: str) -> Any:
    """Both, one of them in the long run only."""
    slow = {"class": "callback", "callback": "class"}[fast]
    return pytest.mark.parametrize("how", [fast, pytest.param(slow, marks=pytest.mark.slow)])


SETTINGS = [
    {"max_grad_norm": 0.05},
    {"gradient_accumulation_steps": 2, "warmup_steps": 3, "lr_scheduler_type": "cosine"},
    pytest.param(
        {"adam_beta1": 0.7, "max_grad_norm": 0.0, "optim": "adamw_torch"}, marks=pytest.mark.slow
    ),
]


# --- the weights -------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_without_a_weight_it_is_the_plain_trainer_to_the_bit(tmp_path, how, settings):
    args = arguments(tmp_path, **settings)
    plain, _ = make("plain", {}, args, Net(dropout=0.1))
    plain.train()
    ours, _ = make(how, {"quantum_weight": 0.0}, args, Net(dropout=0.1))  # seeds for its dropout
    ours.train()
    assert torch.equal(flat(ours.model), flat(plain.model))
    assert not torch.equal(flat(plain.model), flat(Net()))


def train_by_hand(args: TrainingArguments, trainer: Trainer) -> Net:
    """The Trainer's own optimizer and schedule, in a loop that is written out."""
    model, pieces = Net(), args.gradient_accumulation_steps
    trainer.model = model
    base = trainer.create_optimizer(model)
    schedule = trainer.create_scheduler(args.max_steps, base)
    parts = [rows()[k : k + BATCH] for k in range(0, len(rows()), BATCH)]
    for step in range(args.max_steps):
        base.zero_grad()
        for part in parts[step * pieces : (step + 1) * pieces]:
            batch = {name: torch.stack([row[name] for row in part]) for name in part[0]}
            (model(**batch)["loss"] / pieces).backward()
        if args.max_grad_norm:
            nn.utils.clip_grad_norm_(model.parameters(), args.max_grad_norm)
        step_by_hand(base, list(model.parameters()), weight=WEIGHT)
        schedule.step()
    return model


@both
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_it_ends_with_the_weights_of_a_loop_by_hand(tmp_path, how, settings):
    args = arguments(tmp_path, **settings)
    ours, _ = make(how, {"quantum_weight": WEIGHT}, args)
    ours.train()
    by_hand = train_by_hand(args, make("plain", {}, args)[0])
    torch.testing.assert_close(flat(ours.model), flat(by_hand), rtol=0, atol=1e-12)
    plain, _ = make("plain", {}, args)
    plain.train()
    assert (flat(ours.model) - flat(plain.model)).abs().max() > 1e-4


@pytest.mark.parametrize(
    "term",
    [
        HELD,
        {"scope": "model", "n_qubits": 60, "depth": 1},
        pytest.param({"normalize": "update"}, marks=pytest.mark.slow),
        {"inject": "gradient", "perturbation": "circuit"},
        {"perturbation": "uniform"},
    ],
    ids=" ".join,
)
def test_both_ways_are_the_same_to_the_bit(tmp_path, term):
    weights = []
    for how in ("class", "callback"):
        trainer, _ = make(how, term, arguments(tmp_path, lr_scheduler_type="cosine"))
        trainer.train()
        weights.append(flat(trainer.model))
    assert torch.equal(*weights)


def tokens() -> list[dict[str, list[int]]]:
    start = torch.randint(0, 20, (2 * STEPS * BATCH, 1), generator=torch.Generator().manual_seed(2))
    return [{"input_ids": row, "labels": row} for row in (start + torch.arange(8)).tolist()]


def language_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=32, num_attention_heads=2, attention_dropout=0.1, **sizes)
    )


@both
def test_under_bf16_autocast_every_step_has_its_term(tmp_path, how):
    args = arguments(tmp_path, bf16=True, remove_unused_columns=True)
    trainer, callback = make(how, {"quantum_weight": WEIGHT}, args, language_model())
    trainer.train()
    stats = callback.qsgd_stats()
    assert (stats.steps, stats.sources["exact"]) == (STEPS, STEPS)
    assert 0 < stats.effect_size_mean < 1
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())


# --- save and resume ---------------------------------------------------------------------------


@both
@pytest.mark.parametrize("llm", [False, True], ids=["float64", "llama"])
@pytest.mark.parametrize(
    "term",
    [
        pytest.param(HELD, id="held"),
        pytest.param({"quantum_weight": 0.3}, id="default", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_ends_with_the_bits_of_one_that_was_not_interrupted(tmp_path, how, llm, term):
    """The checkpoint is two steps into the four that share an s; dropout is on."""
    model = language_model if llm else lambda: Net(dropout=0.1)
    args = arguments(tmp_path, save_strategy="steps", save_steps=6, warmup_steps=1)
    args.remove_unused_columns = llm
    whole, whole_callback = make(how, term, args, model())
    whole.train()
    resumed, callback = make(how, term, args, model())
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert torch.equal(flat(resumed.model), flat(whole.model))
    assert callback.qsgd_stats() == whole_callback.qsgd_stats()
    assert callback.qsgd_stats().steps == STEPS - 1  # the first has lr 0: time does not pass


def test_a_checkpoint_without_the_term_can_be_gone_on_from_with_it(tmp_path):
    args = arguments(tmp_path, save_strategy="steps", save_steps=6)
    plain, _ = make("plain", {}, args)
    plain.train()
    trainer, callback = make("callback", {"quantum_weight": WEIGHT}, args)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert callback.qsgd_stats().steps == STEPS - 6
    assert not torch.equal(flat(trainer.model), flat(plain.model))


class StopAt(TrainerCallback):
    """Raises once, after a step."""

    def __init__(self, step: int) -> None:
        self.step: int | None = step

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == self.step:
            self.step = None
            raise KeyboardInterrupt


def test_a_trainer_that_was_interrupted_goes_on_from_its_checkpoint_to_the_bit(tmp_path):
    args = arguments(tmp_path, save_strategy="steps", save_steps=6)
    whole, whole_callback = make("callback", HELD, args)
    whole.train()
    trainer, callback = make("callback", HELD, args)
    trainer.add_callback(StopAt(9))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert torch.equal(flat(trainer.model), flat(whole.model))
    assert callback.qsgd_stats() == whole_callback.qsgd_stats()


def test_after_training_the_optimizer_is_as_it_was_and_a_second_training_counts_anew(tmp_path):
    trainer, callback = make("callback", HELD, arguments(tmp_path))
    trainer.train()
    inner = trainer.optimizer.optimizer
    assert not any("q" in key for group in inner.param_groups for key in group if key != "eps")
    assert all("qsgd_s" not in state for state in inner.state.values())
    assert not inner._optimizer_step_post_hooks
    trainer.train()
    assert callback.qsgd_stats().steps == STEPS


# --- logs --------------------------------------------------------------------------------------


@both
def test_the_trainers_log_tells_effect_size_and_sources(tmp_path, how):
    trainer, callback = make(how, HELD, arguments(tmp_path))
    trainer.train()
    told = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in told] == [3, 6, 9, 12]
    assert all(entry["qsgd_effect_size"] > 0 for entry in told)
    measured = [(entry["qsgd_measured"], entry["qsgd_held"]) for entry in told]
    assert measured == [(k / n, (n - k) / n) for k, n in ((1, 3), (2, 6), (3, 9), (3, 12))]
    assert told[-1]["qsgd_effect_size"] == callback.qsgd_stats().effect_size
    assert not any("qsgd_exact" in entry for entry in told)
    assert not any("qsgd_effect_size" in entry for entry in trainer.state.log_history[4:])


def test_a_logger_that_comes_after_the_callback_gets_its_readings(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from transformers.integrations import TensorBoardCallback

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    term = QSGDCallback({"quantum_weight": WEIGHT})
    trainer = Trainer(
        Net(),
        arguments(tmp_path, report_to="none"),
        train_dataset=rows(),
        callbacks=[term, TensorBoardCallback()],
    )
    trainer.train()
    board = EventAccumulator(str(tmp_path / "board")).Reload()
    events = board.Scalars("train/qsgd_effect_size")
    assert [event.step for event in events] == [3, 6, 9, 12]
    assert events[-1].value == pytest.approx(term.qsgd_stats().effect_size)


# --- a paid backend ----------------------------------------------------------------------------


@one("class")
def test_a_paid_runs_courier_ends_with_the_training(tmp_path, how, paid):
    term, ledger = paid
    before = children()
    if how == "class":
        term["total_steps"] = STEPS  # the callback has it from the Trainer
    trainer, callback = make(how, {**term, "every": 4}, arguments(tmp_path))
    trainer.train()
    assert children() == before
    assert [job.step for job in ledger.jobs(run="r")] == [0, 4, 8]
    last = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    assert last["qsgd_jobs"] == 3
    assert last["qsgd_cost_usd"] > 0
    assert callback.qsgd_stats().spending["jobs"] == 3


@pytest.mark.slow
def test_without_an_interval_the_trainers_steps_say_how_the_budget_is_spread(tmp_path, paid):
    term, ledger = paid
    trainer, _ = make("callback", term, arguments(tmp_path))
    with pytest.raises(ConfigError, match="total_steps=2000"):
        qsgd.QSGD(trainer.model.parameters(), **term)
    trainer.train()
    assert ledger.jobs(run="r")


@one("callback")
def test_inside_a_with_block_an_exception_ends_the_courier_too(tmp_path, how, paid):
    before = children()
    trainer, callback = make(how, {**paid[0], "every": 4}, arguments(tmp_path))
    alive = []

    class Look(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            alive.append(children() - before)

    trainer.add_callback(Look())
    trainer.add_callback(StopAt(5))
    with pytest.raises(KeyboardInterrupt), callback:
        trainer.train()
    assert len(alive) == 5
    assert all(len(found) == 1 for found in alive)
    assert children() == before


# --- what is refused ---------------------------------------------------------------------------


def test_a_callback_without_a_term_on_a_plain_optimizer_says_what_to_write(tmp_path):
    trainer = Trainer(Net(), arguments(tmp_path), train_dataset=rows(), callbacks=[QSGDCallback()])
    with pytest.raises(ConfigError, match=r"no term on AdamW.*QSGDCallback\(\{'quantum_weight'"):
        trainer.train()


def test_a_term_by_both_ways_at_once_is_refused(tmp_path):
    trainer, _ = make("class", {}, arguments(tmp_path))
    trainer.add_callback(QSGDCallback({"quantum_weight": WEIGHT}))
    with pytest.raises(ConfigError, match="This QSGD already carries the term"):
        trainer.train()


@pytest.mark.parametrize(
    "term, words",
    [
        ({"quantumweight": 0.5}, "no argument 'quantumweight'. Did you mean 'quantum_weight'"),
        ({"optimizer": None}, "no argument 'optimizer'"),
        ({"quantum_weight": -1}, "quantum_weight must be finite and at least 0, not -1"),
        ({"scope": "layer"}, "scope must be 'tensor' or 'model' or 'all', not 'layer'"),
    ],
    ids=str,
)
def test_an_argument_that_cannot_be_used_is_refused_before_training(term, words):
    with pytest.raises(ConfigError, match=words):
        QSGDCallback(term)


def test_names_from_a_generator_that_is_used_up_are_refused(tmp_path):
    """A dict that is handed to two Trainers has the same generator in it."""
    model = Net()
    term = {"named_parameters": model.named_parameters(), "scope": "model", "depth": 1}
    make("class", term, arguments(tmp_path), model)[0].train()
    with pytest.raises(ConfigError, match=r"none of this optimizer's.*list\(model\.named_param"):
        make("class", term, arguments(tmp_path), model)[0].train()


def test_there_is_nothing_to_tell_before_training():
    with pytest.raises(ConfigError, match=r"call trainer\.train\(\)"):
        QSGDCallback().qsgd_stats()


def test_the_example_runs_and_tells_the_effect_size(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples/huggingface_trainer.py"))
    said = capsys.readouterr().out
    assert "'qsgd_effect_size': 0.0" in said
    assert "the term was 0." in said
