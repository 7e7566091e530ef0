"""What a run on a queued service would come to, from quotes, caps and queue times. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from qsgd_core.errors import BudgetError, BudgetExceededError
from qsgd_core.jobs import Cost, say_cost
from qsgd_core.schedule.forecast.survey import JobQuote, Survey
from qsgd_core.schedule.money import UNITS, Amount, Cap, say


@dataclass(frozen=True)
class Queue:
    """How long jobs of a backend took from submission to settlement, by the ledger.

    Attributes:
        jobs: how many there are.
        median_s: None without any.
        p90_s: nine in ten were faster.
    """

    jobs: int = 0
    median_s: float | None = None
    p90_s: float | None = None

    @classmethod
    def of(cls, waits: Sequence[float]) -> Queue:
        """Of past waits, in seconds."""
        if not waits:
            return cls()
        tenths = statistics.quantiles(waits, n=10, method="inclusive") if len(waits) > 1 else waits
        return cls(len(waits), statistics.median(waits), tenths[-1])


@dataclass(frozen=True)
class Forecast:
    """What a run would cost, and what it would get for it. None stands for what nobody knows.

    Attributes:
        backend: as asked for.
        device: what that means now.
        paid: False where nothing is sent anywhere.
        steps: optimizer steps.
        blocks: of all tensors; one refresh measures each.
        circuits_per_refresh: what they make, several side by side in one where that is cheaper.
        jobs_per_refresh: submissions they make.
        shots_per_circuit: None for expectation values without shots.
        refresh_usd: expected cost of one refresh.
        refresh_qpu_s: likewise.
        every: steps from one refresh to the next; None if the budget pays for no whole one.
        refreshes: whole ones.
        share_measured: refreshes per step.
        jobs: in all, and what follows too.
        circuits: submitted.
        shots: circuits × shots.
        cost_usd: expected.
        qpu_s: expected.
        wall_s: median queue time of all refreshes one after the other.
        queue: where ``wall_s`` is from.
        twin_error: RMS between the hardware and its free simulation by the vendor's figures.
        shot_error: RMS of one refresh, for want of more shots.
        budget: its name on the ledger, or as typed; None on a simulator.
        unit: of the cap that binds first, and of what follows.
        cap: in integers of the unit.
        reserved: held by jobs that are out.
        spent: by earlier jobs.
        overrun: billed above holds.
        price: ``source`` and ``effective_date``.
        notes: what the reader should know.
    """

    backend: str
    device: str
    paid: bool
    steps: int
    blocks: int
    circuits_per_refresh: int
    jobs_per_refresh: int
    shots_per_circuit: int | None
    refresh_usd: float | None
    refresh_qpu_s: float | None
    every: int | None
    refreshes: int
    share_measured: float
    jobs: int
    circuits: int
    shots: int | None
    cost_usd: float | None
    qpu_s: float | None
    wall_s: float | None
    queue: Queue
    twin_error: float | None
    shot_error: float | None
    budget: str | None = None
    unit: str | None = None
    cap: int | None = None
    reserved: int | None = None
    spent: int | None = None
    overrun: int | None = None
    price: dict[str, str | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Pace:
    """How much of a refresh a budget pays for, and how often.

    Attributes:
        refreshes: whole ones.
        jobs: how many jobs, those of a refresh that stays incomplete included.
        limit: the cap that binds.
    """

    refreshes: int
    jobs: int
    limit: Cap


def free(
    backend: str,
    *,
    steps: int,
    wanted: int,
    every: int | None,
    blocks: int,
    shots: int | None,
    why: str,
) -> Forecast:
    """The forecast of a run that sends nothing anywhere.

    Args:
        backend: its name.
        steps: optimizer steps.
        wanted: refreshes.
        every: steps between two; None if that changes.
        blocks: of one refresh.
        shots: per circuit; None for expectation values.
        why: it costs nothing.
    """
    return Forecast(
        backend=backend,
        device=backend,
        paid=False,
        steps=steps,
        blocks=blocks,
        circuits_per_refresh=blocks,
        jobs_per_refresh=0,
        shots_per_circuit=shots,
        refresh_usd=0.0,
        refresh_qpu_s=0.0,
        every=every,
        refreshes=wanted,
        share_measured=wanted / steps,
        jobs=0,
        circuits=wanted * blocks,
        shots=0 if shots is None else wanted * blocks * shots,
        cost_usd=0.0,
        qpu_s=0.0,
        wall_s=None,
        queue=Queue(),
        twin_error=None,
        shot_error=None,
        price={"source": why, "effective_date": None},
    )


def forecast(
    backend: str,
    found: Survey,
    caps: Sequence[Cap],
    *,
    blocks: int,
    steps: int,
    every: int | None,
    wanted: int | None,
    queue: Queue,
) -> Forecast:
    """The forecast of a run on a queued service.

    Args:
        backend: as asked for.
        found: what the service says of one refresh.
        caps: of the budget that pays, at least one.
        blocks: that one refresh measures.
        steps: optimizer steps.
        every: steps between two refreshes, if they are fixed.
        wanted: refreshes that were asked for; None for as many as the budget allows.
        queue: past waits on this backend.

    Raises:
        BudgetError: the price is unknown in a unit that the budget caps.
        BudgetExceededError: the budget does not pay for one job.
    """
    quotes = found.quotes
    pace = affordable(caps, quotes, backend=found.device)
    per_refresh = sum(q.count for q in quotes)
    notes = []
    if found.problem is not None:
        notes.append(
            f"{backend!r} was not asked; this is from the price table alone. {found.problem}"
        )
    if wanted is None:
        every = max(1, math.ceil(steps / pace.refreshes)) if pace.refreshes else None
        wanted = math.ceil(steps / every) if every else 0
    refreshes = min(wanted, pace.refreshes)
    if 0 < refreshes < wanted:
        notes.append(
            f"The budget pays for {refreshes} of {wanted} refreshes and ends early; it lasts for "
            f"the whole run with --every {math.ceil(steps / pace.refreshes)}."
        )
    partial = 0 if refreshes else min(pace.jobs, per_refresh)
    if not refreshes:
        notes.append(
            f"The budget pays for {partial} of the {per_refresh} jobs of one refresh: only some "
            f"blocks are measured. One whole refresh can cost up to {_worst(pace.limit, quotes)}."
        )
    first = _first_jobs(quotes, partial) if partial else quotes
    times = refreshes or 1
    total = _total(first, times)
    rows = times * sum(q.rows * q.count for q in first)
    one = _total(quotes, 1)
    return Forecast(
        backend=backend,
        device=found.device,
        paid=True,
        steps=steps,
        blocks=blocks,
        circuits_per_refresh=sum(q.rows * q.count for q in quotes),
        jobs_per_refresh=per_refresh,
        shots_per_circuit=found.shots,
        refresh_usd=one.usd,
        refresh_qpu_s=one.qpu_s,
        every=every,
        refreshes=refreshes,
        share_measured=refreshes / steps,
        jobs=times * sum(q.count for q in first),
        circuits=rows,
        shots=rows * found.shots,
        cost_usd=total.usd,
        qpu_s=total.qpu_s,
        wall_s=None if queue.median_s is None else times * queue.median_s,
        queue=queue,
        twin_error=found.errors.twin,
        shot_error=found.errors.shots,
        budget=pace.limit.budget,
        unit=pace.limit.unit,
        cap=pace.limit.cap,
        reserved=pace.limit.reserved,
        spent=pace.limit.spent,
        overrun=pace.limit.overrun,
        price={"source": found.source, "effective_date": found.effective_date},
        notes=tuple(notes),
    )


def affordable(caps: Sequence[Cap], quotes: Sequence[JobQuote], *, backend: str) -> Pace:
    """How many refreshes a budget pays for: each is held at its worst and paid as expected.

    Raises:
        BudgetError: the price is unknown in a unit that the budget caps.
        BudgetExceededError: it does not pay for one job.
    """
    paces = [_under(cap, quotes, backend) for cap in caps]
    return min(paces, key=lambda pace: (pace.refreshes, pace.jobs))


def _under(cap: Cap, quotes: Sequence[JobQuote], backend: str) -> Pace:
    worst = [Amount.from_cost(q.worst).of(cap.unit) for q in quotes]
    expected = [Amount.from_cost(q.expected).of(cap.unit) for q in quotes]
    if any(amount is None for amount in (*worst, *expected)):
        raise BudgetError(
            f"Budget {cap.budget!r} is capped in {_UNIT_NAMES[cap.unit]}, and what a job on "
            f"{backend!r} costs in that unit is unknown: the run would be refused. Give a budget "
            "in another unit (600s, $25 or 1e6shots), the price as a backend option, or a row of "
            "your own in QSGD_PRICES."
        )
    holds = [amount for amount in worst if amount is not None]
    costs = [amount for amount in expected if amount is not None]
    if (one := min(holds)) > cap.left:
        raise BudgetExceededError(
            f"One job on {backend!r} can cost up to {say(cap.unit, one)}; budget {cap.budget!r} "
            f"has {say(cap.unit, cap.left)} left of {say(cap.unit, cap.cap)}. Nothing would be "
            "measured. Give more, fewer shots, or fewer circuits (scope='model').",
            asked=one,
            left=cap.left,
            unit=cap.unit,
        )
    hold = sum(h * q.count for h, q in zip(holds, quotes, strict=True))
    cost = sum(c * q.count for c, q in zip(costs, quotes, strict=True))
    per_refresh = sum(q.count for q in quotes)
    if hold > cap.left:
        return Pace(0, min(cap.left // max(one, 1), per_refresh), cap)
    refreshes = 1 + ((cap.left - hold) // cost if cost else _UNLIMITED)
    return Pace(refreshes, refreshes * per_refresh, cap)


def price_of(quotes: Sequence[JobQuote], *, share: float = 1.0) -> str | None:
    """What ``share`` refreshes are expected to cost, in words; None if nobody knows."""
    total = _total(quotes, share)
    return say_cost(total.usd, total.qpu_s)


_UNLIMITED = 10**9
_UNIT_NAMES = dict(zip(UNITS, ("shots", "dollars", "QPU seconds"), strict=True))


def _total(quotes: Sequence[JobQuote], times: float) -> Cost:
    """Expected cost of all jobs; None where one is unknown."""
    one = Cost.total(q.expected.times(q.count) for q in quotes).times(times)
    return Cost(
        usd=None if one.usd is None else round(one.usd, 6),
        qpu_s=None if one.qpu_s is None else round(one.qpu_s, 6),
    )


def _first_jobs(quotes: Sequence[JobQuote], jobs: int) -> list[JobQuote]:
    """The quotes of so many jobs, those of the first shape first."""
    taken = []
    for quote in quotes:
        count = min(quote.count, jobs)
        jobs -= count
        if count:
            taken.append(JobQuote(quote.rows, count, quote.expected, quote.worst))
    return taken


def _worst(cap: Cap, quotes: Sequence[JobQuote]) -> str:
    amounts = [(Amount.from_cost(q.worst).of(cap.unit) or 0) * q.count for q in quotes]
    return say(cap.unit, sum(amounts))
