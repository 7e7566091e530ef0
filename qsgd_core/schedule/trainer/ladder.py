"""The fallback ladder: the best snapshot that a step may use, and how old that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Workload
from qsgd_core.errors import CapabilityError
from qsgd_core.schedule.packing.pieces import sites_in_turns
from qsgd_core.schedule.snapshot import Moment, Snapshot
from qsgd_core.schedule.trainer.config import Staleness
from qsgd_core.schedule.twin.twin import Twin, nominal


class Ladder:
    """What there is to be used: the latest result or twin, the nominal twin, chance, nothing.

    Args:
        between: what the policy wants between refreshes.
        bounds: beyond them the latest is not used.
        freeze: use it however old.
        per_refresh: blocks that one refresh measures; None for all.

    Attributes:
        latest: the newest snapshot that hardware has had a part in.
        nominal: the free twin.
        measured: when the newest result in ``latest`` was measured.
    """

    def __init__(
        self,
        between: Literal["twin", "hold"],
        bounds: Staleness,
        *,
        freeze: bool,
        per_refresh: int | None,
    ) -> None:
        self.latest: Snapshot | None = None
        self.nominal: Snapshot | None = None
        self.measured: Moment | None = None
        self._between = between
        self._bounds = bounds
        self._freeze = freeze
        self._per_refresh = per_refresh
        self._sites: tuple[Any, tuple[NDArray[np.intp], ...]] | None = None

    def best(self, work: Workload, *, step: int, age_s: float, tiles: int) -> Snapshot:
        """The highest rung that holds: the latest unless it is of other blocks or too old.

        Raises:
            CapabilityError: the policy needs a twin, and none is possible.
        """
        latest = self.latest
        fits = latest is not None and latest.fits(work)
        if latest and fits and (self._freeze or not self.is_stale(work, step=step, age_s=age_s)):
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
        bounds, measured = self._bounds, self.measured
        if measured is None:
            return False
        return (
            (bounds.steps is not None and step - measured.step > bounds.steps)
            or (bounds.seconds is not None and age_s > bounds.seconds)
            or (bounds.radians is not None and measured.radians_to(work) > bounds.radians)
        )

    def where(self, work: Workload, tiles: int) -> Sequence[NDArray[np.intp]]:
        """intp (B, n) a batch: each row's sites. Computed once for the same blocks."""
        key = (tiles, [(b.circuit.digest, b.n_rows) for b in work.batches])
        if self._sites is None or self._sites[0] != key:
            per_refresh = self._per_refresh or work.n_rows
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
