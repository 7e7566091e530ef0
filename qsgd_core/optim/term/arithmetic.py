"""The arithmetic of the term: -lr·λ·s⊙g, and its rescaling to the base step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from qsgd_core.optim.coordinates.selection import Bucket

RMS_FLOOR = 1e-12
"""Below this RMS(Q) the normalised term is zero."""


Factor = float | torch.Tensor
"""A number or 0-dim tensor for a whole bucket, or (n_members,)."""


def per_member(bucket: Bucket, values: Mapping[int, float | torch.Tensor]) -> Factor:
    """One factor per group, as one per parameter: a number or 0-dim tensor if all are in one."""
    if len(bucket.groups) == 1:
        value = values[bucket.groups[0]]
        # torch takes an lr of any shape that holds one number.
        return value.to(bucket.device).reshape(()) if isinstance(value, torch.Tensor) else value
    each = {
        i: torch.as_tensor(value, dtype=bucket.dtype, device=bucket.device).reshape(())
        for i, value in values.items()
    }
    return torch.stack([each[m.group] for m in bucket.members])


def spread(bucket: Bucket, factor: Factor) -> Factor:
    """One factor per parameter, as one per coordinate: (n_members,) -> (M,)."""
    if not isinstance(factor, torch.Tensor) or factor.dim() == 0:
        return factor
    return torch.repeat_interleave(factor, bucket.own_lengths_tensor, output_size=bucket.own_total)


def is_normalized(bucket: Bucket, param_groups: Sequence[Mapping[str, Any]]) -> bool:
    """Whether some of the bucket's groups have their term rescaled to the base step."""
    return any(param_groups[i]["normalize"] is not None for i in bucket.groups)


def factors(
    bucket: Bucket, param_groups: Sequence[Mapping[str, Any]], sums: torch.Tensor | None
) -> Factor:
    """What Q is multiplied by: -lr·λ, or with ``normalize`` -λ·RMS(base step)/RMS(Q).

    Args:
        bucket: the coordinates.
        param_groups: the optimizer's.
        sums: (n_members, 2), sums of squares of Q and of the base step over each parameter's
            selected coordinates, on all ranks; needed where :func:`is_normalized`.
    """
    groups = {i: param_groups[i] for i in bucket.groups}
    plain = {
        i: -g["lr"] * g["quantum_weight"] if g["inject"] == "update" else 0.0
        for i, g in groups.items()
    }
    if sums is None or not is_normalized(bucket, param_groups):
        return per_member(bucket, plain)
    rescaled = per_member(bucket, {i: -g["quantum_weight"] for i, g in groups.items()})
    scaled = _ratio(bucket, sums) * rescaled
    if all(g["normalize"] == "update" for g in groups.values()):
        return scaled
    chosen = per_member(bucket, {i: float(g["normalize"] == "update") for i, g in groups.items()})
    return torch.where(
        torch.as_tensor(chosen, device=bucket.device) > 0, scaled, per_member(bucket, plain)
    )


def _ratio(bucket: Bucket, sums: torch.Tensor) -> torch.Tensor:
    """RMS(base)/RMS(Q) of each parameter over its selected coordinates: (n_members,)."""
    q_sq, base_sq = sums.unbind(1)
    dead = (q_sq / bucket.lengths_tensor).sqrt() < RMS_FLOOR
    return torch.where(dead, torch.zeros_like(q_sq), (base_sq / q_sq).sqrt())


def as_gradient(
    optimizer: torch.optim.Optimizer, bucket: Bucket, grad: torch.Tensor
) -> torch.Tensor:
    """g of the objective that is minimised: unscaled, and negated for ``maximize``.

    Args:
        optimizer: one to which a GradScaler hands its scale (fused) has it in ``grad_scale``.
        bucket: the coordinates.
        grad: (M,), as read from the parameters' ``grad``.

    Returns:
        (M,); ``grad`` itself where there is nothing to undo.
    """
    scale = getattr(optimizer, "grad_scale", None)
    if scale is not None:
        grad = grad / scale.to(grad.device)
    signs = {i: -1.0 if optimizer.param_groups[i].get("maximize") else 1.0 for i in bucket.groups}
    if all(sign > 0 for sign in signs.values()):
        return grad
    return grad * spread(bucket, per_member(bucket, signs))
