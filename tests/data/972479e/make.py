"""Writes what is in this folder, with the code of commit 972479e and no other: see README.md.

python make.py   (with that commit's interpreter; into the folder it lies in)
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BACK_S = 94_608_000
"""The clocks of whatever runs here are so far behind: a test's is always later."""
CLOCK = f"import time\nreal = time.time\ntime.time = lambda: real() - {BACK_S}\n"
WORKER = "QSGD_TEST_DATA_SITE"
VENDOR = {"folder": "vendor"}


def main() -> None:
    """Start this script again where the double is installed and the clock is behind."""
    if WORKER in os.environ:
        make()
        return
    with tempfile.TemporaryDirectory() as name:
        site = Path(name)
        import qsgd_core

        root = Path(qsgd_core.__file__).parents[1]
        pip = [sys.executable, "-m", "pip", "--no-input", "install", "--quiet", "--no-deps"]
        how = ["--no-build-isolation", "--no-index", "--target", name]
        subprocess.run([*pip, *how, root / "tests" / "services" / "filebox"], check=True)
        (site / "sitecustomize.py").write_text(CLOCK)
        path = os.pathsep.join([name, str(root), str(root / "tests" / "services")])
        env = {"PYTHONPATH": path, "QSGD_LOAD_PLUGINS": "qsgd-filebox", "OMP_NUM_THREADS": "1"}
        env |= {"PATH": os.environ["PATH"], "HOME": name, "MPLCONFIGDIR": name, WORKER: name}
        env |= {"QSGD_HOME": name + "/home"}
        subprocess.run([sys.executable, __file__, *sys.argv[1:]], env=env, check=True)


def make() -> None:
    """Everything, from nothing."""
    import torch

    if len(sys.argv) > 1:
        killed_trainer(sys.argv[1] == "again")
        return
    torch.set_num_threads(1)
    for name in ("ledgers", "trained", "optimizers"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    expected = {
        "commit": "972479e",
        "torch": torch.__version__,
        "ledgers": ledgers(HERE / "ledgers"),
        "trained": {
            "simulator": simulator(HERE / "trained" / "simulator"),
            "sync": sync(HERE / "trained" / "sync"),
            "finished": finished(HERE / "trained" / "finished"),
            "killed": killed(HERE / "trained" / "killed"),
        },
        "optimizers": optimizers(HERE / "optimizers"),
    }
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


# --- ledgers -------------------------------------------------------------------------------------


def ledgers(folder: Path) -> dict[str, Any]:
    """One with jobs that have ended, one with money in flight; both once more on PostgreSQL."""
    from postgres import Postgres, binaries

    def lite(name: str) -> tuple[str, Path]:
        (folder / name).mkdir(parents=True)
        return f"sqlite:///{folder / name / 'ledger.sqlite'}", folder / name / "vendor"

    expected = {"ended": ended(*lite("ended")), "in_flight": in_flight(*lite("in_flight"))}
    programs = binaries()
    assert programs is not None
    with Postgres(programs) as server:
        url, postgres = server.new_database(), folder / "postgresql"
        ended(url, postgres / "ended" / "vendor")
        expected["postgresql"] = in_flight(url, postgres / "in_flight" / "vendor")
        where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "qsgd", url.rsplit("/", 1)[1]]
        dump = [programs / "pg_dump", "--no-owner", "--no-privileges", "--inserts", *where]
        said = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
        lines = [line for line in said.splitlines() if line and not line.startswith(("--", "\\"))]
        (postgres / "ledger.sql").write_text("\n".join(lines) + "\n")
    return expected


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def shop(url: str, vendor: Path, run: str, clock: Clock, **options: Any) -> tuple[Any, Any, Any]:
    """Ledger, courier, and a function that asks for a job."""
    import numpy as np

    from qsgd_core.circuits import CircuitBatch, Workload, ansatz
    from qsgd_core.schedule.courier import Courier
    from qsgd_core.schedule.ledger import Ledger
    from qsgd_filebox.backend import Filebox
    from qsgd_filebox.options import FileboxOptions

    ledger = Ledger(url, clock=clock)
    said = {"folder": "vendor", "coins": True, "horizon_s": 30.0, **options}
    backend = Filebox(
        "filebox:x", FileboxOptions(**said | {"folder": vendor}), clock=clock, sleep=lambda _: None
    )
    ledger.open_run(run, backend="filebox:x", options=said)
    ledger.looked(run, pinned="filebox:x", capabilities="{}")

    def ask(step: int, budget: str, *, rows: int = 2) -> str:
        clock.now += 1.0
        angles = np.random.default_rng(step).normal(size=(rows, 2))
        job = ledger.add_intent(
            Workload((CircuitBatch(ansatz(2, 1), angles),)), tag=f"{run}-{step}-0-0", run=run,
            budget=budget, backend="filebox:x", options=said, step=step, part=0, attempt=0,
            shots=8, seed=step, asked=b"the question" if step == 0 else None,
        )  # fmt: skip
        return job.tag

    return ledger, Courier(ledger, backend, run=run, clock=clock), ask


def ended(url: str, vendor: Path) -> dict[str, Any]:
    """settled, failed, refunded and denied; one billed above its hold; a stray."""
    clock = Clock()
    faults = {"fails": [1], "dropped": [2], "overbilled": [4], "twice": [5]}
    ledger, courier, ask = shop(url, vendor, "ended", clock, faults=faults)
    ledger.create_budget("lab", {"micro_usd": 20_000, "shots": 1_000})
    ledger.create_budget("small", {"micro_usd": 1_500})
    ledger.create_budget("frozen", {"micro_usd": 1_500})
    for step, budget in enumerate(("lab", "lab", "lab", "small", "frozen", "lab", "small")):
        ask(step, budget)
        for _ in range(4):  # a doubt outlasts the horizon
            clock.now += 20.0
            courier.round()
    ledger.consume("ended-0-0-0", 3)
    ledger.stopped("ended", error())
    return books(ledger, "ended", vendor)


def error() -> Exception:
    from qsgd_core.errors import AuthError

    return AuthError("The vendor does not know this key. Set another.")


def in_flight(url: str, vendor: Path) -> dict[str, Any]:
    """stored, submitted, submitting (with a job at the vendor and without), reserved, intent."""
    clock = Clock()
    faults = {"lost": [2], "dropped": [3]}
    ledger, courier, ask = shop(url, vendor, "in-flight", clock, run_s=3600.0, faults=faults)
    ledger.create_budget("purse", {"micro_usd": 50_000})
    settle, ledger.settle = ledger.settle, lambda *_: False
    ask(0, "purse")
    courier.round()  # reserved
    courier.round()  # submitted
    clock.now += 3_700.0
    courier.round()  # stored
    del ledger.settle
    assert settle == ledger.settle
    for step in (1, 2, 3):  # submitted; lost on the way back; lost on the way there
        ask(step, "purse")
    states = ("intent", "reserved")
    while ledger.jobs(run="in-flight", states=states):
        reserve_and_submit(courier, ledger, states)
    ask(4, "purse")
    reserve_and_submit(courier, ledger, ("intent",))
    ask(5, "purse")
    return books(ledger, "in-flight", vendor)


def reserve_and_submit(courier: Any, ledger: Any, states: tuple[str, ...]) -> None:
    """Bring forward the jobs in these states, and no others."""
    for job in ledger.jobs(run="in-flight", states=states):
        courier._unless_for_a_moment(courier._serve, job)


def books(ledger: Any, run: str, vendor: Path) -> dict[str, Any]:
    """States and amounts by tag, caps by budget and unit, and what is at the vendor."""
    jobs = {
        job.tag: {
            "state": job.state,
            "hold": asdict(job.hold),
            "spent": asdict(job.spent),
            "digest": job.digest,
            "error": None if job.error is None else str(job.error),
        }
        for job in ledger.jobs(run=run)
    }
    caps = {f"{cap.budget} {cap.unit}": asdict(cap) for cap in ledger.caps()}
    return {"jobs": jobs, "caps": caps, "vendor": sold(vendor)}


def sold(vendor: Path) -> dict[str, int]:
    """Micro-dollars by tag of what the vendor made."""
    found: dict[str, int] = {}
    for path in sorted((vendor / "jobs").glob("*.json")):
        job = json.loads(path.read_text())
        found[job["tag"]] = found.get(job["tag"], 0) + job["micro_usd"]
    return found


# --- run folders ---------------------------------------------------------------------------------


def task() -> Any:
    sys.path.insert(0, str(HERE))
    from task import make_task

    return make_task()


def tidy(run: Path) -> None:
    """Without what the tests do not need."""
    for path in (*run.glob("*.png"), *run.parent.glob("*.couriers"), *run.glob("*lock")):
        path.unlink()


def outcome(run: Path) -> dict[str, Any]:
    """Digest and values of the weights, and the losses."""
    import torch

    from qsgd_core.optim.recording import fingerprint

    weights = torch.load(run / "checkpoint.pt", weights_only=True)["model"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights_sha256": fingerprint(weights.values()),
        "weights": {name: tensor.tolist() for name, tensor in weights.items()},
        "losses": [row["loss"] for row in rows],
        "train_losses": [row["train_loss"] for row in rows],
    }


def at(folder: Path, act: Callable[[], Any]) -> Any:
    """Act with ``folder`` as the current one and a ledger there."""
    before = Path.cwd()
    os.chdir(folder)
    os.environ["QSGD_LEDGER"] = f"sqlite:///{folder / 'ledger.sqlite'}"
    try:
        return act()
    finally:
        os.chdir(before)
        del os.environ["QSGD_LEDGER"]


def in_a_copy(folder: Path, act: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        copy = Path(shutil.copytree(folder, Path(name) / "copy"))
        found: dict[str, Any] = at(copy, lambda: act(copy))
        return found


def simulator(folder: Path) -> dict[str, Any]:
    """Stopped after 5 of 16 steps, on a simulator with shots."""
    from stopping import stop_at

    from qsgd_core.training import TrainConfig, replay, resume, train

    folder.mkdir(parents=True)
    config = TrainConfig(backend="sampled", shots=32, perturbation="circuit", seed=4, every=2)
    train(task(), config, run_dir=folder / "run", observers=[stop_at(5)])
    tidy(folder / "run")

    def go_on(copy: Path) -> dict[str, Any]:
        resume(str(copy / "run"), task())
        found = outcome(copy / "run")
        again = replay(str(copy / "run"), task(), run_dir=copy / "again")
        assert again.replayed is not None
        assert again.replayed["bit_identical"]
        return found

    return in_a_copy(folder, go_on)


def money(folder: Path, run: Path) -> dict[str, Any]:
    from qsgd_core.schedule.ledger import Ledger

    ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
    config = json.loads((run / "config.json").read_text())
    name = config.get("config", config)["run"]
    caps = {f"{cap.unit}": asdict(cap) for cap in ledger.caps()}
    return {
        "run": name,
        "states": {job.tag: job.state for job in ledger.jobs()},
        "caps": caps,
        "vendor": sold(folder / "vendor"),
    }


def paid(**more: Any) -> Any:
    from qsgd_core.training import TrainConfig

    base = {"backend": "filebox:x", "shots": 32, "perturbation": "circuit", "seed": 4}
    return TrainConfig(**{**base, "backend_options": VENDOR, "budget": "$2", **more})


def sync(folder: Path) -> dict[str, Any]:
    """Stopped after 7 of 16 steps, every refresh waited for: the same to the bit on resume."""
    from stopping import stop_at

    from qsgd_core.training import resume, train

    folder.mkdir(parents=True)
    config = paid(policy="sync", every=3)
    at(folder, lambda: train(task(), config, run_dir=folder / "run", observers=[stop_at(7)]))
    tidy(folder / "run")
    before = money(folder, folder / "run")

    def go_on(copy: Path) -> dict[str, Any]:
        resume(str(copy / "run"), task())
        return outcome(copy / "run") | {"money": money(copy, copy / "run")}

    return {"before": before} | in_a_copy(folder, go_on)


def finished(folder: Path) -> dict[str, Any]:
    """A tracked run to its end, for replay."""
    from qsgd_core.training import replay, train

    folder.mkdir(parents=True)
    config = paid(policy="tracked", every=4, wait="always")
    at(folder, lambda: train(task(), config, run_dir=folder / "run"))
    tidy(folder / "run")
    expected = outcome(folder / "run") | {"money": money(folder, folder / "run")}
    shutil.rmtree(folder / "vendor")
    (folder / "ledger.sqlite").unlink()

    def again(copy: Path) -> dict[str, Any]:
        summary = replay(str(copy / "run"), task(), run_dir=copy / "again")
        assert summary.replayed is not None
        assert summary.replayed["bit_identical"]
        assert outcome(copy / "again")["weights_sha256"] == expected["weights_sha256"]
        return {"sources": summary.sources}

    return expected | in_a_copy(folder, again)


SLOW: Mapping[str, Any] = VENDOR | {"run_s": 1.0, "before_s": 0.05, "after_s": 0.2}


def killed(folder: Path) -> dict[str, Any]:
    """A tracked run and its courier, killed in the middle while jobs are in flight."""
    from qsgd_core.schedule.ledger import Ledger

    while True:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        subprocess.run([sys.executable, __file__, "killed"], cwd=folder, check=False)
        tidy(folder / "run")
        ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
        states = [job.state for job in ledger.jobs()]
        print(states, flush=True)
        if "submitted" in states and "submitting" in states and "settled" in states:
            break
    del ledger
    before = money(folder, folder / "run")

    def go_on(copy: Path) -> dict[str, Any]:
        subprocess.run([sys.executable, __file__, "again"], cwd=copy, check=True)
        return outcome(copy / "run") | {"money": money(copy, copy / "run")}

    return {"before": before} | in_a_copy(folder, go_on)


def killed_trainer(again: bool) -> None:
    """In a process of its own, in the run's folder."""
    import torch

    from qsgd_core.events import BatchTrained, Event
    from qsgd_core.training import resume, train

    torch.set_num_threads(1)
    os.environ["QSGD_LEDGER"] = f"sqlite:///{Path.cwd() / 'ledger.sqlite'}"
    if again:
        resume("run", task())
        return

    def see(event: Event) -> None:
        if not isinstance(event, BatchTrained):
            return
        time.sleep(0.1)  # the vendor has time for something, and the run looks long enough
        if event.step == 22:
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
            for pid in [*map(int, children.split()), os.getpid()]:
                os.kill(pid, signal.SIGKILL)

    more = {"backend_options": dict(SLOW), "epochs": 12}
    config = paid(policy="tracked", every=3, **more)
    train(task(), config, run_dir=Path("run"), observers=[see], checkpoint_every=6)


# --- bare optimizers -----------------------------------------------------------------------------


def optimizers(folder: Path) -> dict[str, Any]:
    """State after 6 steps, and the weights 5 steps later."""
    import torch
    from bases import KINDS, make_optimizer, step

    folder.mkdir(parents=True)
    expected = {}
    for kind in KINDS:
        params, opt = make_optimizer(kind)
        for k in range(6):
            step(params, opt, k)
        saved = {"params": [p.detach().clone() for p in params], "state": opt.state_dict()}
        torch.save(saved, folder / f"{kind}.pt")
        for k in range(6, 11):
            step(params, opt, k)
        expected[kind] = [p.tolist() for p in params]
    return expected


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
