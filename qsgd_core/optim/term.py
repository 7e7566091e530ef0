"""The arithmetic of the term: -lr·λ·s⊙g, and its rescaling to the base step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from qsgd_core.optim.selection import Bucket

RMS_FLOOR = 1e-12
"""Below this RMS(Q) the normalised term is zero."""


def per_coordinate(
    bucket: Bucket, values: Mapping[int, float | torch.Tensor]
) -> float | torch.Tensor:
    """One factor per group, spread over a bucket: a number or 0-dim tensor if all are in one."""
    if len(bucket.groups) == 1:
        value = values[bucket.groups[0]]
        # torch takes an lr of any shape that holds one number.
        return value.to(bucket.device).reshape(()) if isinstance(value, torch.Tensor) else value
    spread = {
        i: torch.as_tensor(value, dtype=bucket.dtype, device=bucket.device).reshape(())
        for i, value in values.items()
    }
    return torch.cat([spread[m.group].expand(m.length) for m in bucket.members])


def update_term(
    bucket: Bucket,
    q: torch.Tensor,
    base: torch.Tensor,
    param_groups: Sequence[Mapping[str, Any]],
) -> torch.Tensor:
    """What is added to the parameters: -lr·λ·Q, or with ``normalize`` -λ·Q·RMS(base)/RMS(Q).

    Args:
        bucket: the coordinates.
        q: (L,), s ⊙ g (paper, Eq. 2).
        base: (L,), the base optimizer's step: weights after - weights before.
        param_groups: the optimizer's.

    Returns:
        (L,) in the bucket's dtype.
    """
    groups = {i: param_groups[i] for i in bucket.groups}
    plain = {
        i: -g["lr"] * g["quantum_weight"] if g["inject"] == "update" else 0.0
        for i, g in groups.items()
    }
    if all(g["normalize"] is None for g in groups.values()):
        return q * per_coordinate(bucket, plain)
    rescaled = {i: -g["quantum_weight"] for i, g in groups.items()}
    scaled = q * _ratio(bucket, q, base) * per_coordinate(bucket, rescaled)
    if all(g["normalize"] == "update" for g in groups.values()):
        return scaled
    chosen = {i: float(g["normalize"] == "update") for i, g in groups.items()}
    return torch.where(
        torch.as_tensor(per_coordinate(bucket, chosen)) > 0,
        scaled,
        q * per_coordinate(bucket, plain),
    )


def _ratio(bucket: Bucket, q: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
    """RMS(base)/RMS(Q) of each parameter over its selected coordinates, spread to (L,)."""
    lengths = bucket.lengths_tensor()
    squares = torch.stack((q.square(), base.square()), dim=1)
    q_sq, base_sq = torch.segment_reduce(squares, "sum", lengths=lengths, axis=0).unbind(1)
    dead = (q_sq / lengths).sqrt() < RMS_FLOOR
    ratio = torch.where(dead, torch.zeros_like(q_sq), (base_sq / q_sq).sqrt())
    return torch.repeat_interleave(ratio, lengths, output_size=bucket.total)
