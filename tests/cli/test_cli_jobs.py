"""``qsgd jobs``: what is at the vendors, and what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from patience import PATIENCE_S

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.cli import main
from qsgd_core.errors import AuthError
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.settings import load_settings

ROOT = Path(__file__).parents[2]
WORK = Workload((CircuitBatch(ansatz(2, 1), np.array([[0.2, 0.4], [0.1, 0.3]])),))
KEYS = {"tag", "run", "step", "backend", "state", "shots", "cost_usd", "submitted_at", "job_id"}


@pytest.fixture
def ledger(filebox) -> Ledger:
    ledger = Ledger(load_settings().ledger_url())
    ledger.create_budget("b", {"micro_usd": 10_000})
    return ledger


@pytest.fixture
def left_behind(ledger, tmp_path):
    """A run whose trainer and courier are dead, with a job brought to a state."""
    from qsgd_filebox.backend import Filebox
    from qsgd_filebox.options import FileboxOptions

    def leave(run: str, state: str, **options) -> str:
        options = {"folder": str(tmp_path / "vendor"), "coins": True} | options
        ledger.open_run(run, backend="filebox:x", options=options)
        tag = f"tag-of-{run}"
        ledger.add_intent(
            WORK, tag=tag, run=run, budget="b", backend="filebox:x", options=options, step=15,
            part=0, attempt=0, shots=8, seed=5,
        )  # fmt: skip
        courier = Courier(ledger, Filebox("filebox:x", FileboxOptions(**options)), run=run)
        while ledger.job(tag).state != state:
            courier.round()
        return tag

    return leave


def run_json(capsys, *arguments: str, code: int = 0):
    assert main(["jobs", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def vendor_jobs(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in (folder / "vendor/jobs").glob("*.json")]


# --- list ----------------------------------------------------------------------------------------


def test_the_list_has_a_record_for_each_job_with_its_hold_or_cost(capsys, left_behind):
    left_behind("done", "settled")
    left_behind("out", "submitted", run_s=1000)
    left_behind("new", "intent")
    records = run_json(capsys, "list")
    assert all(set(record) >= KEYS for record in records)
    seen = [(r["run"], r["state"], r["shots"], r["cost_usd"]) for r in records]
    assert seen == [
        ("done", "settled", 16, 0.001016),
        ("out", "submitted", 16, 0.001016),
        ("new", "intent", None, None),
    ]
    assert [r["job_id"] is None for r in records] == [False, False, True]
    assert [r["submitted_at"] is None for r in records] == [False, False, True]
    assert {r["step"] for r in records} == {15}
    assert [r["run"] for r in run_json(capsys, "list", "--open")] == ["out", "new"]
    assert [r["run"] for r in run_json(capsys, "list", "out")] == ["out"]


def test_the_list_for_people_is_a_table(capsys, left_behind, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    left_behind("done", "settled")
    left_behind("bad", "failed", faults={"fails": [1]})
    assert main(["jobs", "list"]) == 0
    said = capsys.readouterr()
    assert "tag-of-done" in said.out
    assert "0.001016" in said.out
    assert "was failed: the vendor's reasons" in said.err


def test_a_job_that_waits_is_listed_with_its_place_in_the_queue(capsys, left_behind, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    left_behind("first", "submitted", run_s=1000)
    left_behind("second", "submitted", run_s=1000)
    run_json(capsys, "resume")
    places = {r["run"]: r["queue_position"] for r in run_json(capsys, "list")}
    assert places == {"first": 1, "second": 2}
    assert main(["jobs", "list"]) == 0
    assert "submitted, 2 in the queue" in capsys.readouterr().out
    assert main(["jobs", "wait", "second", "--timeout", "0"]) == 1
    assert "Waiting for 1 jobs, the next at place 2 of its queue." in capsys.readouterr().err
    run_json(capsys, "cancel", "first")
    run_json(capsys, "resume")
    places = {r["run"]: r["queue_position"] for r in run_json(capsys, "list")}
    assert places == {"first": None, "second": 1}


def test_an_empty_list_says_so(capsys, filebox):
    assert run_json(capsys, "list") == []
    assert main(["jobs", "list"]) == 0
    assert capsys.readouterr().out == "No jobs.\n"


def test_listing_imports_neither_torch_nor_an_sdk(left_behind, filebox):
    left_behind("done", "settled")
    code = (
        "import sys\n"
        "from qsgd_core.cli import main\n"
        "assert main(['jobs', 'list', '--json']) == 0\n"
        "assert main(['budget', 'show', '--json']) == 0\n"
        "heavy = {'torch', 'qiskit', 'pennylane', 'braket', 'qsgd_filebox'} & set(sys.modules)\n"
        "print(heavy, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=filebox, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "set()"


# --- wait and resume -----------------------------------------------------------------------------


def test_wait_ends_when_every_job_is_over_and_submits_what_was_asked_for(
    capsys, left_behind, tmp_path
):
    left_behind("out", "submitted", run_s=0.5)
    left_behind("new", "intent")
    records = run_json(capsys, "wait")
    assert [(r["run"], r["state"]) for r in records] == [("out", "settled"), ("new", "settled")]
    assert len(vendor_jobs(tmp_path)) == 2
    assert run_json(capsys, "wait") == []


def test_wait_for_one_run_leaves_the_others_alone(capsys, left_behind):
    left_behind("one", "submitted")
    left_behind("two", "submitted")
    assert [r["state"] for r in run_json(capsys, "wait", "one")] == ["settled"]
    assert [r["run"] for r in run_json(capsys, "list", "--open")] == ["two"]


def test_wait_gives_up_after_its_timeout_with_exit_code_1(capsys, left_behind):
    left_behind("out", "submitted", run_s=1000)
    assert main(["jobs", "wait", "--timeout", "0.2", "--json"]) == 1
    said = capsys.readouterr()
    assert [r["state"] for r in json.loads(said.out)] == ["submitted"]
    assert "1 of 1 jobs are still open after 0.2 s" in said.err


def test_wait_tells_what_the_courier_stopped_with(capsys, left_behind):
    left_behind("out", "submitted", bad_key=True)
    assert main(["jobs", "wait"]) == AuthError.exit_code
    assert "does not know this key" in capsys.readouterr().err


def test_resume_collects_and_recovers_and_submits_nothing(capsys, left_behind, tmp_path):
    left_behind("done", "submitted")
    left_behind("doubt", "submitting", faults={"lost": [1]})
    left_behind("out", "submitted", run_s=1000)
    left_behind("new", "intent")
    records = run_json(capsys, "resume")
    assert [(r["run"], r["state"]) for r in records] == [
        ("done", "settled"),
        ("doubt", "settled"),
        ("out", "submitted"),
        ("new", "intent"),
    ]
    assert len(vendor_jobs(tmp_path)) == 3


def test_what_was_sent_to_a_device_that_is_gone_by_now_is_collected(
    capsys, left_behind, ledger, tmp_path
):
    tag = left_behind("old", "submitted")
    ledger.looked("old", pinned="filebox:x", capabilities="{}")
    gone = {"folder": str(tmp_path / "vendor"), "coins": True, "offline": True}
    ledger.open_run("old", backend="filebox:x", options=gone)
    assert [r["state"] for r in run_json(capsys, "resume")] == ["settled"]
    assert ledger.result(tag).parts[0].values.shape == (2, 8, 2)
    assert ledger.run("old").error is None


@pytest.mark.parametrize("command", [("resume",), ("wait",), ("cancel", "lost")])
def test_a_job_that_the_vendor_no_longer_has_is_over(
    capsys, left_behind, ledger, tmp_path, command
):
    tag = left_behind("lost", "submitted")
    left_behind("whole", "submitted")
    (tmp_path / "vendor/jobs" / f"{ledger.job(tag).handle.job_id}.json").unlink()
    states = {r["run"]: r["state"] for r in run_json(capsys, *command)}
    assert states["lost"] == "failed"
    assert states.get("whole", "settled") == "settled"
    assert "no longer has job" in str(ledger.job(tag).error)


def test_wait_goes_on_with_the_other_runs_when_one_cannot_go_on(capsys, left_behind, ledger):
    left_behind("locked", "submitted", bad_key=True)
    tag = left_behind("whole", "submitted", run_s=1)
    assert main(["jobs", "wait"]) == AuthError.exit_code
    assert ledger.job(tag).state == "settled"


def test_resume_leaves_a_run_with_a_courier_of_its_own_alone(capsys, left_behind, ledger):
    tag = left_behind("live", "submitted")
    script = (
        "import sys\nfrom qsgd_core.schedule.ledger.ledger import Ledger\n"
        "with Ledger(sys.argv[1]).serve('live'):\n    print('up', flush=True)\n    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, ledger.url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ),
    ) as courier:  # fmt: skip
        assert courier.stdout.readline() == "up\n"
        assert [r["state"] for r in run_json(capsys, "resume")] == ["submitted"]
        courier.communicate("\n", timeout=PATIENCE_S)
    assert [r["tag"] for r in run_json(capsys, "resume")] == [tag]
    assert ledger.job(tag).state == "settled"


# --- cancel and fetch ----------------------------------------------------------------------------


def test_cancel_takes_a_tag_or_a_run_and_costs_nothing_before_the_end(
    capsys, left_behind, ledger, tmp_path
):
    left_behind("one", "submitted", run_s=1000)
    tag = left_behind("two", "reserved")
    assert [r["state"] for r in run_json(capsys, "cancel", "one")] == ["failed"]
    assert [r["state"] for r in run_json(capsys, "cancel", tag)] == ["failed"]
    assert run_json(capsys, "cancel", tag) == []
    assert [(cap.reserved, cap.spent) for cap in ledger.caps("b")] == [(0, 0)]
    assert len(list((tmp_path / "vendor/cancelled").iterdir())) == 1


def test_fetch_writes_the_result_and_says_the_means(capsys, left_behind, tmp_path):
    tag = left_behind("done", "submitted")
    path = tmp_path / "out.npz"
    said = run_json(capsys, "fetch", tag, "--out", str(path))
    assert (said["tag"], said["path"]) == (tag, str(path))
    with np.load(path) as stored:
        assert stored["bits_0"].shape == (2, 8, 2)
        assert np.array_equal(stored["angles_0"], WORK.batches[0].angles)
        assert said["batches"] == [
            {"rows": 2, "observables": [[0], [1]], "mean_z": stored["z_0"].mean(axis=0).tolist()}
        ]
    assert main(["jobs", "fetch", tag, "--out", str(path)]) == 0
    assert f"Written to {path}." in capsys.readouterr().out


def test_fetch_of_a_job_that_has_no_result_says_why(capsys, left_behind):
    out = left_behind("out", "submitted", run_s=1000)
    bad = left_behind("bad", "failed", faults={"fails": [1]})
    assert main(["jobs", "fetch", out]) == 1
    assert "qsgd jobs wait out" in capsys.readouterr().err
    assert main(["jobs", "fetch", bad]) == 1
    assert "was failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["wait", "nope"], ["resume", "nope"], ["cancel", "nope"], ["fetch", "nope"]],
)
def test_what_is_not_there_is_one_paragraph_and_exit_code_2(capsys, filebox, arguments):
    assert main(["jobs", *arguments]) == 2
    said = capsys.readouterr()
    assert "'nope'" in said.err
    assert "See qsgd jobs list." in said.err
    assert said.err.count("\n") == 1


def test_a_result_that_cannot_be_written_is_exit_code_2(capsys, left_behind, tmp_path):
    tag = left_behind("done", "settled")
    assert main(["jobs", "fetch", tag, "--out", str(tmp_path / "no" / "out.npz")]) == 2
    assert "--out" in capsys.readouterr().err
