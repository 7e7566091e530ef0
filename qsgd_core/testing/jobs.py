"""The jobs that the kit sends to a backend: planned and quoted in full before the first is sent."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pytest

from qsgd_core.backend import Backend
from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import Workload
from qsgd_core.errors import BackendError, ConfigError, JobNotDoneError, TransientError, may_exist
from qsgd_core.jobs import (
    Cost,
    JobHandle,
    JobState,
    JobStatus,
    Limit,
    Quote,
    Result,
    dollars,
    say_cost,
    sum_known,
)
from qsgd_core.seeds import derive_seed
from qsgd_core.testing.measuring import choose_shots
from qsgd_core.testing.probes import Batches, build, pack, workload

SHOTS = 512
"""Per row; a money-saving default."""
LOOK_S = (0.05, 10.0)
"""First and longest wait between two looks at a job."""


@dataclass(frozen=True)
class JobPlan:
    """Every job that the kit will send.

    Attributes:
        shots: per row.
        probes: one entry per job: probe name -> batches.
        left_out: probes that are not claimed or do not fit, with the reason.
        again: the workload that is sent a second time, or a third if seeded.
        repeats: how often ``again`` is sent.
    """

    shots: int
    probes: list[dict[str, Batches]]
    left_out: dict[str, str]
    again: Workload
    repeats: int

    @property
    def works(self) -> list[Workload]:
        """The workloads of all jobs, in the order of sending; the last is to be cancelled."""
        first = [workload(job) for job in self.probes]
        return [*first, *[self.again] * self.repeats, self.again]


def plan(has: Capabilities, *, shots: int | None) -> JobPlan:
    """What will be sent to a backend with these capabilities.

    Args:
        has: as declared after ``resolve()``.
        shots: per row, or None for the kit's own number.

    Raises:
        ConfigError: too few shots, or capabilities that leave nothing to run.
    """
    chosen = choose_shots(has, shots, default=SHOTS)
    probes, left_out = pack(has, shots=chosen)
    if "twins" in left_out:
        raise ConfigError(
            f"The kit cannot run a few rows of single gates on this: {left_out['twins']} Declare "
            "capabilities that allow it, or use other --shots."
        )
    twins = build("twins", has)
    return JobPlan(chosen, probes, left_out, Workload(twins), 2 if has.seeded else 1)


@dataclass(frozen=True)
class PlanPrice:
    """What the plan costs at most, and what the vendor's quotes say about it.

    Attributes:
        quotes: one per job.
        usd: the worst case in US dollars; None when a quote does not say.
    """

    quotes: list[Quote]

    @property
    def usd(self) -> float | None:
        return Cost.total(quote.worst for quote in self.quotes).usd

    def __str__(self) -> str:
        def shown(costs: Iterable[Cost]) -> str:
            total = Cost.total(costs)
            known = say_cost(total.usd, total.qpu_s)
            unpriced = "" if total.usd is not None else "an unknown price"
            return " and ".join(part for part in (unpriced, known) if part)

        first = self.quotes[0]
        dated = f" ({first.effective_date})" if first.effective_date else ""
        return (
            f"{len(self.quotes)} jobs, {shown(q.expected for q in self.quotes)} expected, "
            f"{shown(q.worst for q in self.quotes)} at worst; source: "
            f"{first.source or 'none given'}{dated}"
        )


def price(backend: Backend, plan: JobPlan) -> PlanPrice:
    """Ask for a quote of every planned job. Sends nothing."""
    return PlanPrice([backend.quote(work, shots=plan.shots) for work in plan.works])


def require_allowed(backend: Backend, price: PlanPrice, allowed_usd: float | None) -> None:
    """Raise unless the plan may be paid.

    Raises:
        ConfigError: it costs money or QPU time, and more than ``allowed_usd`` or an unknown sum.
    """
    if not backend.capabilities.paid:
        return
    what = f"Conformance of {backend.name!r} would send {price}."
    if allowed_usd is None:
        least = f"{math.ceil(100 * (price.usd or 0.0)) / 100:.2f}"
        raise ConfigError(
            f"{what} Nothing was sent. To allow it: qsgd conform {backend.name} --allow-cost "
            f"{least}, or allow_cost_usd = {least} in the test class."
        )
    if price.usd is None:
        raise ConfigError(
            f"{what} Nothing was sent: an unknown price fits no limit. Give the price as an option "
            f"of the backend if it has one (qsgd conform {backend.name} --option NAME=VALUE)."
        )
    if not price.usd <= allowed_usd + 1e-9:  # not: a limit of NaN allows nothing
        raise ConfigError(
            f"{what} Nothing was sent: {dollars(allowed_usd)} is allowed. Allow "
            f"{dollars(price.usd)}, or take fewer --shots."
        )


@dataclass
class Sent:
    """One job as it was seen."""

    work: Workload
    quote: Quote
    handle: JobHandle
    early: Exception | Result | None = None
    status: JobStatus | None = None
    result: Result | None = None

    @property
    def billed(self) -> Cost | None:
        """What the vendor says it cost."""
        if self.result is not None and self.result.billed is not None:
            return self.result.billed
        return None if self.status is None else self.status.billed


@dataclass
class JobSender:
    """Sends the kit's jobs, each under a tag of its own, and waits for them."""

    backend: Backend
    shots: int
    deadline_s: float
    run: str = field(default_factory=lambda: f"qsgd-kit-{uuid.uuid4().hex[:12]}")
    sent: list[Sent] = field(default_factory=list)
    made_by_failures: list[JobHandle] = field(default_factory=list)

    def tag(self, what: str) -> str:
        """A tag that nobody has used before."""
        return f"{self.run}-{what}"

    def send(self, what: str, work: Workload, *, seed: int) -> Sent:
        """Submit once, and ask for the result at once: it is hardly ever there."""
        quote = self.backend.quote(work, shots=self.shots)
        worst = quote.worst
        limit = Limit(usd=worst.usd, qpu_s=worst.qpu_s, shots=worst.shots)
        handle = self.submit(work, tag=self.tag(what), limit=limit, seed=seed)
        job = Sent(work, quote, handle)
        self.sent.append(job)
        try:
            job.early = self.backend.fetch(handle)
        except JobNotDoneError as error:
            job.early = error
        except BackendError as error:
            job.early = error
        return job

    def submit(
        self, work: Workload, *, tag: str, limit: Limit, seed: int, shots: int | None = None
    ) -> JobHandle:
        """Call ``submit`` once; if it raises, look whether it made a job all the same.

        A job that an error has denied is a failure; one that it has left open is noted, cancelled
        and paid for.
        """
        shots = self.shots if shots is None else shots
        try:
            return self.backend.submit(work, shots=shots, tag=tag, limit=limit, seed=seed)
        except Exception as error:
            found = list(self.find(tag, at_least=1) if may_exist(error) else self.backend.find(tag))
            self.made_by_failures += found
            if found and not may_exist(error):
                pytest.fail(
                    f"submit raised {type(error).__name__} ({error}), which says that no job was "
                    f"made, and made job {found[0].job_id}. It may set nothing_made only if the "
                    "service refused, or before anything was sent."
                )
            raise

    def wait(self, job: Sent) -> JobStatus:
        """Poll until the job has ended.

        A deadline that passes is a failure; :meth:`close` then cancels the job.
        """
        end = time.monotonic() + self.deadline_s
        wait = LOOK_S[0]
        while True:
            try:
                job.status = self.backend.status(job.handle)
                if job.status.state.final:
                    return job.status
            except TransientError:
                job.status = None
            if time.monotonic() > end:
                pytest.fail(
                    f"job {job.handle.job_id} has not ended after {self.deadline_s:.0f} s: "
                    f"{job.status}. Set deadline_s to wait longer."
                )
            time.sleep(wait)
            wait = min(1.5 * wait, LOOK_S[1])

    def collect(self, job: Sent) -> Result:
        """Wait for the job and fetch its result."""
        status = self.wait(job)
        if status.state is not JobState.DONE:
            pytest.fail(f"job {job.handle.job_id} is {status.state}: {status.reason}")
        if job.result is None:
            job.result = self.backend.fetch(job.handle)
        return job.result

    def find(self, tag: str, *, at_least: int) -> Sequence[JobHandle]:
        """Look for jobs by tag until so many are seen or the find horizon has passed."""
        end = time.monotonic() + min(self.backend.capabilities.find_horizon_s, self.deadline_s)
        wait = LOOK_S[0]
        while len(found := self.backend.find(tag)) < at_least and time.monotonic() < end:
            time.sleep(wait)
            wait = min(1.5 * wait, LOOK_S[1])
        return found

    def close(self) -> None:
        """Cancel whatever has not ended."""
        for job in self.sent:
            if job.status is None or not job.status.state.final:
                self.backend.cancel(job.handle)
        for handle in self.made_by_failures:
            self.backend.cancel(handle)

    def spent(self) -> float | None:
        """US dollars billed so far; None when a bill does not say."""
        bills = [job.billed for job in self.sent]
        bills += map(self.backend.billed, self.made_by_failures)
        return sum_known(None if bill is None else bill.usd for bill in bills)


def seed_of(what: str) -> int:
    """The seed of a job of the kit."""
    return derive_seed("conformance", what)
