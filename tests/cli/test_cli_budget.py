"""``qsgd budget``: what hardware jobs may cost."""

from __future__ import annotations

import json

import pytest

from qsgd_core.cli import main
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.settings import load_settings


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("QSGD_HOME", str(tmp_path / "home"))


def run_json(capsys, *arguments: str):
    assert main(["budget", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "amount, unit, cap",
    [
        ("$25", "micro_usd", 25_000_000),
        ("600s", "qpu_us", 600_000_000),
        ("1e6shots", "shots", 1_000_000),
    ],
)
def test_a_budget_is_made_shown_and_raised_in_each_unit(capsys, amount, unit, cap):
    empty = {"reserved": 0, "spent": 0, "provisional": 0, "overrun": 0}
    record = {"budget": "lab", "unit": unit, "cap": cap, "left": cap} | empty
    assert run_json(capsys, "create", "lab", amount) == [record]
    assert run_json(capsys, "show") == run_json(capsys, "show", "lab") == [record]
    (raised,) = run_json(capsys, "raise", "lab", f"{amount[0]}9{amount[1:]}")
    assert raised["cap"] > cap


@pytest.mark.parametrize("amounts", [["$25", "600s"], ["600s,$25"]])
def test_a_budget_caps_several_units_at_once_and_is_raised_in_them(capsys, amounts):
    created = run_json(capsys, "create", "lab", *amounts)
    assert {r["unit"]: r["cap"] for r in created} == {"micro_usd": 25_000_000, "qpu_us": 6 * 10**8}
    assert all(set(r) >= {"unit", "cap", "reserved", "spent", "overrun"} for r in created)
    raised = run_json(capsys, "raise", "lab", "700s", "$30")
    assert {r["unit"]: r["cap"] for r in raised} == {"micro_usd": 30_000_000, "qpu_us": 7 * 10**8}
    assert main(["budget", "raise", "lab", "$40", "700s"]) == 2
    assert "is 700 s of QPU time already" in capsys.readouterr().err
    assert run_json(capsys, "show") == raised


def test_amounts_are_shown_to_people_in_their_units(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["budget", "create", "lab", "$0.30"]) == 0
    assert main(["budget", "create", "free", "42s"]) == 0
    assert main(["budget", "show"]) == 0
    out = capsys.readouterr().out
    assert "$0.3" in out
    assert "42 s of QPU time" in out


def test_without_any_budget_the_default_is_explained(capsys):
    assert run_json(capsys, "show") == []
    assert main(["budget", "show"]) == 0
    assert "$10" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["create", "lab", "25"], "is not understood"),
        (["create", "lab", "$0"], "must be more than 0"),
        (["create", "lab", "$-3"], "must be more than 0"),
        (["create", "lab", "5€"], "is not understood"),
        (["create", "lab", "$5", "$6"], "two amounts in one unit"),
        (["create", "lab", "$5", "0s"], "must be more than 0"),
        (["create", "default-usd:aws-1", "$5"], "cannot be called 'default-usd:aws-1'"),
        (["create", "$5", "$5"], "cannot be called '$5'"),
        (["create", "default", "$5"], "cannot be called 'default'"),
        (["create", "mine", "$5"], "exists already"),
        (["raise", "mine", "$5"], "is $5 already"),
        (["raise", "mine", "60s"], "no cap in qpu_us, only in micro_usd"),
        (["raise", "lab", "$60"], "There is no budget 'lab'"),
        (["show", "lab"], "There is no budget 'lab'. Make it: qsgd budget create lab $25"),
    ],
)
def test_what_cannot_be_done_is_one_paragraph_and_exit_code_2(capsys, arguments, message):
    Ledger(load_settings().ledger_url()).create_budget("mine", {"micro_usd": 5_000_000})
    assert main(["budget", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("Error: ")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_an_unusable_ledger_is_one_paragraph_and_exit_code_2(capsys, monkeypatch):
    monkeypatch.setenv("QSGD_LEDGER", "sqlite:////proc/nowhere/ledger.sqlite")
    assert main(["budget", "show"]) == 2
    assert "QSGD_LEDGER" in capsys.readouterr().err
