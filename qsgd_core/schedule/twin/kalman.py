"""The arithmetic of the filter: a Gaussian belief that ages, is reset, and learns. Pure.

Parameters are in units of their prior, N(0, 1), independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Floats = NDArray[np.float64]

WALK_S = 1200 * 86.4
"""Seconds (29 hours) in which what was learned fades to 1/e; vendors recalibrate about daily."""

KEPT_ON_RESET = 0.2
"""Share of the old covariance that is added to the prior's after a recalibration."""


@dataclass(frozen=True, eq=False)
class Belief:
    """Mean (d,) and covariance (d, d), symmetric and positive definite."""

    mean: Floats
    covariance: Floats


@dataclass(frozen=True, eq=False)
class Learned:
    """What an observation did to a belief.

    Attributes:
        belief: afterwards.
        log_likelihood: of the observation before it was learned, up to a term that depends on the
            observation's own noise only.
        spread: (m,), variance of the predicted observation without its noise.
    """

    belief: Belief
    log_likelihood: float
    spread: Floats


def prior(size: int) -> Belief:
    """Nothing is known yet."""
    return Belief(np.zeros(size), np.eye(size))


def joined(beliefs: Sequence[Belief]) -> Belief:
    """Independent beliefs as one."""
    size = sum(len(b.mean) for b in beliefs)
    covariance = np.zeros((size, size))
    start = 0
    for belief in beliefs:
        stop = start + len(belief.mean)
        covariance[start:stop, start:stop] = belief.covariance
        start = stop
    return Belief(np.concatenate([b.mean for b in beliefs]), covariance)


def taken(belief: Belief, kept: NDArray[np.intp]) -> Belief:
    """The belief about the parameters ``kept``, in that order."""
    return Belief(belief.mean[kept], belief.covariance[np.ix_(kept, kept)])


def forgotten(seconds: float) -> float:
    """Share of the variance that comes back in ``seconds``, in [0, 1)."""
    return -math.expm1(-max(0.0, seconds) / WALK_S)


def aged(belief: Belief, seconds: float) -> Belief:
    """The belief ``seconds`` later, under a random walk that is held to the prior.

    An Ornstein-Uhlenbeck process whose stationary law is the prior: for short times P grows by
    dt / WALK_S, as in a free random walk, but never beyond what is known a priori.
    """
    share = forgotten(seconds)
    covariance = (1.0 - share) * belief.covariance + share * np.eye(len(belief.mean))
    return Belief(math.sqrt(1.0 - share) * belief.mean, covariance)


def reset(belief: Belief) -> Belief:
    """The belief after a recalibration: the old mean, as uncertain as the prior and a bit more."""
    covariance = KEPT_ON_RESET * belief.covariance + np.eye(len(belief.mean))
    return Belief(belief.mean, covariance)


def within(belief: Belief, least: Floats, most: Floats) -> Belief:
    """The belief with its mean moved to the likeliest point that is possible.

    Minimises (x - m)ᵀ P⁻¹ (x - m) over least ≤ x ≤ most: estimate projection, D. Simon, IET Control
    Theory & Applications 4, 1303 (2010). What a rate below 0 had made up for goes back to the
    parameters that go with it, which cutting that rate off alone would not do. Solved as the least
    distance to some half-spaces: Lawson and Hanson, Solving Least Squares Problems, chapter 23.

    Args:
        belief: after learning.
        least: (d,), -inf where there is no limit; below ``most``.
        most: (d,), inf where there is no limit.
    """
    if ((least <= belief.mean) & (belief.mean <= most)).all():
        return belief
    # With P = LLᵀ and y = L⁻¹(x - m): the shortest y of which normals @ y >= beyond.
    root = np.linalg.cholesky(belief.covariance)
    low, high = np.isfinite(least), np.isfinite(most)
    normals = np.concatenate([root[low], -root[high]])
    beyond = np.concatenate([(least - belief.mean)[low], (belief.mean - most)[high]])
    goal = np.append(np.zeros(len(root)), 1.0)
    pulls, _ = nnls(np.vstack([normals.T, beyond]), goal)
    moved = root @ (normals.T @ pulls) / (1.0 - beyond @ pulls)
    return Belief(np.clip(belief.mean + moved, least, most), belief.covariance)


def learn(belief: Belief, slope: Floats, noise: Floats, innovation: Floats) -> Learned:
    """The Kalman update, in the form that keeps the covariance symmetric and positive definite.

    With P = LLᵀ and A = R^(-1/2) H L, the new covariance is L (1 + AᵀA)⁻¹ Lᵀ, where every
    eigenvalue of the bracket is at least 1; it is d × d however many observations there are.

    Args:
        belief: before.
        slope: H, (m, d).
        noise: diagonal of R, (m,), above 0.
        innovation: observed minus predicted, (m,).
    """
    # The textbook's P - K H P subtracts two large matrices: at 10**6 shots noise is so small that
    # rounding can leave negative eigenvalues. Here nothing is subtracted.
    root = np.linalg.cholesky(belief.covariance)
    projected = slope @ root
    spread = np.einsum("md,md->m", projected, projected)
    weight = 1.0 / np.sqrt(noise)
    projected *= weight[:, None]
    scaled = innovation * weight
    bracket = np.linalg.cholesky(projected.T @ projected + np.eye(len(root)))
    explained = np.linalg.solve(bracket, projected.T @ scaled)
    half = np.linalg.solve(bracket, root.T)
    # The innovation's law is N(0, H P Hᵀ + R): Woodbury gives its quadratic form, and the
    # determinant lemma its determinant, from the d × d bracket instead of an m × m matrix.
    log_likelihood = -0.5 * (scaled @ scaled - explained @ explained)
    log_likelihood -= float(np.log(np.diag(bracket)).sum())
    after = Belief(belief.mean + half.T @ explained, half.T @ half)
    return Learned(after, float(log_likelihood), spread)
