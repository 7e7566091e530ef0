"""The arithmetic of the filter: a Gaussian belief that ages, is reset, and learns. Pure.

Parameters are in units of their prior, N(0, 1), independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
