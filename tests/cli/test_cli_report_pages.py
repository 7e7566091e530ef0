"""``qsgd report --html``: without qsgd-lab it says what to install, with it hardware has a page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from qsgd_core.cli import main

TASK = f"{Path(__file__).parents[1] / 'scripts' / 'noisy_task.py'}:make_task"


# --- without the lab -----------------------------------------------------------------------------


@pytest.fixture
def run(own_plugins_not_installed, monkeypatch, tmp_path, capsys) -> Path:
    """A run of a machine that has the core alone."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", TASK, "--epochs", "1", "--run-dir", "r", "--json"]) == 0
    capsys.readouterr()
    return tmp_path / "r"


@pytest.mark.parametrize("form", ["--html", "--markdown"])
def test_without_the_lab_a_page_says_what_to_install(run, capsys, form):
    before = sorted(run.iterdir())
    assert main(["report", "r", form]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "pip install qsgd-lab" in said.err
    assert sorted(run.iterdir()) == before


def test_without_the_lab_a_run_is_still_reported(run, capsys):
    assert main(["report", "r", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == "noisy"
    assert main(["report", "r"]) == 0
    assert "effect size" in capsys.readouterr().out


def test_without_the_lab_a_comparison_says_what_to_install(run, tmp_path, capsys):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "plan.json").write_text("{}")
    assert main(["report", "c"]) == 2
    assert "If the folder is a comparison's" in (said := capsys.readouterr().err)
    assert "pip install qsgd-lab" in said
    assert main(["report", "nothing"]) == 2
    assert "pip install" not in capsys.readouterr().err


# --- hardware ------------------------------------------------------------------------------------


@pytest.fixture
def paid(filebox, tmp_path, monkeypatch):
    """The double with the lab beside it."""
    pytest.importorskip("qsgd_lab")
    pytest.importorskip("qsgd_controls")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QSGD_LOAD_PLUGINS", "qsgd-filebox,qsgd-lab,qsgd-controls")
    where = ["--backend", "filebox:x", "--option", f"folder={tmp_path / 'vendor'}"]
    return [*where, "--option", "coins=true", "--shots", "8", "--yes"]


def test_a_run_on_hardware_has_its_money_and_measurements_on_the_page(paid, capsys, tmp_path):
    line = ["train", TASK, "--epochs", "2", "--every", "2", "--budget", "$1", "--run-dir", "r"]
    assert main([*line, *paid, "--json"]) == 0
    capsys.readouterr()
    assert main(["report", "r", "--json", "--html", "--markdown"]) == 0
    data = json.loads(capsys.readouterr().out)
    page, twin = ((tmp_path / "r" / f"report.{end}").read_text() for end in ("html", "md"))
    drawn = json.loads(re.findall(r'id="figures">(.*?)</script>', page)[0])
    points = data["hardware"]["burn_down"]["usd"]
    traces = {trace["name"]: trace for trace in drawn["burn-down-usd"]["data"]}
    assert traces["spent"]["x"] == [p["step"] for p in points]
    assert traces["spent"]["y"] == [p["spent"] + p["overrun"] for p in points]
    assert drawn["burn-down-usd"]["layout"]["shapes"][0]["y0"] == points[-1]["cap"] == 1.0
    assert drawn["staleness"]["data"][0]["y"] == data["hardware"]["ages"]["steps"]["counts"]
    jobs = data["money"]["jobs"]
    assert f"| jobs | {len(jobs)}: " in twin
    assert "## Was the hardware worth its money?" in twin
    assert "to the cent" in twin
    assert "tracked 100 %" in twin
    assert "jobs sent" in twin
    assert re.search(r"\| ended \| 20\d\d-\d\d-\d\d \d\d:\d\d UTC \|", twin)
    assert "--budget &#39;$1&#39;" in page


class Here:
    """An executor that runs runs in this process: without the seconds that a new one takes."""

    def run(self, home, keys):
        from qsgd_lab.compare.runs import run_one

        for key in keys:
            run_one(str(home), key.arm, key.seed)
            yield key


def test_a_comparison_on_hardware_has_every_paid_run_and_its_cost(
    paid, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr("qsgd_lab.compare.executors.make_executor", lambda *_, **__: Here())
    line = ["compare", TASK, "--arms", "adamw,circuit@0.5,permuted@0.5", "--seeds", "2"]
    assert main([*line, "--epochs", "1", *paid, "--budget", "$1", "--out", "c"]) == 0
    capsys.readouterr()
    page, twin = ((tmp_path / "c" / f"report.{end}").read_text() for end in ("html", "md"))
    runs = []
    for seed in (0, 1):
        assert main(["report", f"c/runs/01-circuit@0.5-seed{seed}", "--json"]) == 0
        runs.append(json.loads(capsys.readouterr().out))
    for seed, run in enumerate(runs):
        assert f"| circuit@0.5 | {seed} | filebox:x | {len(run['money']['jobs'])} |" in twin
    assert "permuted@0.5 | 0 | filebox" not in twin  # it read what was measured
    jobs = sum(len(run["money"]["jobs"]) for run in runs)
    assert f"2 runs measured on a backend: {jobs} jobs" in twin
    assert "| backends | filebox:x, 8 shots: circuit@0.5, permuted@0.5 |" in twin
    drawn = json.loads(re.findall(r'id="figures">(.*?)</script>', page)[0])
    assert [t["name"] for t in drawn["burn-down-usd"]["data"]] == [
        "circuit@0.5, seed 0",
        "circuit@0.5, seed 1",
    ]
    first = runs[0]["hardware"]["burn_down"]["usd"][-1]
    share = drawn["burn-down-usd"]["data"][0]["y"][-1]
    assert share == pytest.approx(100 * (first["spent"] + first["overrun"]) / first["cap"])
    # Another ledger knows nothing of these jobs, and the page says so.
    monkeypatch.setenv("QSGD_LEDGER", f"sqlite:///{tmp_path / 'another.sqlite'}")
    assert main(["report", "c", "--markdown"]) == 0
    twin = (tmp_path / "c" / "report.md").read_text()
    assert "| not read | circuit@0.5 seed 0: The ledger " in twin
