"""``qsgd estimate`` and ``qsgd_estimate()``: what a run would cost; nothing is sent or written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import ask_in_this_process

from qsgd_core import QSGD, attach
from qsgd_core.cli import main
from qsgd_core.errors import CapabilityError, ConfigError
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.money import Amount

SCRIPT = Path(__file__).parents[1] / "scripts" / "noisy_task.py"
TASK = f"{SCRIPT}:make_task"  # tensors of 32, 8, 16 and 2: blocks of 4, 4, 4 and 2 qubits
PRICES = """
[[price]]
devices = ["filebox:*"]
per_job_usd = 0.5
per_shot_usd = 0.001
per_second_usd = 0.0
rows_per_job = 3
source = "a letter"
effective_date = "2026-11"
"""


@pytest.fixture
def vendor(filebox, tmp_path, monkeypatch) -> Path:
    """The paid provider's folder; its price: $0.001 and 2 ms a job, $1e-6 and 10 us a shot."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "vendor"


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Saves starting a child for each question; the last test has a real one."""
    ask_in_this_process(monkeypatch)


@pytest.fixture
def estimate(vendor, capsys):
    """Runs the command with --json; gives the record."""

    def run(*arguments: str, **options: Any) -> dict[str, Any]:
        assert main(["estimate", TASK, *filebox_line(vendor, **options), *arguments, "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out))

    return run


def filebox_line(vendor: Path, **options: Any) -> list[str]:
    given = {"folder": str(vendor), **options}
    line = [f"--option={name}={json.dumps(value)}" for name, value in given.items()]
    return ["--backend", "filebox:x", *line]


def refused(capsys, arguments: list[str], *needles: str, code: int = 2) -> None:
    assert main(["estimate", *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    for needle in needles:
        assert needle in said.err


# --- the record ----------------------------------------------------------------------------------


def test_a_run_is_counted_and_priced_and_nothing_is_sent_or_written(estimate, vendor, tmp_path):
    found = estimate("--steps", "100", "--shots", "50", "--budget", "$0.015")
    one = 0.001 + 4 * 50e-6
    assert (found["blocks"], found["circuits_per_refresh"], found["jobs_per_refresh"]) == (4, 4, 1)
    assert found["refresh_usd"] == pytest.approx(one)
    assert (found["refreshes"], found["every"]) == (12, 9)
    assert (found["jobs"], found["circuits"], found["shots"]) == (12, 48, 48 * 50)
    assert found["cost_usd"] == pytest.approx(12 * one)
    assert found["qpu_s"] == pytest.approx(12 * (0.002 + 200 * 10e-6))
    assert found["share_measured"] == 0.12
    assert (found["unit"], found["cap"], found["reserved"]) == ("micro_usd", 15_000, 0)
    assert (found["spent"], found["overrun"], found["budget"]) == (0, 0, "$0.015")
    assert (found["wall_s"], found["queue"]["jobs"]) == (None, 0)
    assert 0.001 < found["twin_error"] < 0.1
    assert 0.05 < found["shot_error"] < 50**-0.5  # √((1 - ⟨Z⟩²) / 50)
    assert found["price"] == {"source": "filebox", "effective_date": None}
    assert found["notes"] == []
    assert not list(vendor.glob("jobs/*"))
    assert not (tmp_path / "home").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("line", "refreshes"),
    [(["--budget", "$0.015"], 12), (["--policy", "twin"], 0), (["--quantum-weight", "0"], 0)],
)
def test_a_dry_run_counts_refreshes_as_the_estimate_does(vendor, capsys, tmp_path, line, refreshes):
    line = [*filebox_line(vendor), *line, "--shots", "50", "--max-steps", "100", "--epochs", "50"]
    assert main(["train", TASK, *line, "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["steps"], plan["refreshes"]) == (100, refreshes)
    assert not list(vendor.glob("jobs/*"))
    assert not (tmp_path / "home").exists()


def test_estimate_and_train_refuse_a_paid_backend_without_a_circuit_in_the_same_words(
    vendor, capsys, monkeypatch
):
    monkeypatch.setenv("QSGD_LOAD_PLUGINS", "qsgd-filebox,qsgd-controls")
    said = []
    for command in (["estimate", TASK, "--steps", "100"], ["train", TASK, "--max-steps", "100"]):
        assert main([*command, *filebox_line(vendor), "--perturbation", "uniform"]) != 0
        said.append(capsys.readouterr().err)
    assert "would be paid for nothing. Leave the backend out" in " ".join(said[0].split())
    assert said[0] == said[1]
    assert not list(vendor.glob("jobs/*"))


@pytest.mark.parametrize("url", ["sqlite", "sqlite+pysqlite", "relative", "file"])
def test_an_estimate_makes_no_ledger_wherever_one_would_be(estimate, tmp_path, monkeypatch, url):
    path = tmp_path / "there" / "ledger.sqlite"
    urls = {"relative": "sqlite+pysqlite:///there/l.sqlite", "file": f"sqlite:///file:{path}?uri=1"}
    monkeypatch.setenv("QSGD_LEDGER", urls.get(url, f"{url}:///{path}"))
    assert estimate("--steps", "100", "--shots", "50", "--budget", "$0.015")["spent"] == 0
    assert not path.parent.exists()


def test_without_a_budget_it_is_the_default_one(estimate):
    found = estimate("--steps", "100", "--shots", "50")
    assert (found["budget"], found["unit"], found["cap"]) == ("default-usd", "micro_usd", 10**7)
    assert (found["every"], found["refreshes"]) == (1, 100)
    free = estimate("--steps", "100", "--shots", "50", job_micro_usd=0, shot_micro_usd=0)
    assert (free["budget"], free["unit"], free["cap"]) == ("default-free-plan", "qpu_us", 6 * 10**7)


def test_what_a_budget_has_spent_and_holds_is_taken_off(estimate, filebox, tmp_path):
    (tmp_path / "home").mkdir()
    ledger = Ledger(f"sqlite:///{tmp_path / 'home' / 'ledger.sqlite'}")
    ledger.create_budget("lab", {"micro_usd": 15_000})
    spend(ledger, "a", budget="lab", hold=7_000, paid=2_000)
    spend(ledger, "b", budget="lab", hold=2_000, paid=None)
    found = estimate("--steps", "100", "--shots", "50", "--budget", "lab")
    assert (found["reserved"], found["spent"], found["cap"]) == (2_000, 2_000, 15_000)
    assert found["refreshes"] == 9
    assert ledger.caps("lab")[0].reserved == 2_000


def test_queue_times_are_those_of_this_ledger(estimate, filebox, tmp_path):
    (tmp_path / "home").mkdir()
    now = [0.0]
    ledger = Ledger(f"sqlite:///{tmp_path / 'home' / 'ledger.sqlite'}", clock=lambda: now[0])
    ledger.create_budget("lab", {"micro_usd": 15_000})
    for tag, wait in (("a", 60.0), ("b", 100.0)):
        spend(ledger, tag, budget="lab", hold=1, paid=1, wait=lambda s=wait: advance(now, s))
    found = estimate("--steps", "100", "--shots", "50", "--budget", "$0.015")
    assert found["queue"] == {"jobs": 2, "median_s": 80.0, "p90_s": pytest.approx(96.0)}
    assert found["wall_s"] == 12 * 80.0


def test_an_interval_of_ones_own_is_kept(estimate):
    found = estimate("--steps", "100", "--shots", "50", "--every", "25", "--budget", "$1")
    assert (found["every"], found["refreshes"], found["jobs"]) == (25, 4, 4)


def test_splits_by_the_backends_limits_are_counted(estimate):
    found = estimate("--steps", "10", "--shots", "50", "--budget", "$1", max_rows=3)
    assert (found["jobs_per_refresh"], found["jobs"]) == (2, 20)
    assert found["refresh_usd"] == pytest.approx(2 * 0.001 + 4 * 50e-6)


def test_blocks_side_by_side_cost_fewer_shots(estimate):
    line = ["--steps", "10", "--shots", "50", "--budget", "$1", "--schedule", "tiles=auto"]
    found = estimate(*line)
    assert (found["blocks"], found["circuits_per_refresh"]) == (4, 2)  # two fit on 10 qubits
    assert found["refresh_usd"] == pytest.approx(0.001 + 2 * 50e-6)


def test_blocks_measured_in_turns_cost_a_part(estimate):
    line = ["--steps", "10", "--shots", "50", "--budget", "$1", "--schedule"]
    found = estimate(*line, "blocks_per_refresh=3")
    assert (found["blocks"], found["shots"]) == (2, 10 * 2 * 50)  # four in two turns


def test_a_policy_that_measures_nothing_costs_nothing(estimate):
    found = estimate("--steps", "10", "--policy", "twin")
    assert (found["paid"], found["jobs"], found["cost_usd"]) == (False, 0, 0.0)


def test_a_simulator_is_free(capsys, vendor):
    assert main(["estimate", TASK, "--steps", "10", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["paid"], found["cost_usd"], found["jobs"], found["shots"]) == (False, 0, 0, 0)
    assert (found["refreshes"], found["circuits"]) == (10, 40)
    line = ["--backend", "sampled", "--steps", "10", "--every", "5", "--shots", "7", "--json"]
    assert main(["estimate", TASK, *line]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["refreshes"], found["shots"], found["cost_usd"]) == (2, 2 * 4 * 7, 0)


# --- for people ----------------------------------------------------------------------------------


def test_people_read_ten_lines(capsys, vendor, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    line = filebox_line(vendor)
    assert main(["estimate", TASK, *line, "--steps", "100", "--shots", "50", "--budget", "$1"]) == 0
    out = capsys.readouterr().out
    for said in (
        "100 steps",
        "4 blocks in 4 circuits of 50 shots, 1 job: $0.00",
        "$1",
        "every step",
        "100 of 100 (100 %)",
        "100 jobs, 400 circuits, 20,000 shots: $0.12",
        "unknown: the ledger has no finished job of this backend",
        "expected to be off by",
        "Nothing was sent and nothing was written.",
    ):
        assert said in out


def test_people_are_told_that_a_simulator_is_free(capsys, vendor):
    assert main(["estimate", TASK, "--steps", "10"]) == 0
    assert "none: a simulator" in capsys.readouterr().out


# --- when the service does not answer ------------------------------------------------------------


def test_without_credentials_the_price_table_answers_and_says_so(
    estimate, vendor, monkeypatch, tmp_path
):
    (tmp_path / "own.toml").write_text(PRICES)
    monkeypatch.setenv("QSGD_PRICES", str(tmp_path / "own.toml"))
    found = estimate("--steps", "10", "--shots", "100", "--budget", "$100", bad_key=True)
    assert found["price"] == {"source": "a letter", "effective_date": "2026-11"}
    assert found["jobs_per_refresh"] == 2
    assert found["refresh_usd"] == pytest.approx(2 * 0.5 + 4 * 100 * 0.001)
    assert "from the price table alone. filebox does not know this key" in found["notes"][0]


def test_without_credentials_and_without_a_row_it_is_an_error(capsys, vendor):
    refused(
        capsys,
        [TASK, *filebox_line(vendor, bad_key=True), "--steps", "10"],
        "filebox does not know this key. Set another.",
    )


def test_a_device_that_is_gone_is_an_error_whatever_the_table_says(
    capsys, vendor, monkeypatch, tmp_path
):
    (tmp_path / "own.toml").write_text(PRICES)
    monkeypatch.setenv("QSGD_PRICES", str(tmp_path / "own.toml"))
    refused(
        capsys,
        [TASK, *filebox_line(vendor, offline=True), "--steps", "10"],
        "filebox:x is retired. There are: filebox:y.",
    )


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line, needles",
    [
        ([], ["how many optimizer steps", "2 epochs are --steps 10"]),
        (["--steps", "0"], ["steps must be an integer of at least 1, not 0"]),
        (["--steps", "-5"], ["steps must be an integer of at least 1, not -5"]),
        (["--steps", "9", "--budget", "0"], ["'0' is not understood", "$25"]),
        (["--steps", "9", "--budget", "$0"], ["must be more than 0", "'$0'"]),
        (["--steps", "9", "--budget", "$-3"], ["must be more than 0", "'$-3'"]),
        (["--steps", "9", "--budget", "5EUR"], ["'5EUR' is not understood", "600s", "1e6shots"]),
        (["--steps", "9", "--shots", "0"], ["shots must be an integer of at least 1, not 0"]),
        (["--steps", "9", "--every", "0"], ["every must be an integer of at least 1, not 0"]),
        (["--steps", "9", "--n-qubits", "11"], ["up to 10 qubits; 11 were asked for"]),
        (["--steps", "9", "--perturbation", "sin"], ["Did you mean 'sine'"]),
        (["--steps", "9", "--scope", "row"], ["scope must be", "'row'"]),
        (["--steps", "9", "--option", "fold=1"], ["fold"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_a_mistake_is_exit_code_2_with_the_fix(capsys, vendor, line, needles):
    refused(capsys, [TASK, *filebox_line(vendor), *line], *needles)
    assert not vendor.exists() or not list(vendor.glob("jobs/*"))


@pytest.mark.parametrize("budget", ["0", "$0", "$-3", "5EUR"])
def test_training_refuses_the_same_budgets(capsys, vendor, budget):
    line = [*filebox_line(vendor), "--every", "2", "--shots", "9", "--budget", budget]
    assert main(["train", TASK, *line]) == 2
    assert "600s" in capsys.readouterr().err
    assert not list(vendor.glob("jobs/*"))


def test_no_task_and_an_unknown_one_say_what_to_type(capsys, vendor):
    refused(capsys, [], "qsgd estimate digits --backend ibm_fez --steps 2000")
    refused(capsys, ["digitz", "--steps", "9"], "Did you mean 'digits'")


def test_an_unknown_backend_is_refused_before_the_task_is_built(capsys, vendor):
    refused(
        capsys, [f"{SCRIPT}:make_trouble", "--backend", "fileboxx:x", "--steps", "9"],
        "Unknown backend 'fileboxx:x'",
    )  # fmt: skip


def test_a_budget_below_one_job_says_what_a_job_costs(capsys, vendor):
    line = [*filebox_line(vendor), "--steps", "9", "--shots", "50", "--budget", "$0.0005"]
    refused(
        capsys, [TASK, *line],
        "One job on 'filebox:x' can cost up to $0.0012", "$0.0005 left of $0.0005", code=1,
    )  # fmt: skip


def test_an_unknown_price_is_refused_under_a_budget_in_dollars(capsys, vendor, estimate):
    line = [*filebox_line(vendor, priced=False), "--steps", "9", "--shots", "50"]
    refused(capsys, [TASK, *line, "--budget", "$5"], "dollars", "unknown", "QSGD_PRICES", code=1)
    found = estimate("--steps", "9", "--shots", "50", "--budget", "1e6shots", priced=False)
    assert (found["unit"], found["cost_usd"]) == ("shots", None)


def test_a_price_table_that_cannot_be_read_is_named(capsys, vendor, monkeypatch, tmp_path):
    (tmp_path / "own.toml").write_text("[[price]\n")
    monkeypatch.setenv("QSGD_PRICES", str(tmp_path / "own.toml"))
    refused(capsys, [TASK, *filebox_line(vendor), "--steps", "9"], "own.toml cannot be read")


# --- in a script ---------------------------------------------------------------------------------


def optimizer(vendor: Path, size: int = 8, **more: Any) -> QSGD:
    weight = torch.nn.Parameter(torch.linspace(-1, 1, size, dtype=torch.float64))
    return QSGD([weight], **more)


def test_an_optimizer_tells_what_it_would_cost_elsewhere(vendor):
    asked = {"backend": "filebox:x", "backend_options": {"folder": str(vendor)}, "shots": 50}
    opt = optimizer(vendor)
    found = opt.qsgd_estimate(total_steps=100, budget="$1", **asked)
    assert (found.blocks, found.jobs, found.cost_usd) == (1, 100, pytest.approx(100 * 0.00105))
    assert opt.qsgd_estimate(total_steps=100).cost_usd == 0.0
    base = torch.optim.SGD([torch.nn.Parameter(torch.zeros(8))], lr=0.1)
    attached = attach(base).qsgd_estimate(100, budget="$1", **asked)
    assert attached.cost_usd == found.cost_usd


def test_a_schedule_of_the_interval_is_followed(vendor):
    opt = optimizer(vendor, every=lambda step: 10 if step < 50 else 25)
    found = opt.qsgd_estimate(total_steps=100)
    assert (found.refreshes, found.every) == (7, None)  # 0 10 20 30 40 50 75: the 65th is too soon


def test_more_blocks_than_anybody_would_pay_for_are_refused_with_their_price(vendor):
    opt = optimizer(vendor, size=48_000, scope="all")
    asked = {"backend": "filebox:x", "backend_options": {"folder": str(vendor)}, "shots": 50}
    usd = 1.2 * (0.001 + 10_000 * 50e-6)  # asked for 10,000 blocks, and scaled
    with pytest.raises(CapabilityError, match=rf"12,000 blocks.*about \${usd:.2f}.*scope='tensor'"):
        opt.qsgd_estimate(total_steps=10, **asked)
    with pytest.raises(ConfigError, match="total_steps must be"):
        opt.qsgd_estimate(total_steps=0)
    with pytest.raises(ConfigError, match="total_steps=2000"):
        opt.qsgd_estimate()


def test_the_asking_process_never_imports_the_adapter(vendor, filebox, tmp_path):
    code = (
        "import sys\n"
        "from qsgd_core.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "assert not {'qsgd_filebox.backend', 'qsgd_filebox.vendor'} & set(sys.modules)\n"
    )
    line = ["estimate", TASK, *filebox_line(vendor), "--steps", "9", "--shots", "9", "--json"]
    subprocess.run(
        [sys.executable, "-c", code, *line], env=filebox, check=True, stdout=subprocess.DEVNULL
    )


# --- helpers -------------------------------------------------------------------------------------


def advance(now: list[float], seconds: float) -> None:
    now[0] += seconds


def spend(ledger: Ledger, tag: str, *, budget: str, hold: int, paid: int | None, wait=None) -> None:
    """A job on filebox:x that holds ``hold``, and is settled at ``paid`` unless that is None."""
    import numpy as np

    from qsgd_core.circuits import CircuitBatch, Workload, ansatz
    from qsgd_core.jobs import Bits, JobHandle, Result

    work = Workload((CircuitBatch(ansatz(1, 1), np.zeros((1, 1))),))
    ledger.add_intent(
        work, tag=tag, run="r", budget=budget, backend="filebox:x", options={}, step=0, part=0,
        attempt=0, shots=1, seed=0,
    )  # fmt: skip
    ledger.reserve(tag, Amount(shots=1, micro_usd=hold, qpu_us=1))
    if paid is None:
        return
    assert ledger.begin_submit(tag)
    ledger.submitted(tag, JobHandle("filebox:x", tag, tag, 0.0))
    if wait is not None:
        wait()
    ledger.store(tag, Result((Bits(np.zeros((1, 1, 1), np.uint8)),)))
    assert ledger.settle(tag, Amount(shots=1, micro_usd=paid, qpu_us=1))
