"""kill -9 of trainer and courier at drawn instants: what every service's kill test shares.

A bystander watches the vendor's books and the ledger while a :class:`Trainer` measures step after
step; :func:`campaign` kills one or the other and starts it again.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from patience import PATIENCE_S

from qsgd_core.schedule.child import command
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.states import OPEN
from qsgd_core.schedule.trainer.process import COURIER_MODULE, configuration

MEASURING = Path(__file__).parents[1] / "scripts" / "measuring.py"
RUN, BUDGET = "r", "b"
MOST_IN_A_ROW = 3
"""Couriers killed in a row: a trainer gives up after five that died without having done a thing."""


@dataclass(frozen=True)
class Sold:
    """A job at the vendor; ``paid`` in integers of the budget's unit."""

    tag: str
    paid: int


@dataclass(frozen=True)
class Books:
    """What a vendor has seen so far: requests of any kind, requests for a job, jobs."""

    jobs: tuple[Sold, ...]
    requests: int = 0
    asked: int = 0

    @property
    def paid(self) -> int:
        return sum(job.paid for job in self.jobs)


@dataclass(frozen=True)
class Bystander:
    """The vendor's books and the ledger, as somebody sees them who takes no part.

    Args:
        books: the vendor's, read now.
        ledger: with the budget :data:`BUDGET`, capped in one unit.
    """

    books: Callable[[], Books]
    ledger: Ledger

    def busy(self) -> bool:
        """Whether a job is reserved or out."""
        return bool(self.ledger.jobs(states=["reserved", "submitting", "submitted"]))

    def check(self) -> Books:
        """At any instant: no more is spent than was reserved for it, and no more than the cap."""
        books = self.books()  # first: the ledger only ever knows of more
        (cap,) = self.ledger.caps(BUDGET)
        assert books.paid <= cap.reserved + cap.spent <= cap.cap
        assert cap.overrun == 0
        return books

    def check_end(self) -> None:
        """Nothing is open: the ledger's books are the vendor's, and nothing was bought twice."""
        jobs = self.ledger.jobs()
        assert [job.state for job in jobs if job.state in OPEN] == []
        books = self.books()
        (cap,) = self.ledger.caps(BUDGET)
        assert (cap.reserved, cap.spent, cap.overrun) == (0, books.paid, 0)
        sold = Counter(job.tag for job in books.jobs)
        known = {job.tag: job for job in jobs}
        assert set(sold) <= set(known)
        assert set(sold.values()) == {1}
        assert {known[tag].state for tag in sold} == {"settled"}
        bought = Counter((known[tag].step, known[tag].part) for tag in sold)
        assert set(bought.values()) == {1}


class Trainer:
    """A process that measures, and the courier it has started.

    Args:
        url: the ledger.
        backend: its full name.
        options: its options.
        steps: how far to go.
        env: the process's environment.
        log: file for what both write to stderr.
    """

    def __init__(
        self,
        url: str,
        backend: str,
        options: Mapping[str, Any],
        steps: int,
        *,
        env: Mapping[str, str],
        log: Path,
    ) -> None:
        self._log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, MEASURING, url, backend, json.dumps(options), str(steps)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(env),
                text=True,
            )

    @property
    def over(self) -> bool:
        return self.process.poll() is not None

    def courier(self) -> int | None:
        pid = self.process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def end(self, timeout_s: float = PATIENCE_S) -> list[str]:
        """What it printed, once it is over and went well."""
        try:
            out, _ = self.process.communicate(timeout=timeout_s)
        finally:
            self.process.kill()
        assert self.process.returncode == 0, self._log.read_text()[-4000:]
        return out.splitlines()


def kill(pid: int) -> bool:
    """kill -9; whether there was such a process."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@dataclass(frozen=True)
class Moment:
    """When to kill: within ``most_s`` of something.

    ``since``: ``start``, of the trainer; ``busy``, the ledger has a job that is reserved or out;
    ``request``, the vendor hears from the new courier; ``asked``, it is asked for a job.
    """

    most_s: float
    since: Literal["start", "busy", "request", "asked"] = "start"


@dataclass
class Campaign:
    """What was killed, which open jobs there were at those instants, and how far it came."""

    struck: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    steps: int = 0

    def enough(self, kills: int) -> bool:
        """Whether so many were killed, of both kinds, and one while a job was out."""
        out = self.states["submitting"] + self.states["submitted"]
        each = min(self.struck["courier"], self.struck["trainer"])
        return self.struck.total() >= kills and each >= kills // 5 and out > 0


def campaign(
    start: Callable[[int], Trainer],
    bystander: Bystander,
    moments: Sequence[Moment],
    *,
    kills: int,
    steps: int,
    seed: int,
) -> Campaign:
    """Kill so often, let the last trainer come to its end, and look at the books.

    Args:
        start: a trainer that goes so many steps.
        bystander: looks all the time.
        moments: one is drawn for each kill.
        kills: how many at least: it goes on until a fifth of them were trainers, a fifth couriers,
            and one of them met a job that was out.
        steps: of the first trainer; when one comes to its end, the next goes as many further.
        seed: of what is killed when.
    """
    found, draw, further = Campaign(), random.Random(seed), steps
    trainer, in_a_row = start(steps), 0
    while not found.enough(kills):
        victim = draw.choice(["courier", "trainer"]) if in_a_row < MOST_IN_A_ROW else "trainer"
        if victim == "courier":
            _watch(bystander, trainer, until=lambda now, of=trainer: of.courier())
        _wait(draw.choice(moments), bystander, trainer, draw)
        found.states.update(job.state for job in bystander.ledger.jobs(states=OPEN))
        if victim == "courier" and (courier := trainer.courier()) is not None:
            found.struck["courier"] += kill(courier)
            in_a_row += 1
        elif victim == "trainer" and not trainer.over:
            found.struck["trainer"] += kill(trainer.process.pid)
            trainer.process.wait()
        if trainer.over:
            if trainer.process.returncode != -signal.SIGKILL:
                trainer.end()
                steps += further  # it was done before enough was killed
            trainer.process.communicate()
            bystander.check()
            trainer, in_a_row = start(steps), 0
    lines = trainer.end()
    assert [line.split()[0] for line in lines] == [*map(str, range(steps)), "done"]
    bystander.check_end()
    again = start(steps)
    assert again.end() == lines
    bystander.check_end()
    found.steps = steps
    return found


def _watch(bystander: Bystander, trainer: Trainer, *, until: Callable[[Books], object]) -> None:
    """Check again and again while the trainer lives; it does not outlive a check that fails."""
    try:
        while not trainer.over and not until(bystander.check()):
            time.sleep(0.02)
    except BaseException:
        trainer.process.kill()
        raise


def _wait(moment: Moment, bystander: Bystander, trainer: Trainer, draw: random.Random) -> None:
    """Come back at the moment, or when the trainer is over."""
    before = bystander.books()
    begun: dict[str, Callable[[Books], object]] = {
        "start": lambda now: True,
        "busy": lambda now: bystander.busy(),
        "request": lambda now: now.requests > before.requests,
        "asked": lambda now: now.asked > before.asked,
    }
    _watch(bystander, trainer, until=begun[moment.since])
    end = time.monotonic() + draw.uniform(0.0, moment.most_s)
    _watch(bystander, trainer, until=lambda now: time.monotonic() > end)


def look_once(url: str, *, env: Mapping[str, str]) -> None:
    """A courier that submits nothing: it recovers and collects what there is, and ends."""
    told = configuration(url, RUN, None, once=True)
    words, said = command(COURIER_MODULE), f"{json.dumps(told)}\n"
    subprocess.run(words, input=said, env=dict(env), text=True, check=True, timeout=PATIENCE_S)


def wait_for(happened: Callable[[], object], trainer: Trainer) -> None:
    """Return once it has happened, which it does before the trainer is over."""
    while not happened():
        if trainer.over:
            trainer.end()
        assert not trainer.over
        time.sleep(0.005)
