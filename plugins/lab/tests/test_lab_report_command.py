"""``qsgd report`` on comparisons and pages of runs, as typed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import lab_compare_toy as toy
import lab_report_made as made
import pytest

from qsgd_core.cli.app import main


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison as ``qsgd compare`` left it, by its own command; not to be changed."""
    home = tmp_path_factory.mktemp("compared")
    out = home / "c"
    line = ["compare", toy.write(home), "--arms", "adamw,sine@0.5", "--seeds", "2", "--epochs", "2"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("qsgd_lab.compare.executors.make_executor", made.here)
        patched.setattr("qsgd_core.training.run.draw", lambda path, rows, summary: None)
        assert main([*line, "--out", str(out)]) == 0
    return out


@pytest.fixture
def folder(compared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(compared, tmp_path / "c"))


def said(capfd: pytest.CaptureFixture[str], *line: object) -> tuple[int, str, str]:
    capfd.readouterr()
    code = main(["report", *map(str, line)])
    return code, *capfd.readouterr()


def test_the_json_of_a_comparison_is_the_contracts_object_that_compare_prints(
    compared, capfd, monkeypatch
):
    code, out, _ = said(capfd, compared, "--json")
    assert code == 0
    data = json.loads(out)
    assert out.count("\n") == 1
    assert list(data) == [
        "task", "baseline", "seeds", "arms", "minimum_detectable_effect", "report",
    ]  # fmt: skip
    assert data["report"] == str(compared / "report.html")
    assert data["arms"]["sine@0.5"]["accuracy"]["mean"] is not None
    plan = json.loads((compared / "plan.json").read_text())
    line = ["compare", plan["source"], "--arms", "adamw,sine@0.5", "--seeds", "2", "--epochs", "2"]
    assert main([*line, "--out", str(compared), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == data


def test_the_terminal_shows_the_table_and_what_can_be_concluded(compared, capfd):
    code, out, _ = said(capfd, compared)
    assert code == 0
    assert "accuracy %" in out
    assert "* " in out
    assert any(line.startswith(" sine@0.5  ") for line in out.splitlines())


def test_a_page_is_made_of_a_comparison_that_is_still_going_on(tmp_path, capfd):
    plan = made.plan_of(("adamw", "sine@0.5"), seeds=3)
    base = made.learning()
    home, _ = made.write(tmp_path / "c", plan, lambda a, seed: base(a, seed) if seed < 2 else None)
    code, out, _ = said(capfd, home, "--json")
    assert (code, json.loads(out)["report"]) == (0, None)
    code, out, _ = said(capfd, home, "--html", "--markdown")
    assert (code, out.split()) == (0, [str(home / "report.html"), str(home / "report.md")])
    assert "2 runs are not finished yet, of 6" in (home / "report.html").read_text()
    assert "2 runs are not finished yet, of 6" in (home / "report.md").read_text()


def test_the_page_that_compare_wrote_is_the_one_that_report_writes(folder, capfd):
    before = [(folder / name).read_bytes() for name in ("report.html", "report.md")]
    assert said(capfd, folder, "--html", "--markdown")[0] == 0
    assert [(folder / name).read_bytes() for name in ("report.html", "report.md")] == before


def test_a_page_can_be_written_somewhere_else(folder, tmp_path, capfd):
    (folder / "report.html").unlink()
    out = tmp_path / "mine.html"
    code, printed, _ = said(capfd, folder, "--html", "--out", out)
    assert (code, printed.strip()) == (0, str(out))
    assert out.read_text().lstrip().startswith("<!DOCTYPE html>")
    assert not (folder / "report.html").exists()


def test_json_stays_alone_on_stdout_beside_a_page(folder, capfd):
    code, out, errors = said(capfd, folder, "--json", "--html")
    assert code == 0
    assert json.loads(out)["seeds"] == 2
    assert errors.strip() == str(folder / "report.html")


def test_a_comparison_is_found_by_its_name_under_the_runs(folder, monkeypatch, capfd):
    monkeypatch.setenv("QSGD_RUNS", str(folder.parent))
    assert json.loads(said(capfd, "c", "--json")[1])["task"] == "toy"


def test_one_run_of_a_comparison_has_a_page_too(folder, capfd):
    run = folder / "runs" / "01-sine@0.5-seed0"
    code, out, _ = said(capfd, run, "--html", "--markdown")
    assert (code, out.split()) == (0, [str(run / "report.html"), str(run / "report.md")])
    page, twin = (run / "report.html").read_text(), (run / "report.md").read_text()
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in metrics:
        assert f"| {row['epoch']} | {row['train_loss']:.4g} | {row['loss']:.4g} |" in twin
        assert f"| {row['epoch']} | {row['effect_size']:.3g} |" in twin
    assert "none: a simulator in this process" in page
    assert "Was the hardware worth its money?" not in page
    assert [page.count(f'id="figure-{name}"') for name in ("metric-loss", "effect")] == [1, 1]
    source = json.loads((run / "config.json").read_text())["source"]
    (line,) = re.findall("```\n(.*)\n```", twin)
    assert line.startswith(f"qsgd train {source} --optimizer adamw --lr 0.03 ")
    assert "--epochs 2" in line


def test_a_baselines_run_has_a_page_without_an_effect(folder, capfd):
    run = folder / "runs" / "00-adamw-seed0"
    assert said(capfd, run, "--html")[0] == 0
    page = (run / "report.html").read_text()
    assert 'id="figure-effect"' not in page
    assert "No step had a term." in page


@pytest.mark.parametrize(
    "options, says",
    [
        (["--out", "x.html"], "no page was asked for"),
        (["--html", "--markdown", "--out", "x"], "--html and --markdown was asked for"),
        (["--html", "--out", "."], "is a folder"),
        (["--html", "--out", "no/such/x.html"], "is in no folder that exists"),
    ],
)
def test_a_page_that_cannot_be_written_is_refused_before_it_is_made(
    compared, capfd, monkeypatch, tmp_path, options, says
):
    monkeypatch.chdir(tmp_path)
    code, out, errors = said(capfd, compared, *options)
    assert (code, out) == (2, "")
    assert says in errors
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_neither_kind_says_so(tmp_path, capfd):
    code, _, errors = said(capfd, tmp_path)
    assert code == 2
    assert "There is no run" in errors
    assert "pip install" not in errors


def test_a_damaged_plan_is_an_error_that_names_the_file(folder, capfd):
    (folder / "plan.json").write_text("{")
    code, out, errors = said(capfd, folder, "--html")
    assert (code, out) == (2, "")
    assert "plan.json cannot be read" in errors


def test_a_comparison_in_which_every_run_diverged_has_every_form(tmp_path, monkeypatch, capfd):
    source = toy.write(tmp_path, breaks="nan")
    script = Path(source.rpartition(":")[0])
    script.write_text(script.read_text().replace('"nan" and in_sine()', '"nan"'))
    monkeypatch.setattr("qsgd_lab.compare.executors.make_executor", made.here)
    line = ["compare", source, "--arms", "adamw,sine@0.5", "--seeds", "2", "--out"]
    assert main([*line, str(tmp_path / "c")]) == 0
    assert said(capfd, tmp_path / "c")[0] == 0
    code, out, _ = said(capfd, tmp_path / "c", "--json", "--html", "--markdown")
    assert code == 0
    assert json.loads(out, parse_constant=pytest.fail)["arms"]["adamw"]["loss"]["mean"] is None
    assert "diverged" in (tmp_path / "c" / "report.md").read_text()
