"""``qsgd conform``: what it prints, what it refuses, and its exit codes."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from qsgd_core.cli import main
from qsgd_core.plugins.registry import forget_registries
from qsgd_core.template import render

ROOT = Path(__file__).parents[2]

CROOKED = """
from qsgd_core.builtin.simulators import SampledSimulator
from qsgd_core.jobs import Bits, Result

class Crooked(SampledSimulator):
    def run(self, work, *, shots, seed):
        print("chatter of an SDK")
        result = super().run(work, shots=shots, seed=seed)
        return Result(tuple(Bits(part.values[:, :, ::-1]) for part in result.parts))
"""

PAID = """
from dataclasses import replace
from qsgd_core.jobs import Cost, JobState, Quote
from qsgd_kitshop.backend import KitshopBackend

class Paid(KitshopBackend):
    def __init__(self, name, options=None):
        super().__init__(name, options)
        self.capabilities = replace(self.capabilities, paid=True)

    def resolve(self):
        return self.name

    def quote(self, work, *, shots):
        return Quote(Cost(usd=0.25), Cost(usd=0.5), "a price list", "2026-11-01")

    def status(self, handle):
        found = super().status(handle)
        return replace(found, billed=Cost(usd=0.25 if found.state is JobState.DONE else 0.0))

    def fetch(self, handle):
        return replace(super().fetch(handle), billed=Cost(usd=0.25))
"""


def install(site: Path, name: str, kind: str, **modules: str) -> None:
    """The template's package with further modules, importable as if pip had installed it."""
    for path, text in render(name, kind).items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    for module, text in modules.items():
        (site / f"qsgd_{name}" / f"{module}.py").write_text(text)
    info = site / f"qsgd_{name}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: qsgd-{name}\nVersion: 0.1.0\nRequires-Dist: qsgd-core\n"
    )
    (info / "entry_points.txt").write_text(f"[qsgd]\n{name} = qsgd_{name}.plugin\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A simulator that reverses its bits, and a backend that costs money."""
    install(tmp_path, "kitbent", "simulator", simulator=CROOKED)
    install(tmp_path, "kitshop", "backend", paid=PAID)
    for name, old, new in (
        ("kitbent", "simulator:KitbentSimulator", "simulator:Crooked2"),
        ("kitshop", "backend:KitshopBackend", "paid:Paid"),
    ):
        plugin = tmp_path / f"qsgd_{name}" / "plugin.py"
        plugin.write_text(plugin.read_text().replace(old, new))
    bent = tmp_path / "qsgd_kitbent" / "simulator.py"
    bent.write_text(
        bent.read_text() + "\n\ndef Crooked2(name, options):\n    return Crooked(name)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    forget_registries()
    yield tmp_path
    forget_registries()
    for name in [n for n in sys.modules if n.startswith(("qsgd_kitbent", "qsgd_kitshop"))]:
        del sys.modules[name]


def test_the_json_is_one_object_with_every_skip_and_its_reason(capsys):
    assert main(["conform", "exact", "--json"]) == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert record["name"] == "exact"
    assert record["passed"] >= 20
    assert record["failed"] == 0
    assert record["cost_usd"] == 0
    assert {"test": "test_two_calls_differ", "reason": "capabilities.sampled is False"} in (
        record["skipped"]
    )
    assert all(set(skip) == {"test", "reason"} and skip["reason"] for skip in record["skipped"])


def test_the_table_lists_every_test_and_counts(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["conform", "sine"]) == 0
    said = capsys.readouterr().out
    assert "test_advice_is_a_sentence_or_nothing[depth 1]" in said
    assert "0 failed" in said
    assert "cost $0.00" in said


def test_what_fails_is_named_with_what_to_do_and_exit_code_1(site, capsys):
    assert main(["conform", "kitbent", "--json"]) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["failed"] == len(record["failures"]) > 0
    (failure,) = [f for f in record["failures"] if f["test"] == "test_column_j_is_qubit_j"]
    assert "columns are not in the order of the qubits" in failure["reason"]
    assert "reverse the vendor's bit strings" in failure["hint"]
    assert main(["conform", "kitbent"]) == 1
    assert "What to do: reverse the vendor's bit strings" in capsys.readouterr().out


def test_a_paid_backend_is_quoted_and_refused(site, capsys):
    jobs = ["--option", f"folder={site / 'jobs'}", "--option", "queue_s=0.02"]
    assert main(["conform", "kitshop", "--json", *jobs]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "4 jobs, $1.00 expected, $2.00 at worst; source: a price list (2026-11-01)" in said.err
    assert "qsgd conform kitshop --allow-cost 2.00" in said.err
    assert main(["conform", "kitshop", "--allow-cost", "1.99", *jobs]) == 2
    assert main(["conform", "kitshop", "--allow-cost", "nan", *jobs]) == 2
    assert not (site / "jobs").exists()


def test_a_paid_backend_runs_when_the_cost_is_allowed_and_says_what_it_cost(site, capsys):
    jobs = ["--option", f"folder={site / 'jobs'}", "--option", "queue_s=0.02"]
    asked = ["conform", "kitshop", "--allow-cost", "2", "--shots", "150", "--json", *jobs]
    assert main(asked) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["failed"] == 0
    # Three jobs that were done at $0.25; the fourth was cancelled, free of charge.
    assert record["cost_usd"] == pytest.approx(0.75)
    bodies = [json.loads(file.read_text())["body"] for file in (site / "jobs").glob("*.json")]
    assert {body["shots"] for body in bodies} == {150}
    assert len(bodies) == 4


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["conform", "exakt"], ["is called 'exakt'", "Did you mean 'exact'", "sine"]),
        (["conform", "ibm_nowhere_9", "--option", "x"], ["NAME=VALUE"]),
        (["conform", "exact", "--shots", "10"], ["Use 100 or more"]),
        (["conform", "exact", "--allow-cost", "-1"], ["Invalid value"]),
    ],
)
def test_what_cannot_be_done_as_asked_is_refused(capsys, arguments, said):
    assert main(arguments) == 2
    found = capsys.readouterr()
    assert all(part in found.err for part in said)
    assert "Traceback" not in found.err


def test_without_pytest_it_says_what_to_install(capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name == "pytest" else found(name, *a)
    )
    assert main(["conform", "exact"]) == 2
    assert "pip install pytest" in capsys.readouterr().err


def test_a_distribution_is_checked_as_a_whole(capsys):
    assert main(["conform", "qsgd-controls", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] == 8


def test_the_command_line_does_not_import_the_kit_until_it_is_used():
    script = "import sys; from qsgd_core.cli import main; main(['new']); print([*sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "'qsgd_core.cli.commands.new'" in done.stdout
    assert "'pytest'" not in done.stdout
    assert "'torch'" not in done.stdout


def test_one_fault_gives_one_hint():
    """A fixture that fails takes every test along, and what to do is said once."""
    from qsgd_core.testing.runner import run

    text = (
        "import pytest\n"
        "from qsgd_core.testing import SimulatorConformance\n"
        "class TestIt(SimulatorConformance):\n"
        "    @pytest.fixture(scope='class')\n"
        "    @classmethod\n"
        "    def simulator(cls):\n"
        "        raise RuntimeError('no licence')\n"
    )
    failures = run(text).of("failed")
    assert len(failures) > 5
    assert all("no licence" in failure.reason for failure in failures if failure.hint)
    of_fixture = [f for f in failures if "no licence" in f.reason]
    assert len([f for f in of_fixture if f.hint]) == 1
    assert all("For the same reason as" in f.reason for f in of_fixture if not f.hint)
