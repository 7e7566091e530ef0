"""What a step needs of other ranks when parameters are cut over them: θ and g, and sums of squares.

Each function is one collective a process group, and none where everything is here. Every rank must
call it for the same buckets, also one that holds none of their coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from qsgd_core.measure.ranks import Ranks
from qsgd_core.optim.coordinates.selection import Bucket


def is_shared(buckets: Sequence[Bucket]) -> bool:
    """Whether other ranks hold coordinates of these buckets."""
    return any(bucket.ranks is not None for bucket in buckets)


def gather(
    buckets: Sequence[Bucket], theta: Sequence[torch.Tensor], grad: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """θ and g of every selected coordinate, on every rank.

    A sum of vectors in which each rank has filled in its own coordinates: an all-gather would be
    padded to the longest part, and under scope ``tensor`` most parts are empty.

    Args:
        buckets: the coordinates.
        theta: θ, (M,) a bucket.
        grad: g, (M,) a bucket.

    Returns:
        θ and g, (L,) a bucket.
    """
    whole = [list(theta), list(grad)]
    shared: dict[Ranks, list[torch.Tensor]] = {}
    for i, bucket in enumerate(buckets):
        if bucket.ranks is not None:
            for column in whole:
                column[i] = bucket.contribution(column[i])
                shared.setdefault(bucket.ranks, []).append(column[i])
    for ranks, parts in shared.items():
        ranks.sum_(parts)
    return whole[0], whole[1]


def sum_squares(
    buckets: Sequence[Bucket], pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]
) -> list[torch.Tensor]:
    """Sums of squares over each parameter's selected coordinates, on all ranks.

    Args:
        buckets: the coordinates.
        pairs: two vectors, (M,) each, a bucket.

    Returns:
        (n_members, 2) a bucket.
    """
    sums = [squares(bucket, *pair) for bucket, pair in zip(buckets, pairs, strict=True)]
    shared: dict[Ranks, list[torch.Tensor]] = {}
    for bucket, part in zip(buckets, sums, strict=True):
        if bucket.ranks is not None:
            if silent := [i for i, m in enumerate(bucket.members) if not bucket.speaks_for(m)]:
                part[silent] = 0.0
            shared.setdefault(bucket.ranks, []).append(part)
    for ranks, parts in shared.items():
        ranks.sum_(parts)
    return sums


def squares(bucket: Bucket, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Sums of squares of a and b, (M,) each, over each parameter: (n_members, 2)."""
    both = torch.stack((a.square(), b.square()), dim=1)
    return torch.segment_reduce(both, "sum", lengths=bucket.own_lengths_tensor, axis=0)
