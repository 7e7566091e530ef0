"""Which coordinates carry the term, as buckets of tensors that are handled in one go.

A bucket is one flat vector: the selected coordinates of its parameters, one parameter after the
other. Its blocks say which positions of that vector form the circuits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qsgd_core.errors import ConfigError
from qsgd_core.optim import coordinates

MAX_BUCKET = 1 << 22
"""Coordinates of one bucket, roughly: bounds the working memory of scope ``all``."""

SMALL_BUCKET = 1 << 14
"""Coordinates up to which a bucket keeps a staging buffer, cut into its members once for all."""


@dataclass(frozen=True)
class Member:
    """A parameter's part in a bucket: its first ``length`` coordinates."""

    param: torch.Tensor
    length: int
    group: int
    name: str


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


class Bucket:
    """Parameters that share device, dtype and (except under scope ``model``) group.

    Attributes:
        members: the parameters, in order.
        lengths: coordinates of each.
        blocks: the blocks, by size.
        device: where the flat vector lives.
        dtype: what is computed in: float64 if a parameter is float64, else float32.
    """

    def __init__(self, members: Sequence[Member], sizes: Sequence[Sequence[int]]) -> None:
        self.members = tuple(members)
        self.lengths = [m.length for m in members]
        self.total = sum(self.lengths)
        self.device = members[0].param.device
        wide = any(_real_dtype(m.param.dtype) == torch.float64 for m in members)
        self.dtype = torch.float64 if wide else torch.float32
        self.groups = sorted({m.group for m in members})
        self.blocks = _blocks(sizes, self.device)
        self._uniform = len({(m.param.device, m.param.dtype) for m in members}) == 1
        self._quick = self._uniform and not members[0].param.is_complex()
        self._spans = [(m.param, (m.length,)) for m in members]
        self._pointers: list[int] = []
        self._windows: list[torch.Tensor] | None = None
        self._lengths_tensor: torch.Tensor | None = None
        self._staging: torch.Tensor | None = None
        self._staged: list[torch.Tensor] = []

    def lengths_tensor(self) -> torch.Tensor:
        """int64 (n_members,) on the bucket's device."""
        if self._lengths_tensor is None:
            self._lengths_tensor = torch.tensor(self.lengths, device=self.device)
        return self._lengths_tensor

    def look(self) -> None:
        """Take note of parameters whose memory was replaced; call once before a step's reads."""
        pointers = [p.data_ptr() for p, _ in self._spans]
        if pointers != self._pointers:
            self._pointers = pointers
            views = [coordinates.window(m.param.detach(), m.length) for m in self.members]
            complete = [v for v in views if v is not None]
            self._windows = complete if self._uniform and len(complete) == len(views) else None

    def read_params(self) -> torch.Tensor:
        """θ of the selected coordinates: a fresh (L,) in :attr:`dtype`."""
        if self._windows is not None:
            return torch.cat(self._windows).to(self.dtype)
        return self._join([coordinates.read(m.param.detach(), m.length) for m in self.members])

    def read_grads(self) -> torch.Tensor:
        """g of the selected coordinates: a fresh (L,) in :attr:`dtype`; 0 where there is none."""
        if not self._quick:
            return self._join([_read_grad(m) for m in self.members])
        parts = []
        for member, (param, shape) in zip(self.members, self._spans, strict=True):
            grad = param.grad
            if grad is not None and grad.layout is torch.strided and grad.is_contiguous():
                parts.append(grad.as_strided(shape, (1,)))
            else:
                parts.append(_read_grad(member))
        return torch.cat(parts).to(self.dtype)

    def scatter(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Undo :meth:`Blocks.take`: (n_blocks, size) for each of :attr:`blocks` -> (L,)."""
        if len(self.blocks) == 1:
            return parts[0].reshape(-1)
        flat = parts[0].new_empty(self.total)
        for blocks, part in zip(self.blocks, parts, strict=True):
            flat[blocks.positions] = part
        return flat

    def add_to_params(self, term: torch.Tensor) -> None:
        """Add ``term`` (L,) to the parameters, computed in :attr:`dtype`, rounded once."""
        if self._windows is not None and self.total <= SMALL_BUCKET:
            if self._staging is None:
                self._staging = torch.empty_like(term)
                self._staged = list(self._staging.split(self.lengths))
            self._staging.copy_(term)
            torch._foreach_add_(self._windows, self._staged)
            return
        for member, part in zip(self.members, term.split(self.lengths), strict=True):
            coordinates.add_(member.param.detach(), part.to(member.param.device))

    def _join(self, parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([p.to(self.device, self.dtype) for p in parts])


def select(
    param_groups: Sequence[Mapping[str, Any]],
    active: Sequence[int],
    names: Mapping[torch.Tensor, str],
    *,
    only: set[torch.Tensor] | None,
) -> list[Bucket]:
    """Buckets of the active groups.

    Args:
        param_groups: the optimizer's, with the term's keys.
        active: indices of the groups that carry the term now.
        names: every parameter's name, in the model's order.
        only: parameters that have a gradient; None takes all.

    Raises:
        ConfigError: a sharded parameter.
    """
    owner = {p: i for i in active for p in param_groups[i]["params"]}
    buckets: list[Bucket] = []
    for i in active:
        group = param_groups[i]
        if group["scope"] != "model":
            buckets += _group_buckets(group, i, names, only)
    in_model = [p for p in names if p in owner and param_groups[owner[p]]["scope"] == "model"]
    buckets += _model_bucket(in_model, owner, param_groups, names, only)
    return buckets


def _group_buckets(
    group: Mapping[str, Any],
    index: int,
    names: Mapping[torch.Tensor, str],
    only: set[torch.Tensor] | None,
) -> Iterator[Bucket]:
    n = group["n_qubits"]
    families: dict[tuple[torch.device, torch.dtype], list[Member]] = {}
    for p in group["params"]:
        if only is not None and p not in only:
            continue
        _refuse_sharded(p, names[p])
        length = coordinates.count(p) if group["scope"] == "all" else min(n, coordinates.count(p))
        if length:
            member = Member(p, length, index, names[p])
            families.setdefault((p.device, p.dtype), []).append(member)
    for members in families.values():
        for part in _chunks(members):
            yield Bucket(part, [_cut(m.length, n) for m in part])


def _model_bucket(
    params: Iterable[torch.Tensor],
    owner: Mapping[torch.Tensor, int],
    param_groups: Sequence[Mapping[str, Any]],
    names: Mapping[torch.Tensor, str],
    only: set[torch.Tensor] | None,
) -> list[Bucket]:
    """The first n coordinates over the parameters in the model's order: one block.

    A parameter without a gradient keeps its place: the selection never depends on the batch.
    """
    members: list[Member] = []
    left: int | None = None
    for p in params:
        _refuse_sharded(p, names[p])
        left = param_groups[owner[p]]["n_qubits"] if left is None else left
        length = min(left, coordinates.count(p))
        if length:
            members.append(Member(p, length, owner[p], names[p]))
            left -= length
        if left == 0:
            break
    if only is not None and not any(m.param in only for m in members):
        return []
    return [Bucket(members, [[sum(m.length for m in members)]])] if members else []


def _chunks(members: list[Member]) -> Iterator[list[Member]]:
    part: list[Member] = []
    size = 0
    for member in members:
        if part and size + member.length > MAX_BUCKET:
            yield part
            part, size = [], 0
        part.append(member)
        size += member.length
    yield part


def _cut(length: int, n: int) -> list[int]:
    """Block sizes of ``length`` coordinates: as many n as fit, then the remainder."""
    return [n] * (length // n) + ([length % n] if length % n else [])


def _blocks(sizes: Sequence[Sequence[int]], device: torch.device) -> tuple[Blocks, ...]:
    flat = [size for member in sizes for size in member]
    if len(set(flat)) == 1:
        return (Blocks(flat[0], None, len(flat)),)
    size_of = torch.tensor(flat)
    start = torch.cumsum(size_of, 0) - size_of
    blocks = []
    for size in sorted(set(flat), reverse=True):
        first = start[size_of == size]
        positions = first[:, None] + torch.arange(size)
        blocks.append(Blocks(size, positions.to(device), len(first)))
    return tuple(blocks)


def _read_grad(member: Member) -> torch.Tensor:
    grad = member.param.grad
    if grad is None:
        return torch.zeros(
            member.length, dtype=_real_dtype(member.param.dtype), device=member.param.device
        )
    return coordinates.read(grad.detach(), member.length)


def _real_dtype(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_complex else dtype


def _refuse_sharded(param: torch.Tensor, name: str) -> None:
    if hasattr(param, "full_tensor"):
        raise ConfigError(
            f"Parameter {name!r} is sharded over ranks (a DTensor); the term needs whole tensors. "
            "Build the optimizer before sharding, or train with DDP."
        )
