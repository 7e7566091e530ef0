"""What a run's record shows: ages, errors, queues, spending. Pure: rows in, figures out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsgd_core.schedule.record.entries import AppliedEntry, Balance, OutcomeEntry, RefreshEntry
from qsgd_core.schedule.record.worth import Skill, skill
from qsgd_core.schedule.snapshot import Moment

Floats = NDArray[np.float64]

STEP_EDGES = (0.0, *(2.0**k for k in range(24)))
RADIAN_EDGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, math.pi)
SECOND_EDGES = (0.0, 1.0, 10.0, 60.0, 600.0, 3600.0, 21600.0, 86400.0, 604800.0, 1e12)


@dataclass(frozen=True)
class Spread:
    """How some numbers are distributed.

    Attributes:
        n: how many there are.
        median, p90, most: quantiles; None without any.
        edges: of the bins; each holds its lower one and not its upper one, the last holds both.
        counts: of the bins, one fewer than ``edges``; empty ones at either end are left out.
    """

    n: int
    median: float | None = None
    p90: float | None = None
    most: float | None = None
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()

    @classmethod
    def of(cls, values: ArrayLike, edges: Sequence[float] = ()) -> Spread:
        """The distribution of ``values``, binned by ``edges`` if there are any."""
        found = np.asarray(values, dtype=np.float64)
        if not len(found):
            return cls(0)
        median, p90, most = (float(q) for q in np.quantile(found, (0.5, 0.9, 1.0)))
        if not len(edges):
            return cls(len(found), median, p90, most)
        counts, _ = np.histogram(found, edges)
        first, last = np.flatnonzero(counts)[[0, -1]]
        kept = tuple(float(edge) for edge in edges[first : last + 2])
        binned = tuple(int(count) for count in counts[first : last + 1])
        return cls(len(found), median, p90, most, kept, binned)


@dataclass(frozen=True)
class Ages:
    """How old what steps used was: since it was measured, over steps that used something measured.

    Attributes:
        steps: optimizer steps.
        radians: how far any angle had moved; known at the steps that asked for a refresh.
        seconds: by the times of the service and the courier, interpolated between their notes.
    """

    steps: Spread
    radians: Spread
    seconds: Spread


@dataclass(frozen=True)
class Prediction:
    """What the noise model expected of its errors, beside what they were.

    Attributes:
        n: results that it learned from.
        predicted_rms: root mean square that it expected of predicted - true.
        realised_rms: what that was, less shot noise; 0 where shot noise exceeds it.
        nis: mean normalised innovation squared; 1 when it is as wrong as it believes to be.
        alarms: results that it took for a sign of recalibration.
    """

    n: int
    predicted_rms: float | None
    realised_rms: float | None
    nis: float | None
    alarms: int


@dataclass(frozen=True)
class Refreshes:
    """What came of the refreshes that were asked for.

    Attributes:
        asked: in all.
        arrived: with results, if only of some blocks.
        failed: to nothing.
        applied: results that came into force.
        rows: blocks that a refresh measures, at most.
        shots: per circuit, of the newest.
    """

    asked: int
    arrived: int
    failed: int
    applied: int
    rows: int
    shots: int | None


@dataclass(frozen=True)
class Point:
    """A budget's unit at a step, in dollars, seconds or shots; ``planned`` is None without plan."""

    step: int
    cap: float
    reserved: float
    spent: float
    overrun: float
    planned: float | None


def count(
    asked: Sequence[RefreshEntry], outcomes: Sequence[OutcomeEntry], applied: Sequence[AppliedEntry]
) -> Refreshes:
    """Refreshes by what came of them."""
    arrived = [o for o in outcomes if o.z]
    used = {a.frame.values["refresh"] for a in applied if _is_measured(a)}
    return Refreshes(
        asked=len(asked),
        arrived=len(arrived),
        failed=len(outcomes) - len(arrived),
        applied=len(used),
        rows=max((refresh.work.n_rows for refresh in asked), default=0),
        shots=asked[-1].shots if asked else None,
    )


def worth(outcomes: Sequence[OutcomeEntry], applied: Sequence[AppliedEntry]) -> Skill:
    """The skill score of the results whose step used what they are compared with.

    A step that waited for its own result did not: the first one, usually. A tracked twin is judged
    as it was when the result ran, just before it learned from it; what the asking step used is
    older by the queue, and would make the twin look worse than it is in a long one.
    """
    waited = {a.step for a in applied if a.frame.values["measured_at"] == a.step}
    tracked = any(a.frame.values["rung"] == "tracked" for a in applied)
    found = [o for o in outcomes if o.e_sq is not None]
    judged = [
        (
            o.innovation_sq if tracked and o.innovation_sq is not None else o.e_sq,
            o.twin_sq,
            float(o.n_rows or 1),
        )
        for o in found
        if o.step not in waited
    ]
    if found and not judged:
        why = "training waited for every result, so no step used what they could be compared with"
        return Skill(0, reason=why)
    pairs = [(e, t, w) for e, t, w in judged if e is not None and t is not None]
    if judged and not pairs:
        only = skill([e or 0.0 for e, _, _ in judged], [1.0] * len(judged))
        why = "there is no simulation of this circuit to compare with"
        return Skill(len(judged), e_sq=only.e_sq, reason=why)
    return skill(
        [e for e, _, _ in pairs], [t for _, t, _ in pairs], weights=[w for _, _, w in pairs]
    )


def prediction(outcomes: Sequence[OutcomeEntry]) -> Prediction:
    """Predicted against realised error."""
    learned = [o for o in outcomes if o.nis is not None]
    return Prediction(
        n=len(learned),
        predicted_rms=_rms([o.predicted_var for o in learned]),
        realised_rms=_rms([o.innovation_sq for o in learned]),
        nis=_mean([o.nis for o in learned]),
        alarms=sum(o.alarm for o in learned),
    )


def ages(
    n_steps: int,
    applied: Sequence[AppliedEntry],
    asked: Sequence[RefreshEntry],
    outcomes: Sequence[OutcomeEntry],
) -> Ages:
    """How stale what the steps used was."""
    at = _measured_at(n_steps, applied)
    steps = np.arange(n_steps)
    used = at >= 0
    return Ages(
        steps=Spread.of((steps - at)[used], STEP_EDGES),
        radians=Spread.of(_radians(at, asked), RADIAN_EDGES),
        seconds=Spread.of(_seconds(at, applied, asked, outcomes), SECOND_EDGES),
    )


def burn_down(balances: Sequence[Balance]) -> dict[str, tuple[Point, ...]]:
    """Each capped unit of the budget over the steps, the last note of each step.

    The plan starts from what others had spent of the budget when the run began.
    """
    lines: dict[str, dict[int, Point]] = {}
    first: dict[str, Balance] = {}
    for b in balances:
        start = first.setdefault(b.unit, b)
        planned = None
        if b.planned is not None and b.cap > 0:
            planned = start.spent + b.planned / b.cap * (b.cap - start.spent)
        point = Point(b.step, b.cap, b.reserved, b.spent, b.overrun, planned)
        lines.setdefault(b.unit, {})[b.step] = point
    return {unit: tuple(points.values()) for unit, points in lines.items()}


def _is_measured(row: AppliedEntry) -> bool:
    return row.frame.values["rung"] in ("measured", "tracked")


def _measured_at(n_steps: int, applied: Sequence[AppliedEntry]) -> NDArray[np.int64]:
    """(n_steps,): when what each step used was measured; -1 where nothing was."""
    found = np.full(n_steps, -1, dtype=np.int64)
    for row in applied:
        at = row.frame.values["measured_at"]
        found[row.step :] = at if _is_measured(row) and at is not None else -1
    return found


def _radians(at: NDArray[np.int64], asked: Sequence[RefreshEntry]) -> list[float]:
    moments = {
        r.step: Moment(r.step, r.wall, tuple(b.angles for b in r.work.batches)) for r in asked
    }
    return [
        moments[int(at[r.step])].radians_to(r.work)
        for r in asked
        if r.step < len(at) and int(at[r.step]) in moments and at[r.step] != r.step
    ]


def _seconds(
    at: NDArray[np.int64],
    applied: Sequence[AppliedEntry],
    asked: Sequence[RefreshEntry],
    outcomes: Sequence[OutcomeEntry],
) -> Floats:
    notes = sorted({(a.step, a.wall) for a in applied} | {(r.step, r.wall) for r in asked})
    ran: Mapping[int, float] = {o.step: o.executed_at or o.wall for o in outcomes if o.z}
    if len(notes) < 2:
        return np.empty(0)
    known, walls = (np.array(column) for column in zip(*notes, strict=True))
    steps = np.arange(int(known[0]), min(int(known[-1]) + 1, len(at)))
    steps = steps[[int(at[step]) in ran for step in steps]]
    now = np.interp(steps, known, np.maximum.accumulate(walls))
    then = np.array([ran[int(at[step])] for step in steps])
    ages: Floats = np.maximum(now - then, 0.0)
    return ages


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _rms(squares: Sequence[float | None]) -> float | None:
    mean = _mean(squares)
    return None if mean is None else math.sqrt(max(mean, 0.0))
