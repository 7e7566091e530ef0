"""``qsgd train`` through its entry point: the contract for scripts, and what people read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from qsgd_core.cli import main

SCRIPT = Path(__file__).parents[1] / "scripts" / "noisy_task.py"
TASK = f"{SCRIPT}:make_task"

KEYS = [
    "task", "backend", "perturbation", "quantum_weight", "n_qubits", "depth", "scope", "inject",
    "seed", "epochs", "steps", "loss", "accuracy", "effect_size", "sources", "wall_s", "run_dir",
]  # fmt: skip
SOURCES = {"measured", "held", "tracked", "nominal", "random", "zero", "exact"}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def run_json(capsys, *arguments: str) -> dict:
    assert main(["train", *arguments, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_train_prints_one_json_object_with_the_keys_of_the_contract(capsys):
    said = run_json(capsys, TASK, "--perturbation", "circuit")
    assert list(said) == KEYS
    assert set(said["effect_size"]) == {"mean", "max"}
    assert 0 < said["effect_size"]["mean"] <= said["effect_size"]["max"]
    assert said["sources"] == dict.fromkeys(SOURCES, 0) | {"exact": 1}
    assert (said["task"], said["epochs"], said["steps"]) == ("noisy", 2, 10)
    assert (said["backend"], said["perturbation"], said["seed"]) == ("exact", "circuit", 0)
    assert 0 <= said["accuracy"] <= 1


def test_a_run_leaves_its_folder(capsys):
    path = Path(run_json(capsys, TASK)["run_dir"])
    names = {p.name for p in path.iterdir()} - {".lock"}
    assert names == {
        "config.json", "metrics.jsonl", "checkpoint.pt", "summary.json", "plot.png",
        "record.sqlite",
    }  # fmt: skip
    assert path.parent == Path("runs")
    summary = json.loads((path / "summary.json").read_text())
    assert list(summary) == ["status", "ended_at", *KEYS]
    assert json.loads((path / "config.json").read_text())["source"] == TASK


def test_every_option_arrives_in_the_record(capsys):
    said = run_json(
        capsys, TASK, "--backend", "sampled", "--shots", "32", "--perturbation", "circuit",
        "--perturbation-option", "entangler=ring", "--quantum-weight", "0.25", "--n-qubits", "3",
        "--depth", "1", "--scope", "all", "--normalize", "update", "--every", "2", "--seed", "7",
        "--epochs", "1", "--max-steps", "4", "--lr", "0.02", "--weight-decay", "0.1",
        "--optimizer", "sgd", "--budget", "$1", "--policy", "hold", "--wait", "never",
        "--schedule", "twin_every=2",
    )  # fmt: skip
    config = json.loads((Path(said["run_dir"]) / "config.json").read_text())["config"]
    assert config.pop("run").startswith(Path(said["run_dir"]).name)
    assert config == {
        "backend": "sampled", "backend_options": None, "shots": 32, "perturbation": "circuit",
        "perturbation_options": {"entangler": "ring"}, "quantum_weight": 0.25, "n_qubits": 3,
        "depth": 1, "scope": "all", "inject": "update", "normalize": "update", "every": 2,
        "seed": 7, "epochs": 1, "max_steps": 4, "lr": 0.02, "weight_decay": 0.1,
        "optimizer": "sgd", "budget": "$1", "policy": "hold", "wait": "never",
        "schedule": {"twin_every": 2}, "replay": None, "lr_schedule": "constant", "warmup": 0.0,
        "lr_steps": None, "clip_norm": 0.0, "precision": "float32",
    }  # fmt: skip
    assert (said["steps"], said["scope"], said["quantum_weight"]) == (4, "all", 0.25)


def test_the_backend_comes_from_the_environment(capsys, monkeypatch):
    monkeypatch.setenv("QSGD_BACKEND", "sampled")
    monkeypatch.setenv("QSGD_SHOTS", "16")
    said = run_json(capsys, TASK, "--epochs", "1")
    assert said["backend"] == "sampled"
    assert said["sources"]["exact"] == 0
    assert sum(said["sources"].values()) == pytest.approx(1)


def test_without_a_term_all_shares_and_the_effect_size_are_zero(capsys):
    said = run_json(capsys, TASK, "--quantum-weight", "0")
    assert said["effect_size"] == {"mean": 0, "max": 0}
    assert said["sources"] == dict.fromkeys(SOURCES, 0)


@pytest.mark.parametrize(("backend", "source"), [("sampled", "measured"), ("exact", "exact")])
def test_steps_that_hold_an_earlier_result_are_not_said_to_have_measured_one(
    capsys, backend, source
):
    line = ["--backend", backend, "--perturbation", "circuit", "--every", "5"]
    said = run_json(capsys, TASK, *line, "--run-dir", "run")
    shares = {name: share for name, share in said["sources"].items() if share}
    assert shares == {source: 0.2, "held": 0.8}
    assert main(["report", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sources"] == said["sources"]
    assert main(["train", "--resume", "run"]) == 0
    assert "held from an earlier step in 80 % of steps" in " ".join(capsys.readouterr().out.split())


def test_the_same_seed_twice_gives_the_same_file_of_metrics(capsys):
    one, two = (run_json(capsys, TASK, "--seed", "3") for _ in range(2))
    assert one["run_dir"] != two["run_dir"]
    texts = [(Path(said["run_dir"]) / "metrics.jsonl").read_bytes() for said in (one, two)]
    assert texts[0] == texts[1]


def test_a_run_goes_on_by_its_name_or_path_without_naming_the_task_again(capsys):
    short = run_json(capsys, TASK, "--epochs", "1")
    longer = run_json(capsys, "--resume", Path(short["run_dir"]).name, "--epochs", "2")
    whole = run_json(capsys, TASK, "--epochs", "2")
    weights = [
        torch.load(Path(said["run_dir"]) / "checkpoint.pt", weights_only=True)["model"]
        for said in (longer, whole)
    ]
    assert longer["run_dir"] == short["run_dir"]
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[1])
    assert {**longer, "run_dir": 0, "wall_s": 0} == {**whole, "run_dir": 0, "wall_s": 0}


def test_a_finished_run_says_so_and_prints_its_summary(capsys):
    first = run_json(capsys, TASK)
    assert main(["train", "--resume", first["run_dir"], "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == first
    assert "This run is finished: 2 epochs, 10 steps." in said.err
    assert f"--resume {first['run_dir']} --epochs" in said.err


def test_the_end_is_told_in_plain_words(capsys):
    assert main(["train", TASK, "--epochs", "1"]) == 0
    said = capsys.readouterr()
    text = " ".join(said.out.split())
    assert "% of the AdamW step on the 14 coordinates it touches" in text
    assert "sine on exact: computed exactly in 100 % of steps" in text
    assert "plot.png" in text
    assert "epoch 1/1" in said.err  # not a terminal: a line per epoch instead of a bar


def test_what_a_task_prints_does_not_get_into_the_json(capsys, tmp_path):
    script = tmp_path / "chatty_task.py"
    script.write_text(
        SCRIPT.read_text() + "\n\ndef make_chatty():\n    print('chat')\n    return Noisy()\n"
    )
    run_json(capsys, f"{script}:make_chatty", "--epochs", "1")


def test_a_dry_run_shows_plan_and_circuit_and_writes_nothing(capsys, tmp_path):
    plan = run_json(capsys, TASK, "--dry-run", "--perturbation", "circuit", "--every", "3")
    assert plan["shots_per_circuit"] is None
    sampled = run_json(capsys, TASK, "--dry-run", "--backend", "sampled")
    assert sampled["shots_per_circuit"] == 1024
    assert (plan["steps"], plan["refreshes"]) == (10, 4)
    # weights 8x4 and 2x8 and bias 8 give 4 coordinates each, the last bias has only 2
    assert (plan["tensors"], plan["coordinates"], plan["blocks"]) == (4, 14, 4)
    assert plan["block_sizes"] == {"4": 3, "2": 1}
    assert plan["first_circuit"].startswith("OPENQASM 3.0;")
    assert main(["train", TASK, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "Nothing was sent and nothing was written." in text
    assert "qubit[4] q;" in text
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_a_task_without_length_knows_no_number_of_steps(capsys, tmp_path):
    script = tmp_path / "stream_task.py"
    script.write_text(SCRIPT.read_text() + "\n\ndef make_stream():\n    return Noisy('stream')\n")
    plan = run_json(capsys, f"{script}:make_stream", "--dry-run")
    assert plan["steps"] is None
    assert main(["train", f"{script}:make_stream", "--dry-run"]) == 0


def test_observers_run_when_named_on_the_line_or_in_the_environment(capsys, monkeypatch):
    pytest.importorskip("tensorboard")
    quiet = run_json(capsys, TASK, "--epochs", "1")
    named = run_json(capsys, TASK, "--epochs", "1", "--observe", "tensorboard")
    monkeypatch.setenv("QSGD_OBSERVERS", "tensorboard")
    set_so = run_json(capsys, TASK, "--epochs", "1")
    found = [(Path(said["run_dir"]) / "tensorboard").is_dir() for said in (quiet, named, set_so)]
    assert found == [False, True, True]
