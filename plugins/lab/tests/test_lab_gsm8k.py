"""The task `gsm8k`, on a tiny random model: what is trained, how it is judged, to which bits."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import lab_gsm8k_tiny as tiny
import pytest
import torch
from stopping import state_of, stop_at
from torch import nn

from qsgd_core.cli.app import main
from qsgd_core.errors import ConfigError
from qsgd_core.plugins.registry import default_registry, forget_registries
from qsgd_core.training import TrainConfig, plan, replay, resume, train
from qsgd_lab.gsm8k import judging
from qsgd_lab.gsm8k.answers import final_number, is_right
from qsgd_lab.gsm8k.data import Problem
from qsgd_lab.gsm8k.encoding import IGNORED, Encoder, collate
from qsgd_lab.gsm8k.task import Gsm8k


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No QSGD_* variable, no picture of the run, which takes longer than the run."""
    for name in [name for name in os.environ if name.startswith("QSGD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("qsgd_core.training.run.draw", lambda *_: None)
    torch.set_num_threads(1)
    forget_registries()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``model``, ``plain`` (no chat template), ``dropout`` and ``data``."""
    folder = tmp_path_factory.mktemp("gsm8k")
    tiny.write_model(folder / "model")
    tiny.write_model(folder / "plain", chats=False)
    tiny.write_model(folder / "dropout", dropout=0.5)
    tiny.write_data(folder / "data")
    return folder


@pytest.fixture
def make(home: Path) -> Callable[..., Gsm8k]:
    """The task on the tiny model and data; arguments as Gsm8k's."""

    def made(**changes: Any) -> Gsm8k:
        model = str(home / changes.pop("model", "model"))
        return Gsm8k(
            **{"data": home / "data", "context": 512, "test_examples": 4, **changes}, model=model
        )

    return made


def problems() -> list[Problem]:
    return [Problem(**tiny.problem(n)) for n in range(tiny.N_TRAIN)]


def weights(model: nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


# --- settings ------------------------------------------------------------------------------------


def test_the_installed_provider_serves_the_task_with_the_papers_settings():
    task = default_registry().make_task("gsm8k")
    said = task.defaults
    assert (said.epochs, said.lr, said.weight_decay, said.clip_norm) == (1, 2e-5, 0.01, 1.0)
    assert (said.betas, said.eps) == ((0.9, 0.999), 1e-8)
    assert (said.lr_schedule, round(said.warmup * 7473)) == ("linear", 500)
    assert said.precision == ("float16" if torch.cuda.is_available() else "float32")
    assert (task.options.context, task.metrics) == (2048, ("loss",))


def test_listing_the_task_imports_neither_torch_nor_transformers():
    light = "import qsgd_lab.plugin as p; p.qsgd_register_tasks()"
    heavy = "import sys; sys.exit(bool({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"{light}; {heavy}"], check=False)
    assert done.returncode == 0


def test_an_argument_wins_over_the_environment_and_both_over_the_default(monkeypatch):
    monkeypatch.setenv("QSGD_GSM8K_TEST_EXAMPLES", "7")
    monkeypatch.setenv("QSGD_GSM8K_EXACT_MATCH", "true")
    assert Gsm8k().options.test_examples == 7
    assert Gsm8k(test_examples=9).options.test_examples == 9
    assert Gsm8k().metrics == ("loss", "accuracy")
    assert Gsm8k(exact_match=False).metrics == ("loss",)


def test_a_reader_is_told_model_data_precision_and_warm_up(make):
    said = " ".join(make().check())
    assert "model" in said
    assert "12 problems" in said
    assert "loss on the first 4 of 6 test problems" in said
    assert "float32 on the CPU; the paper has mixed float16" in said
    assert "6.7 %" in said
    assert "mixed float16" in make(precision="float16").check()[1]


def test_every_problem_is_walked_once_an_epoch_in_an_order_of_the_seed(make):
    walks = []
    for seed in (0, 0, 1):
        loader = make().build(seed).train_loader
        walks.append([tuple(batch["input_ids"][0].tolist()) for batch in loader])
    assert len(set(walks[0])) == tiny.N_TRAIN
    assert sorted(walks[0]) == sorted(walks[2])
    assert walks[0] == walks[1] != walks[2]


# --- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize("chats", [True, False])
def test_the_model_reads_prompt_and_answer_and_is_judged_by_the_answer_and_its_end(chats):
    words = tiny.tokenizer(chats=chats)
    encoder = Encoder(words, 512)
    problem = problems()[0]
    batch = collate([encoder.example(problem)])
    tokens, labels = batch["input_ids"][0], batch["labels"][0]
    counted = labels != IGNORED
    assert torch.equal(tokens[counted], labels[counted])
    assert words.decode(tokens[counted]).strip() == problem.answer + words.eos_token
    before = words.decode(tokens[~counted])
    if chats:
        turn = f"<|im_start|>user\n{problem.question}<|im_end|>\n<|im_start|>assistant\n"
        assert before == turn
    else:
        assert before == f"Question: {problem.question}\nAnswer:"


def test_a_template_that_writes_todays_date_gets_a_fixed_one():
    words = tiny.tokenizer()
    words.chat_template = "{{ date_string or strftime_now('%d %b %Y') }} " + tiny.TEMPLATE
    assert Encoder(words, 512).prompt_text(problems()[0]).startswith("26 Jul 2024 ")


def test_what_is_beyond_the_context_is_cut():
    encoder = Encoder(tiny.tokenizer(), 512)
    whole = encoder.example(problems()[0])
    cut = Encoder(tiny.tokenizer(), len(whole.tokens) - 5).example(problems()[0])
    assert cut.tokens == whole.tokens[:-5]
    assert cut.n_prompt == whole.n_prompt


# --- judging -------------------------------------------------------------------------------------


def test_the_loss_is_each_answers_mean_and_padding_changes_nothing(make):
    """Recomputed by transformers' own loss, one problem at a time; float32 sums of ~100 terms."""
    built = make(test_examples=6).build(0)
    encoder = Encoder(tiny.tokenizer(), 512)
    built.model.eval()
    one_by_one = []
    with torch.no_grad():
        for n in range(50, 50 + tiny.N_TEST):
            batch = collate([encoder.example(Problem(**tiny.problem(n)))])
            one_by_one.append(float(built.model(**batch).loss))
        together = built.evaluate(built.model)["loss"]
    assert together == pytest.approx(sum(one_by_one) / len(one_by_one), rel=1e-5)
    assert together == pytest.approx(math.log(len(tiny.tokenizer())), rel=0.1)  # knows nothing


def test_the_training_loss_of_a_problem_is_what_it_is_judged_by(make):
    task = make()
    built = task.build(0)
    batch = next(iter(built.train_loader))
    loss = task.loss(built.model, batch)
    assert loss.requires_grad
    assert loss.item() == pytest.approx(built.model(**batch).loss.item(), rel=1e-6)


@pytest.mark.parametrize(
    "text, number",
    [
        ("#### 72", 72),
        ("so 3.\n#### 1,000", 1000),
        ("####-5.", -5),
        ("#### $12.50 and", "12.5"),
        ("#### 18\n#### 19", 18),
        ("72", None),
        ("#### many", None),
        ("#### .,", None),
    ],
)
def test_the_number_of_an_answer_is_what_stands_after_the_hashes(text, number):
    assert final_number(text) == (None if number is None else Decimal(number))


def test_only_the_same_number_is_right():
    assert is_right("It is\n#### 1000.00", "… #### 1,000")
    assert not is_right("1000", "#### 1000")
    assert not is_right("#### 1001", "#### 1000")


def test_exact_match_counts_what_a_greedy_model_writes(make):
    """A model that has learned its four problems by heart writes their numbers; an untrained
    one does not.
    """
    task = make(exact_match=True)
    built = task.build(0)
    encoder = Encoder(tiny.tokenizer(), 512)
    chosen = problems()[:4]
    model = built.model
    assert judging.exact_match(model.eval(), encoder, chosen, 2) == 0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    batch = collate([encoder.example(problem) for problem in chosen])
    for _ in range(100):
        optimizer.zero_grad()
        judging.answer_losses(model, batch).mean().backward()
        optimizer.step()
    model.requires_grad_(False)
    found = {size: judging.exact_match(model, encoder, chosen, size) for size in (1, 3, 4)}
    assert found == {1: 1.0, 3: 1.0, 4: 1.0}
    wrong = [p.model_copy(update={"answer": "#### 999"}) for p in chosen[:2]] + chosen[2:]
    assert judging.exact_match(model, encoder, wrong, 4) == 0.5
    assert set(built.evaluate(model)) == {"loss", "accuracy"}


# --- training ------------------------------------------------------------------------------------

CONFIG = TrainConfig(seed=3, lr=5e-3, perturbation="circuit", epochs=2)


def test_training_lowers_the_loss_of_problems_it_has_not_seen(make, tmp_path):
    before = make().build(0)
    summary = train(make(), replace(CONFIG, epochs=6, lr=2e-2), run_dir=tmp_path / "run")
    with torch.no_grad():
        started = before.evaluate(before.model.eval())["loss"]
    assert summary.loss < 0.6 * started
    rows = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["train_loss"] < 0.6 * rows[0]["train_loss"]
    assert summary.accuracy is None


@pytest.mark.parametrize("model", ["model", "dropout"])
@pytest.mark.parametrize("step", [5, 12, 17])
def test_a_run_stopped_anywhere_goes_on_to_the_same_bits(make, tmp_path, model, step):
    train(make(model=model), CONFIG, run_dir=tmp_path / "whole")
    part = tmp_path / "part"
    stopped = train(make(model=model), CONFIG, run_dir=part, observers=[stop_at(step)])
    assert stopped.status == "interrupted"
    assert resume(str(part), make(model=model)).status == "finished"
    ours, theirs = state_of(part), state_of(tmp_path / "whole")
    assert all(torch.equal(ours["model"][k], theirs["model"][k]) for k in theirs["model"])
    assert (part / "metrics.jsonl").read_bytes() == (
        tmp_path / "whole" / "metrics.jsonl"
    ).read_bytes()


def test_a_run_is_replayed_to_the_bit(make, tmp_path):
    train(make(), CONFIG, run_dir=tmp_path / "run")
    again = replay(str(tmp_path / "run"), make(), run_dir=tmp_path / "again")
    assert again.replayed["bit_identical"]
    assert again.replayed["compared"]["weights"] == 3  # the start and two epochs


def test_tied_embeddings_are_one_tensor_of_the_term_and_stay_tied(make, tmp_path):
    built = make().build(0)
    tied = built.model.get_input_embeddings().weight
    assert built.model.get_output_embeddings().weight is tied
    n_tensors = len({p.data_ptr() for p in built.model.parameters()})
    whole = plan(make(), replace(CONFIG, scope="all"))
    assert whole.coordinates == sum(p.numel() for p in built.model.parameters())
    found = plan(make(), CONFIG)
    assert (found.tensors, found.coordinates) == (n_tensors, 4 * n_tensors)
    train(make(), CONFIG, run_dir=tmp_path / "run")
    saved = state_of(tmp_path / "run")["model"]
    assert torch.equal(saved["lm_head.weight"], saved["model.embed_tokens.weight"])


def test_the_warm_up_is_the_papers_share_of_a_run_that_is_cut(make, tmp_path):
    config = replace(CONFIG, epochs=4, max_steps=30)
    train(make(), config, run_dir=tmp_path / "run")
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (recorded["lr_steps"], round(recorded["lr_steps"] * recorded["warmup"])) == (30, 2)
    # In the paper's run it is the paper's number.
    assert round(7473 * recorded["warmup"]) == 500


# --- a run is of one task ------------------------------------------------------------------------


def test_a_recorded_run_brings_its_model_along_and_is_not_resumed_with_another(
    make, home, tmp_path, monkeypatch
):
    monkeypatch.setenv("QSGD_GSM8K_CONTEXT", "512")
    run = tmp_path / "run"
    train(
        make(),
        CONFIG,
        source="gsm8k",
        data=home / "data",
        run_dir=run,
        observers=[stop_at(3)],
    )
    assert json.loads((run / "config.json").read_text())["identity"]["model"] == str(home / "model")

    monkeypatch.setenv("QSGD_GSM8K_MODEL", str(home / "dropout"))
    with pytest.raises(ConfigError, match=r"QSGD_GSM8K_MODEL .*dropout', and the run has .*model'"):
        resume(str(run))

    monkeypatch.delenv("QSGD_GSM8K_MODEL")  # and the default model is another one
    assert resume(str(run)).status == "finished"


def test_a_run_is_not_resumed_on_other_problems(make, home, tmp_path):
    train(make(), CONFIG, run_dir=tmp_path / "run", observers=[stop_at(3)])
    moved = tiny.write_data(tmp_path / "moved")
    assert make(data=moved).identity() == make().identity()
    with (moved / "train.jsonl").open("a") as file:
        file.write(json.dumps(tiny.problem(40)) + "\n")
    with pytest.raises(ConfigError, match=r"problems in .*moved have changed"):
        resume(str(tmp_path / "run"), make(data=moved))


def test_a_script_may_choose_the_model(home, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "from qsgd_lab.gsm8k.task import Gsm8k\n"
        f"def make_task():\n    return Gsm8k(model={str(home / 'plain')!r}, context=512)\n"
    )
    from qsgd_core.settings import load_settings
    from qsgd_core.training import open_task

    task, _ = open_task(f"{script}:make_task", home / "data", load_settings())
    assert task.identity()["model"] == str(home / "plain")
    batch = next(iter(task.build(0).train_loader))
    text = tiny.tokenizer().decode(batch["input_ids"][0])
    assert text.startswith("Question: Ann has")


def test_the_command_trains_says_what_on_and_goes_on_by_the_runs_name(
    home, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("QSGD_GSM8K_MODEL", str(home / "model"))
    monkeypatch.setenv("QSGD_GSM8K_CONTEXT", "512")
    run = str(tmp_path / "run")
    line = ["train", "gsm8k", "--data", str(home / "data"), "--max-steps", "3"]

    assert main([*line, "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["steps"], shown["lr_steps"], shown["clip_norm"]) == (3, 3, 1.0)

    assert main([*line, "--run-dir", run, "--json"]) == 0
    said = capsys.readouterr()
    first = json.loads(said.out)
    assert (first["task"], first["steps"], first["accuracy"]) == ("gsm8k", 3, None)
    assert "12 problems of" in said.err
    assert "float32 on the CPU" in said.err

    for named in ([], ["gsm8k"]):
        assert main(["train", *named, "--resume", run, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["loss"] == first["loss"]
    assert main(["train", "gsm8k", "--resume", run]) == 0
    assert "lr 2e-05: linear to 0 at step 3; gradient norm at most 1" in capsys.readouterr().out


def test_what_a_run_would_cost_is_foreseen_on_data_of_ones_own(home, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QSGD_GSM8K_MODEL", str(home / "model"))
    monkeypatch.setenv("QSGD_GSM8K_CONTEXT", "512")
    assert main(["estimate", "gsm8k", "--steps", "9", "--data", str(home / "data"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    model = Gsm8k(data=home / "data").build(0).model
    assert found["steps"] == 9
    assert found["blocks"] == len(list(model.parameters()))
    assert not list(tmp_path.iterdir())
