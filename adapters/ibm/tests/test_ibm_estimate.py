"""``qsgd estimate`` on IBM: what a run would take, from IBM's own answers; no job is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from asking import ask_in_this_process

from qsgd_core.cli import main

SMALL = Path(__file__).parents[3] / "tests" / "scripts" / "noisy_task.py"
LINE = ["estimate", f"{SMALL}:make_task", "--backend", "ibm_fez", "--shots", "256", "--json"]
PACKED = ["--schedule", "tiles=auto"]


@pytest.fixture
def home(monkeypatch, tmp_path):
    """Nothing of the machine's own, here and in the child that asks IBM."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QSGD_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def here(monkeypatch):
    ask_in_this_process(monkeypatch)


@pytest.fixture
def estimate(home, capsys):
    def run(*arguments: str) -> dict[str, Any]:
        assert main([*LINE, *arguments]) == 0, capsys.readouterr().err
        return dict(json.loads(capsys.readouterr().out))

    return run


def test_seconds_follow_ibms_time_model_and_a_free_plan_costs_no_dollars(double, estimate, home):
    found = estimate("--steps", "1000", "--budget", "60s", *PACKED)
    # Four blocks side by side are one circuit: 2 s, and 256 times the repetition and the circuit.
    assert (found["blocks"], found["circuits_per_refresh"], found["jobs_per_refresh"]) == (4, 1, 1)
    assert 2.0 + 256 * 250e-6 < found["refresh_qpu_s"] < 2.0 + 256 * 400e-6
    assert (found["unit"], found["cap"]) == ("qpu_us", 60_000_000)
    # Each job is held at the whole second above 1.5 times that and 2 s, and takes 2.1 s.
    assert found["refreshes"] == 1 + int((60 - 6) // found["refresh_qpu_s"])
    assert found["qpu_s"] == pytest.approx(found["refreshes"] * found["refresh_qpu_s"])
    assert found["cost_usd"] == 0.0
    assert "plan open is free" in found["price"]["source"]
    assert 0.005 < found["twin_error"] < 0.1
    assert double.ledger()["posts"] == 0
    assert not (home / "home").exists()


@pytest.mark.usefixtures("here")
def test_without_a_budget_the_free_plans_default_is_60_seconds(double, estimate):
    found = estimate("--steps", "1000")
    assert found["budget"].startswith("default-free-plan")
    assert (found["unit"], found["cap"]) == ("qpu_us", 60_000_000)
    assert double.ledger()["posts"] == 0


@pytest.mark.usefixtures("here")
def test_dollars_come_from_the_plan_the_account_is_on(double, estimate):
    double.settings(plan="Pay-as-you-go", pricing="paygo")
    found = estimate("--steps", "1000", "--budget", "$100")
    assert found["refresh_usd"] == pytest.approx(1.6 * found["refresh_qpu_s"])
    assert found["price"]["effective_date"] == "2026-05-25"
    assert found["cost_usd"] < 100
    own = estimate("--steps", "1000", "--budget", "$100", "--option", "usd_per_s=0.5")
    assert own["refresh_usd"] == pytest.approx(0.5 * own["refresh_qpu_s"])


@pytest.mark.usefixtures("here")
def test_an_unknown_plan_under_a_budget_in_dollars_is_refused_with_the_option(double, home, capsys):
    double.settings(plan="bespoke", pricing="subscription")
    assert main([*LINE, "--steps", "1000", "--budget", "$100"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "unknown" in said.err
    assert "backend option" in said.err


@pytest.mark.usefixtures("here")
def test_a_budget_below_one_job_says_what_a_job_costs(double, home, capsys):
    assert main([*LINE, "--steps", "1000", "--budget", "2s"]) == 1
    said = capsys.readouterr()
    assert "One job on 'ibm_fez' can cost up to 6 s of QPU time" in said.err
    assert "2 s of QPU time left of 2 s" in said.err
    assert double.ledger()["posts"] == 0


@pytest.mark.usefixtures("here")
def test_least_busy_is_estimated_for_the_device_that_it_is_now(double, estimate):
    found = estimate("--steps", "10", "--backend", "ibm:least_busy", "--budget", "60s")
    assert found["device"] in ("ibm_brisbane", "ibm_fez")
    assert found["backend"] == "ibm:least_busy"


@pytest.mark.usefixtures("here")
def test_without_a_key_seconds_are_from_the_price_table_and_dollars_are_not_known(
    no_account, estimate
):
    found = estimate("--steps", "1000", "--budget", "60s")
    assert found["refresh_qpu_s"] == pytest.approx(2.0 + 4 * 256 * 0.00035)
    assert found["cost_usd"] is None
    assert found["price"]["effective_date"] == "2026-11-21"
    assert "price table alone" in found["notes"][0]
    assert "QISKIT_IBM_TOKEN" in found["notes"][0]


@pytest.mark.usefixtures("here")
def test_a_key_that_ibm_does_not_accept_is_said_beside_the_tables_figures(
    double, estimate, monkeypatch
):
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "wrong" * 8)
    found = estimate("--steps", "1000", "--budget", "60s")
    assert "price table alone" in found["notes"][0]
    assert "wrong" * 8 not in json.dumps(found)
