"""Where a parameter's logical coordinates lie: all on this rank, or cut over several ranks.

FSDP2 (``fully_shard``) cuts the rows of a tensor as ``torch.chunk`` does: this rank's coordinates
are one stretch of the logical row-major order, and of the first n of the full tensor it holds the
first few of its own, or none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qsgd_core.errors import ConfigError
from qsgd_core.measure.ranks import Ranks
from qsgd_core.optim.coordinates import memory as coordinates

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class LocalRange:
    """The logical coordinates of a parameter that are on this rank: start ≤ i < stop.

    Attributes:
        start: first one.
        stop: behind the last one; start when there is none.
        ranks: who holds the others; None when all are here.
    """

    start: int
    stop: int
    ranks: Ranks | None


def share_of(param: torch.Tensor, name: str) -> LocalRange:
    """Which of a parameter's coordinates are on this rank.

    Raises:
        ConfigError: it is distributed in a way in which the term does not know its coordinates.
    """
    if getattr(param, "_fsdp_flattened", False):
        raise ConfigError(
            f"Parameter {name!r} belongs to FullyShardedDataParallel (FSDP1), which hides where "
            "its coordinates are. Use torch.distributed.fsdp.fully_shard (FSDP2), or DDP."
        )
    if not is_distributed(param):
        return LocalRange(0, coordinates.count(param), None)
    return _share_of_dtensor(param, name)  # type: ignore[arg-type]


def is_distributed(tensor: torch.Tensor) -> bool:
    """Whether it is a DTensor, without importing what defines those."""
    return hasattr(tensor, "full_tensor")


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that lies on this rank, to be read and written; shares memory."""
    return tensor.to_local() if is_distributed(tensor) else tensor  # type: ignore[attr-defined]


def local_grad(param: torch.Tensor) -> torch.Tensor | None:
    """The gradient of :func:`local`; shares memory.

    Raises:
        ConfigError: the gradient is laid out in another way than its parameter.
    """
    grad: Any = param.grad
    if grad is None or not is_distributed(grad):
        return param.grad
    if grad.placements != param.placements:  # type: ignore[attr-defined]
        raise ConfigError(
            f"A parameter is placed as {param.placements} over the ranks and its gradient as "  # type: ignore[attr-defined]
            f"{grad.placements}. Before opt.step(), do "
            "p.grad = p.grad.redistribute(placements=p.placements)."
        )
    return local(grad)


def _share_of_dtensor(param: DTensor, name: str) -> LocalRange:
    from torch.distributed.tensor import Replicate, Shard

    mesh, whole = param.device_mesh, coordinates.count(param)
    cuts = [
        (dim, placement)
        for dim, placement in enumerate(param.placements)
        if mesh.size(dim) > 1 and not isinstance(placement, Replicate)
    ]
    if not cuts:
        return LocalRange(0, whole, None)
    if len(cuts) > 1 or type(cuts[0][1]) is not Shard or cuts[0][1].dim != 0:
        raise _unknown(param, name, "only Replicate and one Shard(0) are known")
    dim = cuts[0][0]
    size, rank, rows = mesh.size(dim), mesh.get_local_rank(dim), param.shape[0]
    per_rank = -(-rows // size)
    first = min(rows, rank * per_rank)
    last = min(rows, first + per_rank)
    with torch.no_grad():
        found = param.to_local().shape[0]
    if found != last - first:
        raise _unknown(
            param, name, f"rank {rank} holds {found} rows where torch.chunk gives {last - first}"
        )
    row = whole // rows if rows else 0
    return LocalRange(first * row, last * row, Ranks(mesh.get_group(dim)))


def _unknown(param: DTensor, name: str, what: str) -> ConfigError:
    return ConfigError(
        f"Parameter {name!r} is placed as {param.placements} over the ranks; {what}. Shard it by "
        "torch.distributed.fsdp.fully_shard without a shard_placement_fn, or give it to an "
        "optimizer of its own that carries no term."
    )
