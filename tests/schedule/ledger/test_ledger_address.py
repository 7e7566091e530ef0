"""Where the ledger is: relative addresses, odd names, and a file there that is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qsgd_core as qsgd
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.cli import main
from qsgd_core.errors import QSGDError
from qsgd_core.schedule.ledger.ledger import Ledger


def buy(run: str, vendor: Path) -> qsgd.QSGD:
    """One measurement that is paid from the budget lab."""
    p = torch.nn.Parameter(torch.ones(4))
    options = {"folder": str(vendor), "coins": True}
    term: dict[str, Any] = {"backend": "filebox:x", "backend_options": options, "budget": "lab"}
    optimizer = qsgd.QSGD([p], lr=0.1, shots=8, policy="sync", every=1, run=run, **term)
    p.grad = torch.ones(4)
    optimizer.step()
    return optimizer


def ledgers(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.sqlite") if path.parent.name != "records")


# --- relative addresses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "file"),
    [
        ("QSGD_HOME", "state", "state/ledger.sqlite"),
        ("QSGD_HOME", "../first/./state", "state/ledger.sqlite"),
        ("QSGD_LEDGER", "sqlite:///mine.sqlite", "mine.sqlite"),
        ("QSGD_LEDGER", "sqlite+pysqlite:///sub/mine.sqlite?timeout=20", "sub/mine.sqlite"),
        ("QSGD_LEDGER", "sqlite:///file:mine.sqlite?uri=true", "mine.sqlite"),
    ],
)
def test_a_relative_ledger_is_the_same_one_when_the_program_goes_to_another_folder(
    filebox, tmp_path, monkeypatch, name, value, file
):
    first, second, vendor = tmp_path / "first", tmp_path / "second", tmp_path / "vendor"
    first.mkdir()
    second.mkdir()
    monkeypatch.setenv(name, value)
    monkeypatch.chdir(first)
    assert main(["budget", "create", "lab", "$1"]) == 0
    running = buy("one", vendor)
    monkeypatch.chdir(second)
    buy("two", vendor).close(finished=True)
    running.param_groups[0]["params"][0].grad = torch.ones(4)
    running.step()
    running.close(finished=True)
    assert ledgers(first) == [first / file]
    assert list(second.iterdir()) == []
    ledger = Ledger(f"sqlite:///{first / file}")
    paid = [job.spent.micro_usd for job in ledger.jobs()]
    assert len(paid) == 3
    assert ledger.caps("lab")[0].spent == sum(paid) > 0


# --- odd names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["wh?t", "50%25", "a%3Fb", "a#b", "ü \N{SNOWMAN}", "x&uri=true"])
def test_a_home_of_any_name_keeps_the_ledger_and_the_budget_is_one(
    filebox, tmp_path, monkeypatch, capsys, folder
):
    home = tmp_path / folder
    monkeypatch.setenv("QSGD_HOME", str(home))
    assert main(["budget", "create", "lab", "$1"]) == 0
    buy("one", tmp_path / "vendor").close(finished=True)
    assert ledgers(tmp_path) == [home / "ledger.sqlite"]
    capsys.readouterr()
    assert main(["budget", "show", "--json"]) == 0
    assert '"lab"' in capsys.readouterr().out
    assert main(["jobs", "list", "--json"]) == 0
    (job,) = json.loads(capsys.readouterr().out)
    assert job["state"] == "settled"


# --- a damaged file ------------------------------------------------------------------------------


def tear_a_page(path: Path) -> None:
    """All but the file's first page."""
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)


def spoil_the_head(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[:100] = b"\xa5" * 100
    path.write_bytes(data)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [tear_a_page, spoil_the_head, cut_off])
def test_a_damaged_ledger_is_called_damaged_and_nothing_in_it_safe(
    tmp_path, monkeypatch, capsys, damage: Callable[[Path], None]
):
    path = tmp_path / "ledger.sqlite"
    monkeypatch.setenv("QSGD_LEDGER", f"sqlite:///{path}")
    ledger = Ledger(f"sqlite:///{path}")
    ledger.create_budget("lab", {"shots": 100})
    work = Workload((CircuitBatch(ansatz(2, 1), np.zeros((1, 2))),))
    ledger.add_intent(
        work, tag="t", run="r", budget="lab", backend="x", options={}, step=0, part=0, attempt=0,
        shots=8, seed=1,
    )  # fmt: skip
    damage(path)
    spoilt = path.read_bytes()
    for act in (ledger.jobs, lambda: ledger.create_budget("more", {"shots": 1})):
        with pytest.raises(QSGDError, match="is damaged") as caught:
            act()
        assert "safe" not in str(caught.value)
    assert main(["jobs", "list"]) in (1, 2)
    said = capsys.readouterr().err
    assert "is damaged" in said or "not a database" in said
    assert "safe" not in said
    assert said.count("\n") == 1
    assert path.read_bytes() == spoilt
