"""The end of a step: the term added to what the base optimizer made of the parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from qsgd_core.optim.coordinates.exchange import is_shared, squares, sum_squares
from qsgd_core.optim.coordinates.selection import Bucket
from qsgd_core.optim.term.arithmetic import factors, is_normalized, spread
from qsgd_core.optim.term.rounding import Rounding

ParamGroups = Sequence[Mapping[str, Any]]

Passed: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""The term as it came out of the base optimizer, and the step without it."""


@dataclass
class Added:
    """What a step added.

    Attributes:
        term_sq: 0-dim each, sums of squares of the term over all ranks.
        base_sq: the same of the base optimizer's step.
        known: whether those are of every coordinate that carried the term.
        advice: what the user should know about it.
    """

    term_sq: list[torch.Tensor] = field(default_factory=list)
    base_sq: list[torch.Tensor] = field(default_factory=list)
    known: bool = True
    advice: list[str] = field(default_factory=list)


def add_terms(
    buckets: Sequence[Bucket],
    theta: Sequence[torch.Tensor],
    q: Sequence[torch.Tensor],
    param_groups: ParamGroups,
    *,
    passed: Sequence[Passed] | None,
    found_inf: torch.Tensor | None,
    rounding: Rounding,
) -> Added:
    """Add the term to the parameters of the groups that inject it into the update.

    Args:
        buckets: the coordinates.
        theta: the weights that the base optimizer's step started from, (M,) a bucket.
        q: s ⊙ g, (M,) a bucket.
        param_groups: the optimizer's.
        passed: with ``inject="gradient"``, what became of the term in the base optimizer, and the
            step without it, (M,) each a bucket; None where nobody knows.
        found_inf: from a GradScaler; not 0 if this step was skipped.
        rounding: looks whether the term got through.
    """
    added = Added()
    for bucket in buckets:  # a step may put other memory under its parameters
        bucket.look()
    totals = _totals(buckets, theta, q, param_groups, passed)
    for i, bucket in enumerate(buckets):
        after = bucket.read_params()
        base = _finite(after - theta[i])
        total = totals[i]
        if _adds(bucket, param_groups):
            if total is None and is_normalized(bucket, param_groups):
                total = squares(bucket, _finite(q[i].clone()), base)
            factor = factors(bucket, param_groups, total)
            term = q[i] * spread(bucket, factor)
            if found_inf is not None:
                term = torch.where(found_inf.to(term.device) == 0, term, 0.0)
            bucket.add_to_params(term)
            if advice := rounding.advice(bucket, term, after):
                added.advice.append(advice)
        elif passed is not None:
            factor, (term, base) = 1.0, passed[i]
        else:
            added.known = False
            continue
        if bucket.ranks is None or total is None:
            added.term_sq.append(term.dot(term))
            added.base_sq.append(base.dot(base))
        else:  # the term is Q times one factor a parameter, which every rank knows
            added.term_sq.append((total[:, 0] * factor**2).sum())
            added.base_sq.append(total[:, 1].sum())
    return added


def _finite(values: torch.Tensor) -> torch.Tensor:
    """0 in place of what is infinite or NaN, in place: it must not reach the sums of others."""
    return values.nan_to_num_(0.0, 0.0, 0.0)


def _adds(bucket: Bucket, param_groups: ParamGroups) -> bool:
    return any(param_groups[i]["inject"] == "update" for i in bucket.groups)


def _totals(
    buckets: Sequence[Bucket],
    theta: Sequence[torch.Tensor],
    q: Sequence[torch.Tensor],
    param_groups: ParamGroups,
    passed: Sequence[Passed] | None,
) -> list[torch.Tensor | None]:
    """Where ranks share a step: sums of squares of Q (or the term) and of the base step.

    (n_members, 2) a bucket, over all ranks, for the buckets that need one: all in one collective.
    """
    totals: list[torch.Tensor | None] = [None] * len(buckets)
    if not is_shared(buckets):
        return totals
    pairs = {}
    for i, bucket in enumerate(buckets):
        if _adds(bucket, param_groups):
            pairs[i] = _finite(q[i].clone()), _finite(bucket.read_params() - theta[i])
        elif passed is not None:
            pairs[i] = passed[i]
    for i, total in zip(
        pairs, sum_squares([buckets[i] for i in pairs], list(pairs.values())), strict=True
    ):
        totals[i] = total
    return totals
