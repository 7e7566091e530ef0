"""Learning rate, clipping and mixed precision of a run: what each step gets, stopped or not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from stopping import state_of, stop_at
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from qsgd_core.errors import ConfigError
from qsgd_core.settings import load_settings
from qsgd_core.task import Built, Task, TaskDefaults
from qsgd_core.training import TrainConfig, plan, replay, resume, train
from qsgd_core.training.config import resolve
from qsgd_core.training.loop.rate import describe, rate, varies, warmup_steps
from qsgd_core.training.run import assemble

N_BATCHES = 10
PLAIN = TrainConfig(seed=2, epochs=2, lr=0.1, quantum_weight=0.0)
LINEAR = replace(PLAIN, lr_schedule="linear", warmup=0.2)


class Line(Task):
    """Fits a line, and notes the dtypes that its model answers in."""

    name = "line"
    metrics = ("loss",)
    defaults = TaskDefaults()

    def __init__(self, scale: float = 1e-3, *, known_length: bool = True) -> None:
        self.scale = scale
        self.known_length = known_length
        self.dtypes: list[torch.dtype] = []

    def build(self, seed: int) -> Built:
        own = torch.Generator().manual_seed(seed)
        x = torch.randn(4 * N_BATCHES, 6, generator=own)
        y = x @ torch.arange(6.0)[:, None]
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
        order = torch.Generator().manual_seed(seed)
        loader = DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True, generator=order)

        def evaluate(model: nn.Module) -> dict[str, float]:
            out = model(x)
            self.dtypes.append(out.dtype)
            return {"loss": float((out - y).square().mean())}

        return Built(model, loader if self.known_length else Endless(loader), evaluate)

    def loss(self, model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        out = model(batch[0])
        self.dtypes.append(out.dtype)
        return self.scale * (out - batch[1]).square().mean()


class Endless:
    """Data that does not tell how much of it there is."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __iter__(self):
        while True:
            yield from self.loader


@pytest.fixture(autouse=True)
def no_plot(monkeypatch):
    monkeypatch.setattr("qsgd_core.training.run.draw", lambda *_: None)


def planned(**changes) -> TrainConfig:
    config = TrainConfig(lr=2e-5, lr_steps=7473, **{"lr_schedule": "linear", **changes})
    return resolve(config, TaskDefaults(), load_settings())


def assert_same_bits(one: Path, other: Path) -> None:
    ours, theirs = state_of(one), state_of(other)
    assert ours["scaler"] == theirs["scaler"]
    assert ours["position"] | {"elapsed_s": 0} == theirs["position"] | {"elapsed_s": 0}
    rates = [state["optimizer"]["param_groups"][0]["lr"] for state in (ours, theirs)]
    assert rates[0] == rates[1]
    for name, weight in theirs["model"].items():
        assert torch.equal(ours["model"][name], weight)
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


def weights_by_hand(config: TrainConfig, task: Line, *, clip: float, steps: int) -> list:
    """Plain torch: AdamW, clip_grad_norm_, and the rate of each step written into the group."""
    from qsgd_core.training.loop import rng

    rng.seed_all(config.seed)
    built = task.build(config.seed)
    optimizer = torch.optim.AdamW(built.model.parameters(), lr=config.lr, weight_decay=0.0)
    full = replace(resolve(config, TaskDefaults(), load_settings()), lr_steps=steps)
    taken = 0
    for _ in range(config.epochs):
        built.model.train()
        for batch in built.train_loader:
            optimizer.param_groups[0]["lr"] = rate(full, taken)
            optimizer.zero_grad()
            task.loss(built.model, batch).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(built.model.parameters(), clip)
            optimizer.step()
            taken += 1
    return list(built.model.state_dict().values())


# --- the rate ------------------------------------------------------------------------------------


def test_the_rate_is_that_of_transformers_but_for_its_first_step_which_moves_nothing():
    transformers = pytest.importorskip("transformers")
    config = planned(warmup=500 / 7473)
    assert warmup_steps(config) == 500
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2e-5)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 500, 7473)
    theirs = []
    for _ in range(7473):
        theirs.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    ours = [rate(config, step) for step in range(7473)]
    assert ours[500:] == theirs[500:]
    assert ours[:500] == theirs[1:501]
    assert min(ours) > theirs[0] == 0
    assert rate(config, 7473) == 0


@pytest.mark.parametrize("n_steps, n_warmup", [(1, 0), (4, 0), (40, 3), (748, 50), (7473, 500)])
def test_a_shorter_run_has_the_same_share_of_warm_up(n_steps, n_warmup):
    config = replace(planned(warmup=500 / 7473), lr_steps=n_steps)
    rates = [rate(config, step) for step in range(n_steps)]
    assert warmup_steps(config) == n_warmup
    assert max(rates) == rates[max(n_warmup - 1, 0)] == 2e-5
    assert rates == sorted(rates[:n_warmup]) + sorted(rates[n_warmup:], reverse=True)


def test_without_a_schedule_the_rate_stays_and_with_a_warm_up_alone_it_stays_after_it():
    assert not varies(planned(lr_schedule="constant"))
    assert {rate(planned(lr_schedule="constant"), k) for k in (0, 9, 9999)} == {2e-5}
    warm = planned(lr_schedule="constant", warmup=0.5)
    assert rate(warm, 0) < rate(warm, 3000) < rate(warm, 4000) == rate(warm, 99999) == 2e-5


def test_what_a_step_gets_is_said_in_words():
    config = planned(warmup=500 / 7473, clip_norm=1.0, precision="float16")
    assert describe(config) == (
        "lr 2e-05: 500 warm-up steps, then linear to 0 at step 7,473; gradient norm at most 1; "
        "mixed float16"
    )
    assert describe(planned(lr_schedule="constant")) == "lr 2e-05"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"lr_schedule": "cosine"}, "lr_schedule must be 'constant' or 'linear', not 'cosine'"),
        ({"precision": "bfloat16"}, "precision must be 'float32' or 'float16', not 'bfloat16'"),
        ({"warmup": 1.5}, "warmup is a share of the run's steps, 1 at most, not 1.5"),
        ({"warmup": -0.1}, "warmup must be finite and at least 0"),
        ({"clip_norm": float("inf")}, "clip_norm must be finite"),
        ({"lr_steps": 0}, "lr_steps must be an integer of at least 1, not 0"),
    ],
)
def test_a_value_that_cannot_be_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        resolve(TrainConfig(**changes), TaskDefaults(), load_settings())


# --- in a run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [0.0, 0.005])
@pytest.mark.parametrize("config", [PLAIN, LINEAR], ids=["constant", "linear"])
def test_a_run_is_plain_torch_with_that_rate_and_clipping_to_the_bit(tmp_path, config, clip):
    train(Line(), replace(config, clip_norm=clip), run_dir=tmp_path / "run")
    by_hand = weights_by_hand(config, Line(), clip=clip, steps=2 * N_BATCHES)
    ours = list(state_of(tmp_path / "run")["model"].values())
    assert all(torch.equal(a, b) for a, b in zip(ours, by_hand, strict=True))


def test_clipping_and_the_rate_each_change_the_weights(tmp_path):
    for name, config in {
        "plain": PLAIN,
        "linear": LINEAR,
        "clipped": replace(PLAIN, clip_norm=0.005),
    }.items():
        train(Line(), config, run_dir=tmp_path / name)
    weights = {p.name: state_of(p)["model"]["0.weight"] for p in tmp_path.iterdir()}
    assert not torch.equal(weights["plain"], weights["linear"])
    assert not torch.equal(weights["plain"], weights["clipped"])


FORMS = {
    "linear": replace(LINEAR, quantum_weight=0.5, perturbation="circuit"),
    "clipped": replace(LINEAR, quantum_weight=0.5, clip_norm=0.005, inject="gradient"),
    "float16": replace(LINEAR, quantum_weight=0.5, clip_norm=0.005, precision="float16"),
    "sgd": replace(LINEAR, quantum_weight=0.5, optimizer="sgd", lr=1e-3, normalize="update"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", [2, 10, 17])
def test_a_run_stopped_in_warm_up_or_decay_goes_on_to_the_same_bits(tmp_path, form, step):
    train(Line(), FORMS[form], run_dir=tmp_path / "whole")
    stopped = train(Line(), FORMS[form], run_dir=tmp_path / "part", observers=[stop_at(step)])
    assert stopped.status == "interrupted"
    resume(str(tmp_path / "part"), Line())
    assert_same_bits(tmp_path / "part", tmp_path / "whole")


@pytest.mark.parametrize("form", FORMS)
def test_a_replay_has_the_rates_of_the_recorded_run_even_if_it_ends_earlier(tmp_path, form):
    train(Line(), FORMS[form], run_dir=tmp_path / "run")
    again = replay(str(tmp_path / "run"), Line(), run_dir=tmp_path / "again")
    assert again.replayed["bit_identical"]
    assert_same_bits(tmp_path / "run", tmp_path / "again")
    shorter = replay(
        str(tmp_path / "run"), Line(), asked={"epochs": 1}, run_dir=tmp_path / "shorter"
    )
    assert shorter.steps == N_BATCHES
    assert shorter.replayed["bit_identical"]
    assert shorter.replayed["compared"]["weights"] == 2  # the start and an epoch


def test_a_run_that_stops_early_has_the_rates_that_were_planned(tmp_path):
    train(Line(), LINEAR, run_dir=tmp_path / "run", observers=[stop_at(5)])
    resume(str(tmp_path / "run"), Line(), asked={"max_steps": 8})
    config = replace(LINEAR, max_steps=8, lr_steps=2 * N_BATCHES)
    train(Line(), config, run_dir=tmp_path / "short")
    ours, theirs = (state_of(tmp_path / name)["model"] for name in ("run", "short"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_rate_that_has_come_to_zero_cannot_be_trained_on(tmp_path):
    train(Line(), replace(LINEAR, max_steps=8), run_dir=tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with pytest.raises(ConfigError, match=r"planned for 8 steps and is 0 after them.*step 20"):
        resume(str(tmp_path / "run"), Line(), asked={"max_steps": 99})
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_a_rate_that_changes_needs_to_know_how_long_the_run_is(tmp_path):
    with pytest.raises(ConfigError, match=r"does not tell how many steps that is.*--max-steps"):
        train(Line(known_length=False), replace(LINEAR, epochs=1), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    summary = train(
        Line(known_length=False), replace(LINEAR, epochs=1, max_steps=7), run_dir=tmp_path / "run"
    )
    assert summary.steps == 7
    assert summary.steps_are == "lr 0.1: 1 warm-up steps, then linear to 0 at step 7"


def test_config_json_and_the_plan_say_what_every_step_gets(tmp_path):
    train(Line(), replace(LINEAR, clip_norm=2.0), run_dir=tmp_path / "run")
    said = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    expected = {
        "lr_schedule": "linear",
        "warmup": 0.2,
        "lr_steps": 2 * N_BATCHES,
        "clip_norm": 2.0,
        "precision": "float32",
    }
    shown = plan(Line(), replace(LINEAR, clip_norm=2.0)).to_dict()
    assert {name: said[name] for name in expected} == expected
    assert {name: shown[name] for name in expected} == expected


def test_a_configuration_of_an_older_version_has_the_defaults_of_its_time():
    old = {k: v for k, v in PLAIN.to_dict().items() if k not in ("lr_schedule", "precision")}
    assert TrainConfig.from_dict(old) == PLAIN


# --- mixed precision -----------------------------------------------------------------------------


def test_losses_and_metrics_are_computed_in_float16_and_weights_kept_in_float32(tmp_path):
    task = Line()
    train(task, replace(PLAIN, precision="float16"), run_dir=tmp_path / "run")
    assert set(task.dtypes) == {torch.float16}
    saved = state_of(tmp_path / "run")
    assert {w.dtype for w in saved["model"].values()} == {torch.float32}
    # float16 rounds by 2**-11 = 0.05 %; the loss is a mean of squares of sums of eight.
    whole = train(Line(), PLAIN, run_dir=tmp_path / "float32")
    assert saved["rows"][-1]["loss"] == pytest.approx(whole.loss, rel=0.02)
    assert saved["rows"][-1]["loss"] != whole.loss


OVERFLOWS = 1.0
"""Scale of the loss at which 65,536 times a gradient is more than float16's 65,504."""


def test_a_step_whose_gradients_overflow_is_left_out_and_not_counted(tmp_path):
    config = FORMS["float16"]
    whole = train(Line(OVERFLOWS), config, run_dir=tmp_path / "run")
    left_out = 2 * N_BATCHES - whole.steps
    assert 0 < left_out < N_BATCHES
    saved = state_of(tmp_path / "run")
    assert saved["scaler"]["scale"] == 2.0 ** (16 - left_out)  # halved each time
    assert all(w.isfinite().all() for w in saved["model"].values())
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    last = rate(TrainConfig.from_dict(recorded), whole.steps - 1)
    assert saved["optimizer"]["param_groups"][0]["lr"] == last

    train(Line(OVERFLOWS), config, run_dir=tmp_path / "part", observers=[stop_at(1)])
    resume(str(tmp_path / "part"), Line(OVERFLOWS))
    assert_same_bits(tmp_path / "part", tmp_path / "run")


def test_a_replay_of_a_run_with_steps_left_out_says_so(tmp_path, caplog):
    train(Line(OVERFLOWS), FORMS["float16"], run_dir=tmp_path / "run")
    again = replay(str(tmp_path / "run"), Line(OVERFLOWS), run_dir=tmp_path / "again")
    assert again.replayed["bit_identical"]
    assert again.replayed["compared"]["weights"] == 3  # the start and two epochs
    assert "left steps out for gradients that overflowed in float16" in caplog.text


def test_assemble_plans_the_rate_before_anything_is_written():
    parts = assemble(Line(), resolve(LINEAR, TaskDefaults(), load_settings()))
    assert parts.config.lr_steps == 2 * N_BATCHES
    parts.term.close()
