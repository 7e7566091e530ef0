"""Which sites share circuits: a result's sites joined with the groups that are known. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsgd_core.schedule.twin import kalman, models
from qsgd_core.schedule.twin.estimate import Group, Kind


@dataclass(frozen=True, eq=False)
class Cluster:
    """Sites that share circuits, with what is believed of them when a result ran.

    Attributes:
        kind, sites: as in :class:`Group`.
        belief: as of ``now``.
        now: when the result ran, or the newest result so far if that was later.
        since: as in :class:`Group`.
        known: whether any result so far was about it.
    """

    kind: Kind
    sites: tuple[int, ...]
    belief: kalman.Belief
    now: float
    since: float | None
    known: bool


def clusters(
    groups: Iterable[Group], used: Sequence[tuple[Kind, NDArray[np.intp]]], at: float
) -> tuple[list[Group], list[Cluster]]:
    """The groups that a result leaves alone, and the clusters that it is about.

    Args:
        groups: known so far.
        used: of each batch, its kind and the sites that its observables depend on, (..., w): those
            of one last axis share a circuit.
        at: when the result ran.
    """
    alone: list[Group] = []
    found: list[Cluster] = []
    for kind in models.COUNT:
        known = [group for group in groups if group.kind == kind]
        rows = [sites.reshape(-1, sites.shape[-1]) for of, sites in used if of == kind]
        sets = {frozenset(row) for part in rows for row in np.unique(part, axis=0).tolist()}
        touched = set().union(*sets)
        alone += [group for group in known if not touched.intersection(group.sites)]
        known = [group for group in known if touched.intersection(group.sites)]
        for sites in _joined([*sets, *(frozenset(group.sites) for group in known)]):
            members = [group for group in known if sites.issuperset(group.sites)]
            found.append(_cluster(kind, sites, members, at))
    return alone, found


def belief_of(group: Group) -> kalman.Belief:
    """A group's numbers as arrays."""
    size = len(group.mean)
    lower = np.zeros((size, size))
    lower[np.tril_indices(size)] = group.covariance
    return kalman.Belief(np.array(group.mean), lower + np.tril(lower, -1).T)


def group_of(cluster: Cluster, belief: kalman.Belief, since: float | None) -> Group:
    """A cluster's new belief as a group; the lower triangle stands for both."""
    size = len(belief.mean)
    return Group(
        cluster.kind,
        cluster.sites,
        tuple(belief.mean.tolist()),
        tuple(belief.covariance[np.tril_indices(size)].tolist()),
        cluster.now,
        since,
    )


def without(group: Group, gone: set[int]) -> Group | None:
    """The group without some sites; None if none is left."""
    kept = [i for i, site in enumerate(group.sites) if site not in gone]
    if not kept:
        return None
    belief = kalman.taken(belief_of(group), _places(kept, models.COUNT[group.kind]))
    sites = tuple(group.sites[i] for i in kept)
    return group_of(Cluster(group.kind, sites, belief, group.at, None, True), belief, group.since)


def _cluster(kind: Kind, sites: frozenset[int], members: list[Group], at: float) -> Cluster:
    now = max([at, *(group.at for group in members)])
    new = sorted(sites.difference(*(group.sites for group in members)))
    beliefs = [kalman.aged(belief_of(group), now - group.at) for group in members]
    beliefs.append(kalman.prior(models.COUNT[kind] * len(new)))
    order = [site for group in members for site in group.sites] + new
    ascending = np.argsort(order).tolist()
    return Cluster(
        kind,
        tuple(sorted(sites)),
        kalman.taken(kalman.joined(beliefs), _places(ascending, models.COUNT[kind])),
        now,
        max((group.since for group in members if group.since is not None), default=None),
        bool(members),
    )


def _places(positions: Sequence[int], count: int) -> NDArray[np.intp]:
    """Where the parameters of the sites at these positions stand."""
    return (np.array(positions)[:, None] * count + np.arange(count)).ravel()


def _joined(sets: Iterable[frozenset[int]]) -> list[frozenset[int]]:
    """The connected unions of overlapping sets, by their lowest member."""
    unions: list[set[int]] = []
    for one in sorted(sets, key=sorted):
        apart = [union for union in unions if union.isdisjoint(one)]
        overlapping = [union for union in unions if not union.isdisjoint(one)]
        unions = [*apart, set(one).union(*overlapping)]
    return sorted((frozenset(union) for union in unions), key=min)
