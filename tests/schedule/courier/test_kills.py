"""kill -9 of trainer and courier at any instant: real processes, a vendor whose list lags."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kills import BUDGET, Books, Bystander, Moment, Sold, Trainer, campaign
from patience import PATIENCE_S

from qsgd_core.cli import main
from qsgd_core.schedule.ledger.ledger import Ledger

CAP = 60_000

# The list shows a job 0.2 s after its acceptance; the adapter promises 0.6 s. Kills fall into the
# 0.05 s before and after acceptance as well as between calls.
OPTIONS = {
    "lag_s": 0.2, "horizon_s": 0.6, "run_s": 0.05, "before_s": 0.05, "after_s": 0.05,
    "max_rows": 2, "coins": True, "faults": {"lost": [3, 11], "refused": [5, 6], "dropped": [8]},
}  # fmt: skip
# Most kills meet a courier that has something to lose.
MOMENTS = [Moment(1.5), *4 * [Moment(0.3, since="busy")]]


@pytest.mark.parametrize(
    "kills, steps, seed", [(10, 4, 1), pytest.param(110, 20, 2, marks=pytest.mark.slow)]
)
def test_whatever_is_killed_when_nothing_is_paid_twice(filebox, tmp_path, kills, steps, seed):
    from qsgd_filebox.options import FileboxOptions
    from qsgd_filebox.vendor import Vendor

    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger.create_budget(BUDGET, {"micro_usd": CAP})
    options = {**OPTIONS, "folder": str(tmp_path / "vendor")}
    vendor = Vendor(FileboxOptions(**options), time.time)

    def books() -> Books:
        return Books(tuple(Sold(job["tag"], job["micro_usd"]) for job in vendor.jobs()))

    def start(steps: int) -> Trainer:
        log = tmp_path / "log"
        return Trainer(ledger.url, "filebox:x", options, steps, env=filebox, log=log)

    bystander = Bystander(books, ledger)
    found = campaign(start, bystander, MOMENTS, kills=kills, steps=steps, seed=seed)
    print(
        f"filebox: {dict(found.struck)}, {found.steps} steps, open at kills: {dict(found.states)}"
    )


# --- qsgd train ----------------------------------------------------------------------------------

QSGD = [sys.executable, "-m", "qsgd_core"]
RUN = ["train", "digits", "--epochs", "1", "--every", "15", "--shots", "64", "--json"]
RUN += ["--policy", "sync"]  # to the bit: what is asked for and what has arrived is no race


@pytest.fixture
def train(filebox, tmp_path):
    """Starts ``qsgd`` with a vendor of its own for each name."""

    def start(name: str, *arguments: str, run_s: float = 0.0) -> subprocess.Popen[str]:
        options = {"folder": str(tmp_path / name), "run_s": run_s}
        environment = {
            **filebox,
            "QSGD_BACKEND": "filebox:x",
            "QSGD_BACKEND_OPTIONS": json.dumps(options),
            "QSGD_HOME": str(tmp_path / f"{name}-home"),
        }
        return subprocess.Popen(
            [*QSGD, *arguments],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def sold(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in (folder / "jobs").glob("*.json")]


def end(process: subprocess.Popen[str]) -> dict:
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    return json.loads(out)


def until_sold(folder: Path, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while len(sold(folder)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_without_a_term_nothing_is_bought(filebox, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("QSGD_BACKEND", "filebox:x")
    monkeypatch.setenv("QSGD_BACKEND_OPTIONS", json.dumps({"folder": str(tmp_path / "v")}))
    monkeypatch.chdir(tmp_path)
    assert main([*RUN, "--quantum-weight", "0"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["jobs"], said["shots"], said["cost_usd"], said["qpu_s"]) == (0, 0, 0, 0)
    assert sold(tmp_path / "v") == []


@pytest.mark.slow
def test_a_run_interrupted_and_killed_in_mid_wait_goes_on_to_the_same_bits_for_the_same_money(
    train, tmp_path
):
    whole = end(train("whole", *RUN, "--run-dir", "whole-run"))
    once = sold(tmp_path / "whole")
    assert (whole["jobs"], len(once)) == (3, 3)
    assert whole["shots"] == sum(job["executions"] for job in once)
    assert whole["cost_usd"] == pytest.approx(sum(job["micro_usd"] for job in once) / 1e6)
    assert whole["qpu_s"] == pytest.approx(sum(job["qpu_us"] for job in once) / 1e6)
    assert whole["sources"]["measured"] == pytest.approx(3 / 45)
    assert whole["sources"]["held"] == pytest.approx(42 / 45)

    first = train("torn", *RUN, "--run-dir", "torn-run", run_s=1.0)
    until_sold(tmp_path / "torn", 1)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=PATIENCE_S)
    assert first.returncode == 130, err
    assert "--resume torn-run" in err
    second = train("torn", "train", "--resume", "torn-run", "--json", run_s=1.0)
    until_sold(tmp_path / "torn", 2)
    second.kill()
    second.communicate()
    torn = end(train("torn", "train", "--resume", "torn-run", "--json", run_s=1.0))

    twice = sold(tmp_path / "torn")
    assert len(twice) == 3
    assert sorted(job["seed"] for job in twice) == sorted(job["seed"] for job in once)
    alike = ("jobs", "shots", "cost_usd", "qpu_s", "loss", "accuracy", "effect_size", "sources")
    assert {key: torn[key] for key in alike} == {key: whole[key] for key in alike}
    metrics = [(tmp_path / run / "metrics.jsonl").read_bytes() for run in ("whole-run", "torn-run")]
    assert metrics[0] == metrics[1]
