"""Which positions of a flat vector of coordinates form the circuits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Blocks:
    """Blocks of one size in a bucket.

    Attributes:
        size: coordinates, and qubits, of each block.
        positions: int64 (n_blocks, size) into the bucket's flat vector; None when the blocks are
            the vector itself, cut into rows.
        n_blocks: number of blocks.
    """

    size: int
    positions: torch.Tensor | None
    n_blocks: int

    def take(self, flat: torch.Tensor) -> torch.Tensor:
        """(L,) -> (n_blocks, size)."""
        return flat.view(-1, self.size) if self.positions is None else flat[self.positions]


def block_sizes(length: int, n: int) -> list[int]:
    """Block sizes of ``length`` coordinates: as many n as fit, then the remainder."""
    return [n] * (length // n) + ([length % n] if length % n else [])


def cut_blocks(sizes: Sequence[Sequence[int]], device: torch.device) -> tuple[Blocks, ...]:
    """Blocks of the given sizes, parameter by parameter along the flat vector."""
    flat = [size for member in sizes for size in member]
    if len(set(flat)) == 1:
        return (Blocks(flat[0], None, len(flat)),)
    size_of = torch.tensor(flat, device="cpu")
    start = torch.cumsum(size_of, 0) - size_of
    blocks = []
    for size in sorted(set(flat), reverse=True):
        first = start[size_of == size]
        positions = first[:, None] + torch.arange(size, device="cpu")
        blocks.append(Blocks(size, positions.to(device), len(first)))
    return tuple(blocks)
