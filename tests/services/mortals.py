"""Processes that share one ledger and one vendor, and die: kill -9 from outside and from within.

Each process is the courier of a run of its own, with the real :class:`Courier`; it asks for its
jobs itself. Death from within falls on a drawn call, before it or after it, or on a commit.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import sqlalchemy as sa
from patience import PATIENCE_S

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.schedule.courier.courier import Courier
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.states import OPEN, LedgerState

BUDGET = "b"
IN_FLIGHT = 4
LAST_KILL = 0.8
"""Share of the jobs that are sold when the last kill falls."""
LULL_S = 20.0
"""Longest wait for jobs to be sold; then the next kill falls all the same."""
OUT = (LedgerState.SUBMITTING, LedgerState.SUBMITTED)
LEDGER_CALLS = (
    "add_intent", "reserve", "begin_submit", "not_sent", "doubt", "submitted", "store", "settle",
    "fail", "refund", "stray", "state", "settle_stray",
)  # fmt: skip
BACKEND_CALLS = ("quote", "submit", "status", "fetch", "find", "billed")
FORKS = multiprocessing.get_context("forkserver")
"""Processes that start in milliseconds: forked from one that has imported this module."""


@dataclass(frozen=True)
class Scenario:
    """What is to be bought by whom.

    Attributes:
        url: the ledger.
        vendor: the vendor's options.
        runs: processes.
        steps: jobs of each.
        seed: of prices and deaths.
    """

    url: str
    vendor: Mapping[str, Any]
    runs: int
    steps: int
    seed: int

    def shape(self, run: str, step: int) -> tuple[int, int]:
        """Rows and shots of a job: prices differ."""
        draw = random.Random(f"{self.seed}/{run}/{step}")
        return draw.randint(1, 3), draw.randint(1, 32)

    @property
    def names(self) -> list[str]:
        return [f"run{k}" for k in range(self.runs)]


def live(scenario: Scenario, run: str, life: int, risk: float) -> None:
    """One process: until all jobs of its run are over, or its death.

    Args:
        scenario: what is to be bought.
        run: whose jobs.
        life: how many processes of this run there were before.
        risk: probability of death at each point.
    """
    from qsgd_filebox.backend import Filebox
    from qsgd_filebox.options import FileboxOptions

    ledger = Ledger(scenario.url)
    backend = Filebox("filebox:x", FileboxOptions(**scenario.vendor))
    make_mortal(ledger, backend, random.Random(f"{scenario.seed}/{run}/{life}"), risk)
    alone = False
    while not alone:
        with ledger.serve(run) as alone:
            if alone:
                _work(scenario, ledger, Courier(ledger, backend, run=run), run)
        time.sleep(0.01)


def make_mortal(ledger: Ledger, backend: Any, draw: random.Random, risk: float) -> None:
    """From now on each of these calls, and each commit, may be the last."""

    def perhaps_die(*_: object) -> None:
        if draw.random() < risk:
            os.kill(os.getpid(), signal.SIGKILL)

    def dangerous(real: Any, *arguments: Any, **more: Any) -> Any:
        perhaps_die()
        found = real(*arguments, **more)
        perhaps_die()
        return found

    for owner, names in ((ledger, LEDGER_CALLS), (backend, BACKEND_CALLS)):
        for name in names:
            setattr(owner, name, partial(dangerous, getattr(owner, name)))
    sa.event.listen(ledger._database._engine, "commit", perhaps_die)


def _work(scenario: Scenario, ledger: Ledger, courier: Courier, run: str) -> None:
    known = {job.step: job.tag for job in ledger.jobs(run=run)}  # the last attempt of each
    waiting, step = set(known.values()), 0
    while waiting or step < scenario.steps:
        while step < scenario.steps and len(waiting) < IN_FLIGHT:
            if step not in known:
                waiting.add(_ask(scenario, ledger, run, step, 0))
            step += 1
        courier.round()
        still = {job.tag for job in ledger.jobs(run=run, states=OPEN)}
        for tag in waiting - still:
            job = ledger.job(tag)
            waiting.remove(tag)
            if job.state == "refunded":
                waiting.add(_ask(scenario, ledger, run, job.step, job.attempt + 1))
        time.sleep(min(courier.idle_s(), 0.02))


def _ask(scenario: Scenario, ledger: Ledger, run: str, step: int, attempt: int) -> str:
    rows, shots = scenario.shape(run, step)
    angles = np.random.default_rng(step).normal(size=(rows, 2))
    job = ledger.add_intent(
        Workload((CircuitBatch(ansatz(2, 1), angles),)),
        tag=f"{run}-{step}-{attempt}", run=run, budget=BUDGET, backend="filebox:x", options={},
        step=step, part=0, attempt=attempt, shots=shots, seed=step,
    )  # fmt: skip
    return job.tag


@dataclass
class Toll:
    """How it went."""

    kills: int = 0
    from_within: int = 0
    power_cuts: int = 0
    open_at_death: Counter[str] = field(default_factory=Counter)

    def enough(self, kills: int) -> bool:
        """Whether so many were killed, and all of them once while a job was out."""
        return self.kills >= kills and any(self.open_at_death[state] for state in OUT)


class Graveyard:
    """Starts the processes of a scenario, kills them, and looks at the books in between."""

    def __init__(self, scenario: Scenario, vendor: Any, *, risk: float) -> None:
        self.scenario = scenario
        self.ledger = Ledger(scenario.url)
        self.vendor = vendor
        self.toll = Toll()
        self._risk = risk
        self._lives = dict.fromkeys(scenario.names, 0)
        self._alive: dict[str, Any] = {}
        self._done: set[str] = set()
        FORKS.set_forkserver_preload(
            [__name__, "qsgd_filebox.backend", "sqlalchemy.dialects.sqlite"]
        )

    def campaign(self, *, kills: int) -> None:
        """Kill so often, one by one and all at once, then let everybody come to the end.

        It goes on until a job was out when all were killed at once.
        The kills are spread over the jobs: the next one is due when so many more were sold.
        """
        draw = random.Random(self.scenario.seed)
        try:
            while not self.toll.enough(kills):
                for _ in range(draw.randint(1, 4)):
                    self._let_live(kills, draw)
                    self.check()
                    self._kill(draw.choice(self.scenario.names))
                self._let_live(kills, draw)
                self._until_a_job_is_out()
                for run in self.scenario.names:
                    self._kill(run)
                self.toll.power_cuts += 1
                self.toll.open_at_death.update(j.state for j in self.ledger.jobs(states=OPEN))
                self.check()
                assert len(self._done) < self.scenario.runs, f"too few jobs: {self.toll}"
            self._start_all(0.0)
            for run, process in self._alive.items():
                process.join(timeout=PATIENCE_S)
                assert process.exitcode == 0, (run, process.exitcode)
        finally:
            for process in self._alive.values():
                process.kill()
                process.join()

    def _let_live(self, kills: int, draw: random.Random) -> None:
        """Until the next kill is due, by the jobs sold; the dead are raised meanwhile."""
        share = LAST_KILL * min(1.0, self.toll.kills / kills)
        due = share * self.scenario.runs * self.scenario.steps
        end = time.monotonic() + LULL_S
        folder = self.vendor.options.folder / "jobs"
        self._start_all(self._risk)
        while len(list(folder.glob("*.json"))) < due and time.monotonic() < end:
            time.sleep(0.02)
            self._start_all(self._risk)
        time.sleep(draw.uniform(0.0, 0.2))
        self._start_all(self._risk)

    def _until_a_job_is_out(self) -> None:
        """Or for so long as a lull lasts."""
        end = time.monotonic() + LULL_S
        while not self.ledger.jobs(states=OUT) and time.monotonic() < end:
            self._start_all(self._risk)
            time.sleep(0.005)

    def check(self) -> None:
        """At any instant: what the vendor will bill ≤ reserved + spent ≤ cap, in every unit."""
        known = self.vendor.jobs()  # first: the ledger only ever knows of more
        jobs = [job for job in known if not job["by_itself"]]
        truth = {
            "micro_usd": sum(job["micro_usd"] for job in jobs),
            "shots": sum(job["executions"] for job in jobs),
            "qpu_us": sum(job["qpu_us"] for job in jobs),
        }
        for cap in self.ledger.caps(BUDGET):
            assert truth[cap.unit] <= cap.reserved + cap.spent <= cap.cap
            assert cap.overrun == 0

    def check_end(self) -> dict[str, int]:
        """Everybody is done: the ledger is the vendor's truth, job by job. What was bought."""
        jobs = {job.tag: job for job in self.ledger.jobs()}
        sold = self.vendor.jobs()
        assert [tag for tag, job in jobs.items() if job.state in OPEN] == []
        assert Counter(job["tag"] for job in sold).most_common(1)[0][1] == 1
        bought = Counter((jobs[job["tag"]].run, jobs[job["tag"]].step) for job in sold)
        assert bought.most_common(1)[0][1] == 1
        for job in sold:
            row = jobs[job["tag"]]
            assert row.state == ("settled" if job["ends"] == "done" else "failed")
            assert (row.spent.micro_usd, row.spent.shots) == (job["micro_usd"], job["executions"])
        there = {job["tag"] for job in sold}
        assert {jobs[tag].state for tag in set(jobs) - there} <= {"refunded", "denied", "failed"}
        for cap in self.ledger.caps(BUDGET):
            name = {"micro_usd": "micro_usd", "shots": "executions"}[cap.unit]
            truth = sum(job[name] for job in sold)
            assert (cap.reserved, cap.spent, cap.overrun) == (0, truth, 0)
            assert truth <= cap.cap
        states = Counter(job.state for job in jobs.values())
        return {"sold": len(sold), "asked": len(jobs), **states}

    def _start_all(self, risk: float) -> None:
        self._bury()
        for run in self.scenario.names:
            if run not in self._alive and run not in self._done:
                arguments = (self.scenario, run, self._lives[run], risk)
                process = FORKS.Process(target=live, args=arguments, daemon=True)
                process.start()
                self._alive[run] = process
                self._lives[run] += 1

    def _kill(self, run: str) -> None:
        process = self._alive.get(run)
        if process is None:
            return
        died = process.exitcode is not None
        process.kill()
        process.join()
        self._count(run, from_within=died)

    def _bury(self) -> None:
        for run in [run for run, process in self._alive.items() if process.exitcode is not None]:
            self._count(run, from_within=True)

    def _count(self, run: str, *, from_within: bool) -> None:
        code = self._alive.pop(run).exitcode
        assert code in (0, -signal.SIGKILL), (run, code)
        if code == 0:
            self._done.add(run)
        else:
            self.toll.kills += 1
            self.toll.from_within += from_within
