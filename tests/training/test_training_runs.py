"""Runs: the same seed gives the same bits, stopped and taken up anywhere or not."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from stopping import state_of, stop_at

from qsgd_core.errors import ConfigError
from qsgd_core.events import BatchTrained, EpochEnded, RunEnded, RunStarted, StepTaken
from qsgd_core.settings import load_settings
from qsgd_core.training import TrainConfig, load_task, resume, train
from qsgd_core.training.folder.folder import RunFolder
from qsgd_core.training.loop import rng

SCRIPT = Path(__file__).parents[1] / "scripts" / "noisy_task.py"
STEPS_PER_EPOCH = 5
CONFIG = TrainConfig(perturbation="circuit", seed=4)


def noisy(kind: str = "global"):
    task, _ = load_task(f"{SCRIPT}:make_task", load_settings())
    task.kind = kind
    return task


def equal(a, b) -> bool:
    """Bit equality of nested containers of tensors and numbers."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def assert_same_bits(one: Path, other: Path) -> None:
    first, second = state_of(one), state_of(other)
    for state in (first, second):
        del state["position"]["elapsed_s"]
        del state["config"]["run"]
    assert equal(first, second)
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()


@pytest.fixture(autouse=True)
def no_plot(monkeypatch):
    """Drawing takes longer than training here; test_training_plot.py has the plot."""
    monkeypatch.setattr("qsgd_core.training.run.draw", lambda *_: None)


@pytest.fixture
def whole(tmp_path):
    """Two epochs without a stop."""
    train(noisy(), CONFIG, run_dir=tmp_path / "whole")
    return tmp_path / "whole"


def test_the_same_seed_gives_the_same_bits_and_another_does_not(whole, tmp_path):
    train(noisy(), CONFIG, run_dir=tmp_path / "again")
    assert_same_bits(whole, tmp_path / "again")
    train(noisy(), replace(CONFIG, seed=5), run_dir=tmp_path / "other")
    assert not equal(state_of(whole)["model"], state_of(tmp_path / "other")["model"])


@pytest.mark.parametrize("step", [1, 4, 5, 8, 10])
def test_a_run_stopped_by_ctrl_c_at_any_step_goes_on_to_the_same_bits(whole, tmp_path, step):
    path = tmp_path / "stopped"
    summary = train(noisy(), CONFIG, run_dir=path, observers=[stop_at(step)])
    assert summary.status == "interrupted"
    assert state_of(path)["position"]["step"] == step
    assert json.loads((path / "summary.json").read_text())["status"] == "interrupted"

    summary = resume(str(path), noisy())

    assert summary.status == "finished"
    assert_same_bits(whole, path)


@pytest.mark.parametrize("kind", ["generator", "sampler", "workers", "stream"])
def test_every_kind_of_loader_can_be_resumed_in_mid_epoch(tmp_path, kind):
    train(noisy(kind), CONFIG, run_dir=tmp_path / "whole")
    train(noisy(kind), CONFIG, run_dir=tmp_path / "part", observers=[stop_at(7)])
    resume(str(tmp_path / "part"), noisy(kind))
    assert_same_bits(tmp_path / "whole", tmp_path / "part")


@pytest.mark.parametrize(
    "change",
    [
        {"backend": "sampled", "shots": 64},
        {"quantum_weight": 0.0},
        {"every": 3},
        {"optimizer": "sgd", "scope": "all"},
        {"inject": "gradient", "perturbation": "sine"},
        {"normalize": "update"},
    ],
    ids=lambda change: "-".join(map(str, change.values())),
)
def test_every_form_of_the_term_can_be_resumed_in_mid_epoch(tmp_path, change):
    config = replace(CONFIG, **change)
    train(noisy(), config, run_dir=tmp_path / "whole")
    train(noisy(), config, run_dir=tmp_path / "part", observers=[stop_at(7)])
    resume(str(tmp_path / "part"), noisy())
    assert_same_bits(tmp_path / "whole", tmp_path / "part")


def test_a_run_stopped_again_and_again_goes_on_to_the_same_bits(whole, tmp_path):
    path = tmp_path / "stopped"
    train(noisy(), CONFIG, run_dir=path, observers=[stop_at(2)])
    for step in (3, 6, 9):
        assert resume(str(path), noisy(), observers=[stop_at(step)]).status == "interrupted"
    resume(str(path), noisy())
    assert_same_bits(whole, path)


def test_a_crash_falls_back_to_the_last_checkpoint_and_cuts_later_lines(whole, tmp_path):
    path = tmp_path / "crashed"
    task = noisy()

    def crash(event):
        if isinstance(event, EpochEnded) and event.epoch == 1:
            task.loss = None  # what an observer raises is kept away from training

    with pytest.raises(TypeError):
        train(task, CONFIG, run_dir=path, observers=[crash])
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "step": 10}\n')  # as if the crash had come a little later

    resume(str(path), noisy())

    assert_same_bits(whole, path)


def test_checkpoints_within_an_epoch_are_taken_up(whole, tmp_path):
    path = tmp_path / "crashed"
    task = noisy()
    seen = []

    def crash(event):
        if isinstance(event, BatchTrained) and event.step == 4:
            task.loss = None
        if isinstance(event, RunStarted):
            seen.append(event.step)

    with pytest.raises(TypeError):
        train(task, CONFIG, run_dir=path, observers=[crash], checkpoint_every=3)
    assert state_of(path)["position"]["step"] == 3

    resume(str(path), noisy(), observers=[lambda e: seen.append(e.step)])

    assert seen[:2] == [0, 3]
    assert_same_bits(whole, path)


def test_ctrl_c_that_kills_the_loaders_workers_still_leaves_a_checkpoint(whole, tmp_path):
    path = tmp_path / "stopped"
    task = noisy()
    build = task.build

    def build_dying(seed):
        built = build(seed)

        class Dying:
            num_workers = 2

            def __iter__(self):
                walk = iter(built.train_loader)
                yield from islice(walk, 3)
                signal.raise_signal(signal.SIGINT)
                raise RuntimeError("DataLoader worker (pid 1) exited unexpectedly")

        return replace(built, train_loader=Dying())

    task.build = build_dying
    assert train(task, CONFIG, run_dir=path).status == "interrupted"
    assert state_of(path)["position"]["batch"] == 3
    resume(str(path), noisy())
    assert_same_bits(whole, path)


def test_a_finished_run_is_left_alone_and_can_be_extended(whole, tmp_path):
    path = tmp_path / "short"
    train(noisy(), replace(CONFIG, epochs=1), run_dir=path)
    before = (path / "checkpoint.pt").read_bytes()

    again = resume(str(path), noisy())
    assert (again.trained, again.epochs) == (False, 1)
    assert (path / "checkpoint.pt").read_bytes() == before

    longer = resume(str(path), noisy(), asked={"epochs": 2})
    assert (longer.trained, longer.epochs, longer.steps) == (True, 2, 10)
    assert json.loads((path / "config.json").read_text())["config"]["epochs"] == 2
    assert_same_bits(whole, path)


@pytest.mark.parametrize("limit", [3, 5, 7])
def test_max_steps_stops_judges_and_can_be_raised_to_the_same_bits(whole, tmp_path, limit):
    path = tmp_path / "limited"
    summary = train(noisy(), replace(CONFIG, max_steps=limit), run_dir=path)
    assert (summary.steps, summary.epochs) == (limit, limit // STEPS_PER_EPOCH)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == limit
    assert summary.accuracy == rows[-1]["accuracy"]
    assert not resume(str(path), noisy()).trained

    resume(str(path), noisy(), asked={"max_steps": 1000})

    first, second = state_of(whole), state_of(path)
    assert equal(first["model"], second["model"])
    assert equal(first["optimizer"], second["optimizer"])
    assert (whole / "metrics.jsonl").read_bytes() == (path / "metrics.jsonl").read_bytes()


def test_an_end_that_lies_behind_the_checkpoint_is_refused(whole):
    with pytest.raises(ConfigError, match=r"epochs=1 was asked for.*come to 2"):
        resume(str(whole), noisy(), asked={"epochs": 1})


def test_zero_quantum_weight_is_plain_adamw_to_the_bit(tmp_path):
    train(noisy(), replace(CONFIG, quantum_weight=0.0), run_dir=tmp_path / "run")
    task = noisy()
    rng.seed_all(CONFIG.seed)
    built = task.build(CONFIG.seed)
    adamw = torch.optim.AdamW(built.model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(2):
        built.model.train()
        for batch in built.train_loader:
            adamw.zero_grad()
            task.loss(built.model, batch).backward()
            adamw.step()
        with torch.no_grad():
            built.evaluate(built.model.eval())
    assert equal(dict(built.model.state_dict()), state_of(tmp_path / "run")["model"])


def test_metrics_hold_no_clock_and_one_line_per_epoch(whole):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    names = {"epoch", "step", "train_loss", "effect_size", "accuracy", "loss"}
    assert all(set(row) == names for row in rows)
    assert all(row["effect_size"] > 0 for row in rows)


def test_the_mean_effect_size_of_the_epochs_is_that_of_the_run(tmp_path):
    summary = train(noisy(), CONFIG, run_dir=tmp_path / "run")
    rows = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    mean = sum(row["effect_size"] for row in rows) / len(rows)
    assert mean == pytest.approx(summary.effect_size["mean"], rel=1e-12)
    assert summary.effect_size["max"] >= mean


def test_observers_hear_of_everything_in_order(tmp_path):
    heard = []
    train(noisy(), CONFIG, run_dir=tmp_path / "run", observers=[heard.append])
    kinds = [type(event) for event in heard]
    epoch = [StepTaken, BatchTrained] * STEPS_PER_EPOCH + [EpochEnded]
    assert kinds == [RunStarted, *epoch, *epoch, RunEnded]
    assert heard[0].total_steps == 10
    assert [e.step for e in heard if isinstance(e, BatchTrained)] == list(range(1, 11))
    assert heard[-1].status == "finished"


def test_an_observer_that_raises_is_logged_once_and_changes_nothing(whole, tmp_path, caplog):
    def bad(event):
        raise ValueError("observer trouble")

    train(noisy(), CONFIG, run_dir=tmp_path / "run", observers=[bad])

    assert caplog.text.count("ValueError: observer trouble") == 1
    assert caplog.text.count("failed and is not told of anything more") == 1
    assert_same_bits(whole, tmp_path / "run")


def test_a_run_that_fails_tells_observers_so(tmp_path):
    task, heard = noisy(), []
    task.loss = None
    with pytest.raises(TypeError):
        train(task, CONFIG, run_dir=tmp_path / "run", observers=[heard.append])
    assert heard[-1] == RunEnded(0, status="failed")


def test_a_loader_without_batches_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="train_loader of task 'noisy' gave no batch"):
        train(noisy("empty"), CONFIG, run_dir=tmp_path / "run")


def test_a_metric_that_was_promised_and_not_returned_is_refused(tmp_path):
    task = noisy()
    task.metrics = ("accuracy", "perplexity")
    with pytest.raises(ConfigError, match="did not return perplexity"):
        train(task, CONFIG, run_dir=tmp_path / "run")


def test_a_folder_in_use_is_refused(whole):
    folder = RunFolder(whole)
    folder.lock()
    try:
        with pytest.raises(ConfigError, match="Another process is training in"):
            resume(str(whole), noisy())
    finally:
        folder.unlock()


def test_a_run_resumed_on_another_number_of_threads_warns(whole, caplog):
    torch.set_num_threads(2)
    resume(str(whole), noisy())
    assert "threads 1 then, 2 now" in caplog.text


def test_a_run_started_from_python_needs_its_task_again(whole):
    with pytest.raises(ConfigError, match="Pass the task to resume"):
        resume(str(whole))


def test_another_task_cannot_take_up_a_run(whole):
    task = noisy()
    task.name = "something-else"
    with pytest.raises(ConfigError, match="trains task 'noisy', not 'something-else'"):
        resume(str(whole), task)


def test_a_backend_set_in_the_environment_does_not_change_a_run(whole, monkeypatch):
    monkeypatch.setenv("QSGD_BACKEND", "sampled")
    with pytest.raises(ConfigError, match=r"QSGD_BACKEND is 'sampled'.*'exact'"):
        resume(str(whole), noisy())
    assert not resume(str(whole), noisy(), asked={"backend": "exact"}).trained


def test_a_model_that_has_changed_since_is_refused_and_the_run_kept(whole):
    task = noisy()
    build = task.build

    def build_wider(seed):
        built = build(seed)
        return replace(built, model=torch.nn.Linear(4, 2))

    task.build = build_wider
    before = {p.name: p.read_bytes() for p in whole.iterdir()}
    with pytest.raises(ConfigError, match="does not fit task 'noisy'"):
        resume(str(whole), task)
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == before


def test_a_diverged_run_says_so_and_writes_valid_json(tmp_path, caplog):
    task = noisy()
    loss = task.loss
    task.loss = lambda model, batch: loss(model, batch) * float("inf")
    summary = train(task, CONFIG, run_dir=tmp_path / "run")
    assert "is not finite" in caplog.text
    assert caplog.text.count("is not finite") == 1
    assert summary.status == "finished"
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_what_runs_beside_the_loop_is_ended_even_if_training_fails(
    tmp_path, monkeypatch, optimizer
):
    closed = []
    monkeypatch.setattr(
        "qsgd_core.optim.engine.Engine.close",
        lambda self, *, finished: closed.append(finished),
    )
    config = replace(CONFIG, optimizer=optimizer, max_steps=1)
    train(noisy(), config, run_dir=tmp_path / "fine")
    assert closed == [True]
    task = noisy()
    task.loss = None
    with pytest.raises(TypeError):
        train(task, config, run_dir=tmp_path / "fails")
    assert closed == [True, False]


def test_a_runs_record_names_the_version_that_it_was_trained_with(whole):
    config = json.loads((whole / "config.json").read_text())
    assert config["environment"]["qsgd-core"] == version("qsgd-core")


def test_folders_may_be_text_and_options_may_hold_what_numpy_and_pathlib_make(tmp_path):
    config = TrainConfig(
        perturbation="circuit",
        perturbation_options={"entangler": np.str_("ring")},
        schedule={"tiles": np.int64(2)},
        max_steps=np.int64(2),
    )
    path = str(tmp_path / "run")
    train(noisy(), config, run_dir=path, data=str(tmp_path), checkpoint_every=np.int64(1))
    kept = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert kept["perturbation_options"] == {"entangler": "ring"}
    assert kept["schedule"] == {"tiles": 2}
    assert TrainConfig(backend_options={"folder": tmp_path}).to_dict()["backend_options"] == {
        "folder": str(tmp_path)
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"config": {"epochs": 1}}, r"config must be a TrainConfig"),
        ({"observers": "tensorboard"}, r"observers=\['tensorboard'\]"),
        (
            {"checkpoint_every": 2.0},
            r"checkpoint_every must be an integer.*Give checkpoint_every=2",
        ),
        ({"checkpoint_every": 0}, "checkpoint_every must be an integer of at least 1, not 0"),
    ],
)
def test_what_train_cannot_use_is_refused_before_anything_is_written(tmp_path, given, words):
    with pytest.raises(ConfigError, match=words):
        train(noisy(), run_dir=tmp_path / "run", **given)
    assert not list(tmp_path.iterdir())


# --- metrics -------------------------------------------------------------------------------------


def evaluating(extra, metrics=("accuracy", "loss")):
    """The noisy task, whose evaluate() returns ``extra`` too."""
    task = noisy()
    build = task.build

    def more(seed):
        built = build(seed)
        return replace(built, evaluate=lambda m: {**built.evaluate(m), **extra})

    task.build, task.metrics = more, metrics
    return task


def test_numbers_with_the_names_of_the_runs_own_columns_are_kept_apart(tmp_path, caplog):
    own = {"train_loss": 123.0, "step": 7.0, "epoch": 1.5, "effect_size": 0.9, "train loss": 5.0}
    train(noisy(), CONFIG, run_dir=tmp_path / "plain")
    train(evaluating({**own, "task_step": 8.0}), CONFIG, run_dir=tmp_path / "more")
    rows, more = (
        [json.loads(x) for x in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("plain", "more")
    )
    for row, other in zip(rows, more, strict=True):
        assert other.items() >= row.items()
        assert (other["task_step"], other["task_task_step"]) == (8.0, 7.0)
        assert (other["task_train_loss"], other["task_train loss"]) == (123.0, 5.0)
    (warning,) = [r.message for r in caplog.records if "the run's own columns" in r.message]
    assert "train_loss is task_train_loss" in warning


def test_a_promised_metric_with_the_name_of_a_column_is_refused_before_the_run(tmp_path):
    with pytest.raises(ConfigError, match=r"train_loss.*task_train_loss"):
        train(evaluating({}, ("train_loss",)), CONFIG, run_dir=tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [None, torch.ones(3), "much", {"a": 1.0}, 10**400])
def test_a_metric_that_is_no_number_is_named(tmp_path, value):
    with pytest.raises(ConfigError, match="for 'ratio', which is no number"):
        train(evaluating({"ratio": value}), CONFIG, run_dir=tmp_path / "run")


@pytest.mark.parametrize(
    ("value", "number"),
    [(np.array([0.5]), 0.5), (torch.ones(1, requires_grad=True), 1.0), (np.True_, 1.0)],
)
def test_a_metric_of_any_kind_of_one_number_is_that_number(tmp_path, recwarn, value, number):
    train(evaluating({"ratio": value}), CONFIG, run_dir=tmp_path / "run")
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["ratio"] == number
    assert not [w for w in recwarn if "requires_grad" in str(w.message)]


def drawing(broken):
    """The noisy task, whose evaluate() draws, and returns nothing while ``broken()``."""
    task = evaluating({})
    build = task.build

    def more(seed):
        built = build(seed)

        def evaluate(model):
            torch.rand(3)
            return {} if broken() else built.evaluate(model)

        return replace(built, evaluate=evaluate)

    task.build = more
    return task


@pytest.mark.parametrize("end", [{}, {"max_steps": 8}])
def test_a_run_whose_evaluate_raises_is_kept_as_far_as_it_was_trained(tmp_path, end):
    config = TrainConfig(perturbation="circuit", seed=4, **end)
    steps = []

    def counted(event):
        if isinstance(event, StepTaken):
            steps.append(event.step)

    path = tmp_path / "broken"
    with pytest.raises(ConfigError, match="did not return accuracy, loss"):
        train(drawing(lambda: len(steps) >= 8), config, run_dir=path, observers=[counted])
    resume(str(path), drawing(lambda: False), observers=[counted])
    assert len(steps) == end.get("max_steps", 2 * STEPS_PER_EPOCH)
    train(drawing(lambda: False), config, run_dir=tmp_path / "whole")
    assert_same_bits(path, tmp_path / "whole")
