"""An extended Kalman filter that learns a device's noise from every result.

Sites that never share a circuit are independent, so each group of sites that do has a covariance
of its own; groups join when a circuit joins them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import CircuitBatch, Workload
from qsgd_core.errors import ConfigError
from qsgd_core.schedule.twin import kalman, models
from qsgd_core.schedule.twin.clusters import Cluster, clusters, group_of, without
from qsgd_core.schedule.twin.estimate import Estimate, Group, Kind
from qsgd_core.schedule.twin.prior import moved_to

Floats = NDArray[np.float64]
Sites = NDArray[np.intp]

MODEL_FLOOR = 4e-5
"""Variance that the model leaves unexplained, (0.6 %)², added to shot noise."""

ALARM = 3.0
"""How much likelier, as a logarithm, a result must be if the device was recalibrated before it."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What one result taught.

    Attributes:
        nis: mean of innovation² over its expected value: about 1 when the filter is as wrong as
            it believes to be.
        alarm: whether the device seems to have been recalibrated since the last result.
        n_rows: rows compared.
        predicted: ⟨observables⟩ as predicted before learning, float64 (B, n_obs) per batch.
        variance: what the filter expected of (predicted - true)², same shapes.
    """

    nis: float
    alarm: bool
    n_rows: int
    predicted: tuple[Floats, ...]
    variance: tuple[Floats, ...]


class Tracker:
    """Learns results one after the other; :attr:`estimate` is always ready to predict from.

    The same lessons in the same order give the same bits.

    Args:
        estimate: where to start, or where another tracker left off.
    """

    def __init__(self, estimate: Estimate) -> None:
        self.estimate = estimate

    def learn(
        self,
        work: Workload,
        z: Sequence[Floats],
        *,
        shots: int,
        at: float,
        sites: Sequence[Sites] | None = None,
        physical: Sequence[int] | None = None,
    ) -> Lesson:
        """Compare a result with the prediction, and move the estimate towards it.

        Results may come late and out of order. One that ran before the newest teaches less, by as
        much as the parameters may have moved since; it raises no alarm, and nothing is learned
        from it if it is from before a recalibration. The first result about some sites raises none
        either: there is nothing that it could be another device than.

        The alarm compares two explanations of the result by their likelihood: the belief as it
        is, and the belief after a recalibration. Unlike a bound on ``nis`` this looks in the
        directions in which parameters move the outcome, and few rows say less than many. With 29
        rows of 4 qubits and a recalibration halfway, over 40 simulated devices that the threshold
        was not chosen on: at 1024 shots the first result after it was found 39 times (nis > 1.4:
        37), with no false alarm in 928 results (nis: 7); at 256 shots 24 times (nis: 13), with
        none in 280 (nis: 2).

        Args:
            work: the logical workload as it was measured.
            z: measured ⟨observables⟩, float64 (B, n_obs) per batch.
            shots: per row, at least 1.
            at: when it ran, seconds since the epoch.
            sites: int (B, n) per batch, the site of each row's qubits; None means 0 … n-1.
            physical: physical qubit of each site, if the result says so. A site whose physical
                qubit is no longer the same starts afresh from the vendor's figures.

        Raises:
            ConfigError: shots below 1, or shapes that do not fit.
            CapabilityError: a circuit of ``work`` has no twin.
        """
        where = _where(work, sites)
        _check(work, z, shots)
        state, elsewhere = self._placed(where, physical, at)
        known = [np.array(group.sites) for group in state.groups]
        table = models.SiteTable.of(state, 1 + max(int(sites.max()) for sites in [*where, *known]))
        seen = [
            _Seen.of(batch, y, part, table, shots)
            for batch, y, part in zip(work.batches, z, where, strict=True)
        ]
        # Sites whose parameters one observable mixes must be believed jointly from now on; sites
        # that no observable connects stay apart, so that a wide device costs many small updates
        # and not one of its whole width cubed:
        #     rows on (0 1 2) and (2 3), another on (5 6)  ->  clusters {0 1 2 3} and {5 6}
        alone, found = clusters(state.groups, [(s.kind, s.sites) for s in seen], at)
        parts = [_Part.of(cluster, seen, table, at, elsewhere) for cluster in found]
        # A recalibration is often the whole device's, and each group sees only a few rows of it.
        everywhere = sum(part.evidence for part in parts) > ALARM
        alarms = [part.teaches_alarm(everywhere) for part in parts]
        groups = [p.group(at if alarm else None) for p, alarm in zip(parts, alarms, strict=True)]
        self.estimate = replace(
            state,
            version=state.version + 1,
            groups=tuple(sorted([*alone, *groups], key=lambda g: (g.kind, g.sites))),
        )
        return _lesson(seen, parts, alarm=any(alarms))

    def _placed(
        self, where: list[Sites], physical: Sequence[int] | None, at: float
    ) -> tuple[Estimate, bool]:
        """The estimate on the result's physical qubits; whether those are already given up."""
        state = self.estimate
        if physical is None:
            return state, False
        used = {int(site) for part in where for site in np.unique(part)}
        now = {site: int(physical[site]) for site in used if site < len(physical)}
        changed = {s for s, qubit in now.items() if state.physical.get(s, qubit) != qubit}
        held = [group for group in state.groups if changed.intersection(group.sites)]
        if any(group.at > at for group in held):
            return state, True
        kept = [without(g, changed) if g in held else g for g in state.groups]
        return replace(
            moved_to(state, {site: now[site] for site in changed}),
            groups=tuple(group for group in kept if group is not None),
            physical={**state.physical, **now},
        ), False


@dataclass(frozen=True, eq=False)
class _Seen:
    """One batch of the result beside its prediction.

    Attributes:
        kind: model of its circuit.
        line: prediction and slope.
        sites: (B, n_obs, w), the site of each slope.
        innovation, noise: (B, n_obs), measured minus predicted, and the variance of measuring.
    """

    kind: Kind
    line: models.Linear
    sites: Sites
    innovation: Floats
    noise: Floats

    @classmethod
    def of(
        cls, batch: CircuitBatch, y: Floats, where: Sites, table: models.SiteTable, shots: int
    ) -> _Seen:
        line = models.linearise(batch, where, table)
        noise = np.maximum(1.0 - line.z**2, 0.0) / shots + MODEL_FLOOR
        kind = models.kind_of(batch.circuit)
        return cls(kind, line, where[:, line.qubits], np.asarray(y) - line.z, noise)

    def of_cluster(self, cluster: Cluster) -> NDArray[np.bool_]:
        """(B, n_obs): which observables depend on the cluster's sites."""
        # The first site speaks for all: a cluster has every site of an observable, or none.
        inside = np.isin(self.sites[:, :, 0], cluster.sites)
        return inside & (self.kind == cluster.kind)

    def slope(self, cluster: Cluster, chosen: NDArray[np.bool_]) -> Floats:
        """(m, d): of the chosen observables, by the cluster's parameters."""
        sites, slope = self.sites[chosen], self.line.slope[chosen]
        rows, _, count = slope.shape
        dense = np.zeros((rows, len(cluster.sites), count))
        places = np.searchsorted(cluster.sites, sites)  # a cluster's sites are sorted
        np.add.at(dense, (np.arange(rows)[:, None], places), slope)
        return dense.reshape(rows, -1)


@dataclass(frozen=True, eq=False)
class _Part:
    """What the result says to one cluster.

    Attributes:
        limits: what its parameters can be, least and most, (d,) each.
        chosen: per batch (B, n_obs), the observables that depend on it.
        quiet, shaken: learned as if nothing happened, and as if after a recalibration.
        late: whether it ran before the newest result.
        ignored: whether it teaches nothing.
    """

    cluster: Cluster
    limits: tuple[Floats, Floats]
    chosen: list[NDArray[np.bool_]]
    quiet: kalman.Learned
    shaken: kalman.Learned
    late: bool
    ignored: bool

    @classmethod
    def of(
        cls,
        cluster: Cluster,
        seen: list[_Seen],
        table: models.SiteTable,
        at: float,
        elsewhere: bool,
    ) -> _Part:
        chosen = [batch.of_cluster(cluster) for batch in seen]
        pairs = [(batch, some) for batch, some in zip(seen, chosen, strict=True) if some.any()]
        slope = np.concatenate([batch.slope(cluster, some) for batch, some in pairs])
        noise = np.concatenate([batch.noise[some] for batch, some in pairs])
        innovation = np.concatenate([batch.innovation[some] for batch, some in pairs])
        # What the parameters may have moved between a late result and the newest is noise to it.
        noise += kalman.forgotten(cluster.now - at) * np.einsum("md,md->m", slope, slope)
        quiet = kalman.learn(cluster.belief, slope, noise, innovation)
        shaken = kalman.learn(kalman.reset(cluster.belief), slope, noise, innovation)
        late = at < cluster.now
        old = cluster.since is not None and at < cluster.since
        # A late result that a recalibration would explain is the old device's: not to be learned.
        contradicts = late and shaken.log_likelihood - quiet.log_likelihood > ALARM
        least, most = models.limits(cluster.kind, table.nominal[list(cluster.sites)])
        limits = (least.ravel(), most.ravel())
        return cls(cluster, limits, chosen, quiet, shaken, late, elsewhere or old or contradicts)

    @property
    def evidence(self) -> float:
        """Log likelihood ratio for a recalibration; 0 where it could not be told."""
        # Where nothing was known, a surprise says that the vendor's figures are wrong, no more.
        if self.late or self.ignored or not self.cluster.known:
            return 0.0
        return self.shaken.log_likelihood - self.quiet.log_likelihood

    def teaches_alarm(self, everywhere: bool) -> bool:
        """Whether this cluster starts afresh."""
        told = self.cluster.known and not (self.late or self.ignored)
        return told and (everywhere or self.evidence > ALARM)

    def group(self, recalibrated: float | None) -> Group:
        """The cluster as it is now known, recalibrated at that time or not at all."""
        if self.ignored and recalibrated is None:
            return group_of(self.cluster, self.cluster.belief, self.cluster.since)
        # A device without noise leaves only shot noise to learn, which pulls rates below 0. Were
        # they cut off in the prediction alone, the others would make up for what is not there, a
        # result at other angles would contradict them, and look like a recalibration.
        learned, since = self.quiet, self.cluster.since
        if recalibrated is not None:
            learned, since = self.shaken, recalibrated
        return group_of(self.cluster, kalman.within(learned.belief, *self.limits), since)


def _where(work: Workload, sites: Sequence[Sites] | None) -> list[Sites]:
    """The site of every row's qubits, (B, n) per batch."""
    shapes = [(batch.n_rows, batch.circuit.n_qubits) for batch in work.batches]
    if sites is None:
        return [np.broadcast_to(np.arange(n), (rows, n)) for rows, n in shapes]
    found = [np.asarray(part) for part in sites]
    if [part.shape for part in found] != shapes:
        raise ConfigError(
            f"A workload of batches (rows, qubits) {shapes} needs sites of these shapes; found "
            f"{[part.shape for part in found]}."
        )
    return found


def _check(work: Workload, z: Sequence[Floats], shots: int) -> None:
    expected = [(batch.n_rows, len(batch.observables)) for batch in work.batches]
    found = [np.shape(part) for part in z]
    if found != expected:
        raise ConfigError(f"Measured values must have the shapes {expected}; found {found}.")
    if shots < 1:
        raise ConfigError(f"A result has at least 1 shot a row, not {shots}.")
    for batch in work.batches:
        models.check(batch)


def _lesson(seen: list[_Seen], parts: list[_Part], *, alarm: bool) -> Lesson:
    variance = [np.zeros(batch.line.z.shape) for batch in seen]
    for part in parts:
        start = 0
        for i, chosen in enumerate(part.chosen):
            stop = start + int(chosen.sum())
            variance[i][chosen] = part.quiet.spread[start:stop]
            start = stop
    scores = [
        batch.innovation**2 / (spread + batch.noise)
        for batch, spread in zip(seen, variance, strict=True)
    ]
    return Lesson(
        nis=float(np.mean(np.concatenate([score.ravel() for score in scores]))),
        alarm=alarm,
        n_rows=sum(len(batch.line.z) for batch in seen),
        predicted=tuple(batch.line.z for batch in seen),
        variance=tuple(variance),
    )
