"""``qsgd jobs audit``: what the services have of ours, beside the ledger."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.cli import main
from qsgd_core.schedule.audit.findings import FindingKind
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.states import OPEN
from qsgd_core.settings import load_settings

WORK = Workload((CircuitBatch(ansatz(2, 1), np.array([[0.2, 0.4], [0.1, 0.3]])),))
PRICE = 1_000 + 2 * 8


@pytest.fixture
def ledger(filebox) -> Ledger:
    ledger = Ledger(load_settings().ledger_url())
    ledger.create_budget("b", {"micro_usd": 100_000})
    return ledger


@pytest.fixture
def ran(ledger, tmp_path):
    """A run that is over, with one job."""
    from qsgd_filebox.backend import Filebox
    from qsgd_filebox.options import FileboxOptions

    def run(name: str, **options) -> None:
        options = {"folder": str(tmp_path / "vendor"), "coins": True} | options
        ledger.open_run(name, backend="filebox:x", options=options)
        ledger.add_intent(
            WORK, tag=f"tag-of-{name}", run=name, budget="b", backend="filebox:x",
            options=options, step=0, part=0, attempt=0, shots=8, seed=5,
        )  # fmt: skip
        courier = Courier(ledger, Filebox("filebox:x", FileboxOptions(**options)), run=name)
        while ledger.jobs(states=OPEN):
            courier.round()

    return run


def audit(capsys, *arguments: str, code: int = 0):
    assert main(["jobs", "audit", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def spent(ledger: Ledger) -> tuple[int, int, int]:
    (cap,) = ledger.caps("b")
    return cap.reserved, cap.spent, cap.overrun


def provisional(capsys) -> int:
    assert main(["budget", "show", "b", "--json"]) == 0
    (cap,) = json.loads(capsys.readouterr().out)
    return cap["provisional"]


def test_a_duplicate_is_named_and_booked_after_a_yes_only(capsys, ledger, ran, tmp_path):
    ran("r", faults={"duplicated": [0]})
    said = audit(capsys, code=1)
    (found,) = said["findings"]
    assert (found["kind"], found["run"], found["tag"]) == ("duplicate", "r", "tag-of-r")
    assert (found["billed"]["micro_usd"], found["to_book"]) == (PRICE, True)
    assert (said["jobs"], said["complete"], said["booked"]) == (2, True, False)
    assert spent(ledger) == (0, PRICE, 0)

    assert audit(capsys, "--yes")["booked"]
    assert spent(ledger) == (0, 2 * PRICE, 0)
    sold = [json.loads(path.read_text()) for path in (tmp_path / "vendor/jobs").glob("*.json")]
    assert sum(job["micro_usd"] for job in sold) == 2 * PRICE
    assert audit(capsys)["findings"] == []


def test_people_are_told_in_a_line_each_and_what_to_do(capsys, ledger, ran):
    ran("r", faults={"duplicated": [0]})
    assert main(["jobs", "audit"]) == 1
    said = capsys.readouterr().out
    assert "filebox:x: 2 jobs." in said
    assert "duplicate: " in said
    assert "is a second job under one tag" in said
    assert "qsgd jobs audit --yes" in said
    assert main(["jobs", "audit", "--yes"]) == 0
    assert "Booked: 1." in capsys.readouterr().out
    assert main(["jobs", "audit"]) == 0
    assert "The ledger says what the services say." in capsys.readouterr().out


def test_only_the_named_backend_and_the_time_asked_for_are_looked_at(capsys, ledger, ran):
    ran("r", faults={"duplicated": [0]})
    assert audit(capsys, "--since", "2100-01-01")["jobs"] == 0
    assert audit(capsys, "--since", "2020-01-01T00:00:00", code=1)["jobs"] == 2
    assert audit(capsys, "--backend", "filebox:x", code=1)["jobs"] == 2


def test_a_service_that_refuses_is_an_error_and_books_nothing(capsys, ledger, ran):
    ran("r")
    ledger.open_run("s", backend="filebox:x", options={})
    assert main(["jobs", "audit", "--backend", "digits"]) == 2
    assert spent(ledger) == (0, PRICE, 0)


def test_a_ledger_that_has_sent_nothing_has_nothing_to_ask(capsys, ledger):
    assert main(["jobs", "audit"]) == 0
    assert "No job of this ledger has been sent anywhere." in capsys.readouterr().out


def test_a_cost_stated_late_is_shown_as_provisional_and_corrected_by_resume(
    capsys, ledger, ran, tmp_path
):
    ran("r", usage_s=0.5)
    assert main(["jobs", "list"]) == 0
    said = capsys.readouterr()
    assert "0.001016?" in said.out
    assert "the vendor has not said yet" in said.err
    assert main(["budget", "show"]) == 0
    assert "provisional: of what is spent" in capsys.readouterr().err
    assert provisional(capsys) == PRICE
    path = next(Path(tmp_path / "vendor/jobs").glob("*.json"))
    job = json.loads(path.read_text())
    path.write_text(json.dumps(job | {"micro_usd": 7, "accepted_at": 0.0}))
    assert main(["jobs", "resume", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["cost_usd"], record["unstated"]) == (7e-6, [])
    assert spent(ledger) == (0, 7, 0)
    assert provisional(capsys) == 0


def test_every_command_of_the_page_runs(capsys, ledger, ran):
    ran("r", faults={"duplicated": [0]})
    page = (Path(__file__).parents[2] / "docs/auditing.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    codes = [main(shlex.split(line)[1:]) for line in lines]
    before, after = codes[: codes.index(1) + 2], codes[codes.index(1) + 2 :]
    assert before == [0, 1, 1]  # something is left to be booked, until the yes
    assert after == [0, 0]
    kinds = set(re.findall(r"^\| `([a-z ]+)` \|", page, flags=re.MULTILINE))
    assert kinds == {str(kind) for kind in FindingKind}
