"""``qsgd compare`` on a paid backend: one budget for all runs, and nothing is paid for twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qsgd_core.cli import main
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.settings import load_settings

pytest.importorskip("qsgd_lab")
pytest.importorskip("qsgd_controls")

TASK = f"{Path(__file__).parents[1] / 'scripts' / 'noisy_task.py'}:make_task"


@pytest.fixture
def compare(filebox, tmp_path, monkeypatch, capfd):
    """Compares on the double with these arguments: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QSGD_LOAD_PLUGINS", "qsgd-filebox,qsgd-lab,qsgd-controls")

    def run(arms: str, *arguments: str) -> tuple[int, str, str]:
        where = ("--backend", "filebox:x", "--option", f"folder={tmp_path / 'vendor'}")
        what = ("--shots", "8", "--option", "coins=true", "--seeds", "2", "--epochs", "1")
        code = main(["compare", TASK, "--arms", arms, *where, *what, "--out", "c", *arguments])
        said = capfd.readouterr()
        return code, said.out, said.err

    return run


def test_the_budget_is_shared_equally_and_a_control_reads_what_was_measured(compare, tmp_path):
    arms = "adamw,permuted@0.5,circuit@0.5"
    code, out, err = compare(arms, "--budget", "$1", "--yes", "--json")
    assert code == 0, err
    assert json.loads(out)["arms"]["permuted@0.5"]["effect_size"]["mean"] > 0
    ledger = Ledger(load_settings().ledger_url())
    caps = {cap.budget: cap for cap in ledger.caps()}
    assert [cap.cap for cap in caps.values()] == [500_000, 500_000]
    assert all(cap.spent > 0 for cap in caps.values())
    jobs = ledger.jobs()
    assert {job.budget for job in jobs} == set(caps)
    plan = json.loads((tmp_path / "c" / "plan.json").read_text())
    assert {name.split(":")[1] for name in caps} == {plan["id"]}
    for seed in (0, 1):
        run = tmp_path / "c" / "runs" / f"01-permuted@0.5-seed{seed}"
        summary = json.loads((run / "summary.json").read_text())
        measured = run.with_name(f"02-circuit@0.5-seed{seed}") / "record.sqlite"
        assert summary["replayed"]["record"] == str(measured)
    again = compare(arms, "--budget", "$1", "--yes", "--json")
    assert json.loads(again[1]) == json.loads(out)
    assert len(ledger.jobs()) == len(jobs)


@pytest.mark.parametrize(
    "arms, arguments, says",
    [
        ("adamw,circuit@0.5", (), "Say what all of them together may cost"),
        ("adamw,circuit@0.5", ("--budget", "$1000"), "say --yes"),
        ("adamw,circuit@0.5", ("--budget", "1shots"), "leaves nothing when it is shared among 2"),
        ("adamw,circuit@0.5", ("--budget", "grant"), "'grant'"),
        ("adamw,uniform@0.5", ("--budget", "$1"), "no arm measures that. Add sine@0.5"),
        ("adamw,sine@0.5,uniform@0.5:all", ("--budget", "$1"), "has the scope 'tensor'"),
    ],
)
def test_what_cannot_be_paid_for_is_refused_before_anything_is_sent(
    compare, tmp_path, arms, arguments, says
):
    code, _, err = compare(arms, *arguments)
    assert code == 2
    assert says in err
    assert not list(tmp_path.glob("vendor/*"))
    assert not (tmp_path / "c").exists()


def test_a_named_budget_needs_an_interval_or_its_first_run_would_take_all(compare):
    Ledger(load_settings().ledger_url()).create_budget("grant", {"micro_usd": 1_000_000})
    code, _, err = compare("adamw,circuit@0.5", "--budget", "grant", "--yes")
    assert code == 2
    assert "--every 50" in err
    code, _, err = compare(
        "adamw,circuit@0.5", "--budget", "grant", "--yes", "--every", "2", "--out", "d", "--json"
    )
    assert code == 0, err
    (cap,) = Ledger(load_settings().ledger_url()).caps()
    assert (cap.budget, cap.spent > 0) == ("grant", True)
