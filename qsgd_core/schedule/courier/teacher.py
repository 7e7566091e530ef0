"""From a result to what is used next: the verdict on the past, the lesson, the snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Workload
from qsgd_core.errors import CapabilityError
from qsgd_core.jobs import NoiseSnapshot, Result
from qsgd_core.schedule.courier.judge import Verdict, judge
from qsgd_core.schedule.courier.refreshes import Refresh
from qsgd_core.schedule.packing.turns import take
from qsgd_core.schedule.snapshot import Snapshot
from qsgd_core.schedule.twin.tracking import Lesson, Tracker
from qsgd_core.schedule.twin.twin import Twin, nominal


@dataclass(frozen=True, eq=False)
class Taught:
    """What a result has taught.

    Attributes:
        z: measured, float64 (B, n_observables) a batch, NaN where nothing was.
        n_rows: blocks that were measured.
        verdict: on what had been used.
        lesson: of the twin; None where there is none.
        innovation_sq: mean of (predicted - measured)² before the lesson, less the shot noise.
        snapshot: what is used from now on.
    """

    z: list[NDArray[np.float64]]
    n_rows: int
    verdict: Verdict
    lesson: Lesson | None
    innovation_sq: float | None
    snapshot: Snapshot


class Teacher:
    """Keeps the twin of one run's device.

    Args:
        between: what stands in between refreshes: the twin, or the last result.

    Attributes:
        nominal: the free twin, before any result; None where no twin is possible.
        last: the newest snapshot.
    """

    def __init__(self, between: Literal["twin", "hold"], last: Snapshot | None = None) -> None:
        self.nominal: Snapshot | None = None
        self.last = last
        self._between = between
        self._tracker: Tracker | None = None
        if last is not None and last.rung == "tracked" and last.estimate is not None:
            self._tracker = Tracker(last.estimate)

    def meet(
        self,
        calibration: NoiseSnapshot | None,
        work: Workload,
        sites: tuple[NDArray[np.intp], ...],
    ) -> None:
        """Build the nominal twin from the vendor's own figures.

        Raises:
            CapabilityError: no twin is possible, and the policy needs one.
        """
        try:
            estimate = nominal(calibration, work, sites)
            Twin(estimate).predict(work, sites)
        except CapabilityError:
            if self._between == "twin":
                raise
            return
        self.nominal = Snapshot("nominal", estimate=estimate)
        self._tracker = self._tracker or Tracker(estimate)

    def teach(self, refresh: Refresh, results: list[Result | None], *, settled: float) -> Taught:
        """Learn from the results of a refresh, at least one of which is there.

        Args:
            refresh: the question.
            results: of its jobs.
            settled: when the last of them ended, for services that do not say when they ran.
        """
        first = next(r for r in results if r is not None)
        z = refresh.gather(results)
        kept = [np.flatnonzero(~np.isnan(values).any(axis=1)) for values in z]
        twin = None if self.nominal is None else self.nominal.twin()
        free = None if twin is None else twin.predict(refresh.work, refresh.sites)
        verdict = judge(z, refresh.used, free, kept, shots=refresh.shots)
        lesson = surprise = None
        if self._tracker is not None:
            there = [values[rows] for values, rows in zip(z, kept, strict=True) if len(rows)]
            lesson = self._tracker.learn(
                take(refresh.work, kept),
                there,
                shots=refresh.shots,
                at=first.executed_at or settled,
                sites=[s[rows] for s, rows in zip(refresh.sites, kept, strict=True) if len(rows)],
                physical=first.physical_qubits,
            )
            whole = [np.arange(len(values)) for values in there]
            surprise = judge(there, lesson.predicted, None, whole, shots=refresh.shots).e_sq
        self.last = self._snapshot(refresh, z)
        return Taught(z, sum(map(len, kept)), verdict, lesson, surprise, self.last)

    def _snapshot(self, refresh: Refresh, z: list[NDArray[np.float64]]) -> Snapshot:
        last = self.last
        before = -1 if last is None or last.measured_at is None else last.measured_at
        newest = max(refresh.step, before)
        spread = float(np.sqrt(np.nanmean(np.concatenate([v.ravel() for v in z]) ** 2)))
        if self._between == "twin" and self._tracker is not None:
            return Snapshot("tracked", refresh.step, newest, self._tracker.estimate, (), spread)
        old, whole = refresh.used, not any(np.isnan(v).any() for v in z)
        if last is not None and last.rung == "measured" and _same_shapes(last.z, z):
            old = list(last.z)
            if refresh.step < before:  # a late one changes nothing that was measured since
                z, whole = old, last.whole
        held = tuple(np.where(np.isnan(v), o, v) for v, o in zip(z, old, strict=True))
        return Snapshot("measured", refresh.step, newest, None, held, spread, whole)


def _same_shapes(a: tuple[NDArray[np.float64], ...], b: list[NDArray[np.float64]]) -> bool:
    return [x.shape for x in a] == [y.shape for y in b]
