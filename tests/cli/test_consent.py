"""Before the first job that may cost money: who is asked, what they are told, what scripts say."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from patience import PATIENCE_S

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.cli.consent import NO, Purchase, is_large, require_consent
from qsgd_core.errors import ConfigError
from qsgd_core.jobs import JobHandle
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.money import Amount, parse_budget

LINE = ("train", "digits", "--backend", "filebox:x", "--budget", "$25")
WORK = Workload((CircuitBatch(ansatz(2, 1), np.zeros((1, 2))),))


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")


def require(
    ledger: Ledger, budget: str | None, *, yes: bool = False, answer: bool | None = None
) -> list[str]:
    """The questions that were put; ``answer`` None: nobody is there."""
    asked: list[str] = []
    require_consent(
        Purchase("filebox:x", budget, price=lambda: "$0.10"),
        ledger,
        yes=yes,
        line=LINE,
        ask=None if answer is None else lambda question: bool(asked.append(question)) or answer,
    )
    return asked


def sell_one(ledger: Ledger) -> None:
    ledger.create_budget("b", {"micro_usd": 100})
    ledger.add_intent(
        WORK, tag="t", run="r", budget="b", backend="x", options={}, step=0, part=0, attempt=0,
        shots=8, seed=1,
    )  # fmt: skip
    ledger.reserve("t", Amount(shots=8, micro_usd=1))
    ledger.begin_submit("t")
    assert not ledger.paid_before()
    ledger.submitted("t", JobHandle("x", "j", "t", 1.0))
    assert ledger.paid_before()


# --- at a terminal -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "budget, most",
    [
        (None, "the default budget, $10, or 60 s of QPU time on a free plan"),
        ("$25", "$25"),
        ("$5,600s", "$5 and 600 s of QPU time"),
        ("mine", "what budget 'mine' has left, $7"),
    ],
)
def test_the_first_paid_run_on_a_ledger_is_asked_about(ledger, budget, most):
    ledger.create_budget("mine", {"micro_usd": 7_000_000})
    (question,) = require(ledger, budget, answer=True)
    assert f"jobs on filebox:x for up to {most};" in question
    assert "one refresh costs $0.10" in question
    assert question.endswith("Go on?")


def test_no_ends_it_before_anything_is_sent(ledger, capsys):
    with pytest.raises(typer.Exit) as stop:
        require(ledger, None, answer=False)
    assert stop.value.exit_code == NO == 1
    assert "Nothing was sent and nothing was spent" in capsys.readouterr().err


def test_later_runs_are_not_asked_about(ledger):
    sell_one(ledger)
    assert require(ledger, "$500", answer=False) == []


def test_yes_answers_beforehand(ledger):
    assert require(ledger, None, yes=True, answer=False) == []


# --- in a script ---------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [None, "$10", "60s", "1min", "$5,600s", "$500,60s", "mine"])
def test_a_script_goes_on_within_what_the_default_would_allow_and_with_a_named_budget(
    ledger, budget
):
    ledger.create_budget("mine", {"micro_usd": 7_000_000_000})
    assert require(ledger, budget) == []


@pytest.mark.parametrize("budget", ["$10.01", "61s", "1shot", "$25,600s", "$25,600s,5shots"])
def test_a_script_says_yes_to_more_and_is_told_the_line_to_paste(ledger, budget):
    with pytest.raises(ConfigError, match=r"is more than the default") as caught:
        require(ledger, budget)
    assert str(caught.value).endswith(
        "--yes: qsgd train digits --backend filebox:x --budget '$25' --yes"
    )
    assert require(ledger, budget, yes=True) == []
    assert is_large(parse_budget(budget))


@pytest.mark.parametrize("yes", [False, True])
@pytest.mark.parametrize("answer", [None, True])
@pytest.mark.parametrize(
    "budget, message",
    [
        ("0", "is not understood"),
        ("$0", "must be more than 0"),
        ("0s", "must be more than 0"),
        ("$-3", "must be more than 0"),
        ("25 euro", "is not understood"),
        ("$25,$30", "two amounts in one unit"),
        ("nobody", "Or the name of a budget. Budgets on this ledger: mine"),
    ],
)
def test_what_is_no_budget_is_refused_before_anybody_is_asked(ledger, budget, message, yes, answer):
    ledger.create_budget("mine", {"micro_usd": 7_000_000})
    with pytest.raises(ConfigError, match="Give") as caught:
        require(ledger, budget, yes=yes, answer=answer)
    assert message in str(caught.value)


# --- the whole command ---------------------------------------------------------------------------

TASK = Path(__file__).parents[1] / "scripts" / "noisy_task.py"


@pytest.fixture
def command(filebox, tmp_path):
    """A line of ``qsgd train`` on the folder vendor, and its environment."""
    options = {"folder": str(tmp_path / "vendor"), "coins": True}
    env = {**filebox, "QSGD_BACKEND": "filebox:x", "QSGD_BACKEND_OPTIONS": json.dumps(options)}
    line = [sys.executable, "-m", "qsgd_core", "train", f"{TASK}:make_task", "--shots", "8"]
    return [*line, "--every", "2"], env, tmp_path


def sold(folder: Path) -> int:
    return len(list((folder / "vendor" / "jobs").glob("*.json")))


def at_a_terminal(line: list[str], env: dict[str, str], folder: Path, *, keys: bytes) -> tuple:
    """Exit status and what was shown of a command whose stdin and stderr are a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        line, env=env, cwd=folder, stdin=theirs, stderr=theirs, stdout=subprocess.DEVNULL
    )
    os.close(theirs)
    shown, end = b"", time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < end:
            try:
                data = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            shown += data
            if keys and b"[y/N]" in shown:
                os.write(ours, keys)
                keys = b""
    finally:
        if time.monotonic() >= end:
            process.kill()
        os.close(ours)
    return process.wait(timeout=PATIENCE_S), shown.decode()


def test_at_a_terminal_enter_means_no_and_y_means_yes(command):
    line, env, folder = command
    code, shown = at_a_terminal(line, env, folder, keys=b"\n")
    assert (code, sold(folder)) == (1, 0), shown
    assert "first paid run on this ledger" in shown
    assert "jobs on filebox:x for up to the default budget" in shown
    assert "one refresh costs $0.0" in shown
    assert not (folder / "runs").exists()
    code, shown = at_a_terminal(line, env, folder, keys=b"y\n")
    assert code == 0, shown
    assert sold(folder) > 0


def test_a_script_that_asks_for_much_without_yes_is_exit_code_2_and_sends_nothing(command):
    line, env, folder = command
    line += ["--budget", "$25"]
    done = subprocess.run(
        line, env=env, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"qsgd train {TASK}:make_task --shots 8 --every 2 --budget '$25' --yes" in done.stderr
    assert sold(folder) == 0
    assert not (folder / "runs").exists()
