"""A classical twin of the device: predicts ⟨observables⟩ from an estimate of its noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Workload
from qsgd_core.schedule.twin import models
from qsgd_core.schedule.twin.estimate import Estimate
from qsgd_core.schedule.twin.prior import nominal

__all__ = ["Estimate", "Twin", "nominal"]


class Twin:
    """Predicts what the device that an estimate describes would answer; never changes.

    Args:
        estimate: from :func:`nominal` or :class:`qsgd_core.schedule.twin.tracking.Tracker`.
    """

    def __init__(self, estimate: Estimate) -> None:
        self.estimate = estimate
        named = [site for group in estimate.groups for site in group.sites]
        self._table = self._sized(1 + max([*named, *estimate.nominal], default=0))

    def predict(
        self, work: Workload, sites: Sequence[NDArray[np.intp]] | None = None
    ) -> list[NDArray[np.float64]]:
        """⟨observables⟩ without shot noise: float64 (B, n_observables) per batch.

        Args:
            work: the logical workload.
            sites: int (B, n) per batch, the site of each row's qubits; None means 0 … n-1. A site
                of which nothing is known has the vendor's figures, or typical ones.

        Raises:
            CapabilityError: a circuit of ``work`` has no twin.
        """
        predicted = []
        for i, batch in enumerate(work.batches):
            models.check(batch)
            if sites is None:
                where = np.arange(batch.circuit.n_qubits)
                table = self._table_for(batch.circuit.n_qubits)
            else:
                where = sites[i]
                table = self._table_for(1 + int(where.max()))
            predicted.append(models.predict(batch, where, table))
        return predicted

    def _table_for(self, n_sites: int) -> models.SiteTable:
        # A wider table replaces the shorter one whole, so that readers in other threads are safe.
        if n_sites > len(self._table.nominal):
            self._table = self._sized(n_sites)
        return self._table

    def _sized(self, n_sites: int) -> models.SiteTable:
        return models.SiteTable.of(self.estimate, n_sites)
