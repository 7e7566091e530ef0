"""The fallback ladder: the best snapshot that a step may use, and how old that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Workload
from qsgd_core.errors import CapabilityError
from qsgd_core.schedule.options import ScheduleOptions
from qsgd_core.schedule.packing.pieces import sites_in_turns
from qsgd_core.schedule.snapshot import Moment, Snapshot
from qsgd_core.schedule.twin.twin import Twin, nominal


class Ladder:
    """What there is to be used: the latest result or twin, the nominal twin, chance, nothing.

    Args:
        between: what the policy wants between refreshes.
        options: how old the latest may be, and how many blocks a refresh measures.

    Attributes:
        latest: the newest snapshot that hardware has had a part in.
        nominal: the free twin.
        measured: when the newest result in ``latest`` was measured.
    """

    def __init__(
        self,
        between: Literal["twin", "hold"],
        options: ScheduleOptions,
    ) -> None:
        self.latest: Snapshot | None = None
        self.nominal: Snapshot | None = None
        self.measured: Moment | None = None
        self._between = between
        self._options = options
        self._sites: tuple[Any, tuple[NDArray[np.intp], ...]] | None = None

    def best(self, work: Workload, *, step: int, age_s: float, tiles: int) -> Snapshot:
        """The highest rung that holds: the latest unless it is of other blocks or too old.

        Raises:
            CapabilityError: the policy needs a twin, and none is possible.
        """
        latest = self.latest
        fits = latest is not None and latest.fits(work)
        freeze = self._options.on_exhausted == "freeze"
        if latest and fits and (freeze or not self.is_stale(work, step=step, age_s=age_s)):
            return latest
        if self.nominal is None:
            self.nominal = self._typical(work, tiles)
        if self.nominal is not None:
            return self.nominal
        if latest is not None:
            return Snapshot("random", latest.refresh, latest.measured_at, spread=latest.spread)
        return Snapshot("zero")

    def is_stale(self, work: Workload, *, step: int, age_s: float) -> bool:
        """Whether the latest, asked for ``age_s`` seconds ago, is older than a bound allows."""
        bounds, measured = self._options, self.measured
        if measured is None:
            return False
        return (
            (bounds.max_age_steps is not None and step - measured.step > bounds.max_age_steps)
            or (bounds.max_age_s is not None and age_s > bounds.max_age_s)
            or (
                bounds.max_age_radians is not None
                and measured.radians_to(work) > bounds.max_age_radians
            )
        )

    def where(self, work: Workload, tiles: int) -> Sequence[NDArray[np.intp]]:
        """intp (B, n) a batch: each row's sites. Computed once for the same blocks."""
        key = (tiles, [(b.circuit.digest, b.n_rows) for b in work.batches])
        if self._sites is None or self._sites[0] != key:
            per_refresh = self._options.blocks_per_refresh or work.n_rows
            self._sites = (key, sites_in_turns(work, tiles=tiles, per_refresh=per_refresh))
        return self._sites[1]

    def _typical(self, work: Workload, tiles: int) -> Snapshot | None:
        """The twin of a typical device, as long as nothing is known of the one asked for."""
        where = self.where(work, tiles)
        try:
            estimate = nominal(None, work, where)
            Twin(estimate).predict(work, where)
        except CapabilityError:
            if self._between == "twin":
                raise
            return None
        return Snapshot("nominal", estimate=estimate)
