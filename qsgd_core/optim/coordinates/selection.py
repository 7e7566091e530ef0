"""Which coordinates carry the term, as buckets of tensors that are handled in one go.

A bucket is one flat vector: the selected coordinates of its parameters, one parameter after the
other. Its blocks say which positions of that vector form the circuits. Where parameters are cut
over ranks, that whole vector (L,) is the same on every rank, and each rank reads and writes its own
stretches of it (M,); elsewhere L = M.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from qsgd_core.errors import ConfigError
from qsgd_core.measure.ranks import Ranks
from qsgd_core.optim.coordinates import memory as coordinates
from qsgd_core.optim.coordinates.blocks import block_sizes, cut_blocks
from qsgd_core.optim.coordinates.shards import (
    LocalRange,
    is_distributed,
    local,
    local_grad,
    share_of,
)

MAX_BUCKET = 1 << 22
"""Coordinates of one bucket, roughly: bounds the working memory of scope ``all``."""

SMALL_BUCKET = 1 << 14
"""Coordinates up to which a bucket keeps a staging buffer, cut into its members once for all."""


@dataclass(frozen=True)
class Member:
    """A parameter's part in a bucket: its first ``length`` coordinates, on whichever ranks."""

    param: torch.Tensor
    length: int
    group: int
    name: str
    share: LocalRange

    @property
    def own(self) -> slice:
        """Those of its ``length`` coordinates that are on this rank."""
        return slice(min(self.share.start, self.length), min(self.share.stop, self.length))


class Bucket:
    """Parameters that share device, dtype and (except under scope ``model``) group.

    Attributes:
        members: the parameters, in order.
        lengths: selected coordinates of each, L in all.
        own_lengths: those of them that are on this rank, M in all.
        blocks: the blocks, by size; positions in (L,).
        ranks: those that share a parameter of this bucket; None when all of it is here, L = M.
        device: where the flat vector lives.
        dtype: what is computed in: float64 if a parameter is float64, else float32.
    """

    def __init__(self, members: Sequence[Member], sizes: Sequence[Sequence[int]]) -> None:
        self.members = tuple(members)
        self.lengths = [m.length for m in members]
        self.total = sum(self.lengths)
        self.own_lengths = [m.own.stop - m.own.start for m in members]
        self.own_total = sum(self.own_lengths)
        self.ranks = _ranks(members)
        self.device = members[0].param.device
        wide = any(_real_dtype(m.param.dtype) == torch.float64 for m in members)
        self.dtype = torch.float64 if wide else torch.float32
        self.groups = sorted({m.group for m in members})
        self.blocks = cut_blocks(sizes, self.device)
        self._uniform = len({(m.param.device, m.param.dtype) for m in members}) == 1
        self._distributed = any(is_distributed(m.param) for m in members)
        dense = self._uniform and not self._distributed
        self._quick = dense and not members[0].param.is_complex()
        self._params = [m.param for m in members]
        self._spans = [(m.param, (k,)) for m, k in zip(members, self.own_lengths, strict=True)]
        self._pointers: list[int] = []
        self._windows: list[torch.Tensor] | None = None
        self._staging: torch.Tensor | None = None
        self._staged: list[torch.Tensor] = []

    @cached_property
    def lengths_tensor(self) -> torch.Tensor:
        """int64 (n_members,) on the bucket's device: :attr:`lengths`."""
        return torch.tensor(self.lengths, device=self.device)

    @cached_property
    def own_lengths_tensor(self) -> torch.Tensor:
        """int64 (n_members,) on the bucket's device: :attr:`own_lengths`."""
        return torch.tensor(self.own_lengths, device=self.device)

    def look(self) -> None:
        """Take note of parameters whose memory was replaced; call before reads and writes."""
        params = self._own_params()
        pointers = list(map(torch.Tensor.data_ptr, params))
        if pointers != self._pointers:
            self._pointers = pointers
            parts = zip(params, self.own_lengths, strict=True)
            views = [coordinates.window(p.detach(), length) for p, length in parts]
            complete = [v for v in views if v is not None]
            self._windows = complete if self._uniform and len(complete) == len(views) else None

    def read_params(self) -> torch.Tensor:
        """θ of the selected coordinates on this rank: a fresh (M,) in :attr:`dtype`."""
        if self._windows is not None:
            return torch.cat(self._windows).to(self.dtype)
        parts = zip(self._own_params(), self.own_lengths, strict=True)
        return self._join([coordinates.read(p.detach(), length) for p, length in parts])

    def read_grads(self) -> torch.Tensor:
        """g of the same coordinates: a fresh (M,) in :attr:`dtype`; 0 where there is none."""
        if not self._quick:
            return self._join([_read_grad(p, k) for p, (k,) in self._spans])
        parts = []
        for param, shape in self._spans:
            grad = param.grad
            if grad is not None and grad.layout is torch.strided and grad.is_contiguous():
                parts.append(grad.as_strided(shape, (1,)))
            else:
                parts.append(_read_grad(param, shape[0]))
        return torch.cat(parts).to(self.dtype)

    def own(self, flat: torch.Tensor) -> torch.Tensor:
        """What of (L,) is on this rank: (M,)."""
        if self.ranks is None:
            return flat
        parts = zip(flat.split(self.lengths), self.members, strict=True)
        return torch.cat([part[member.own] for part, member in parts])

    def contribution(self, own: torch.Tensor) -> torch.Tensor:
        """(M,) -> (L,) whose sum over :attr:`ranks` is the whole vector."""
        flat = own.new_zeros(self.total)
        parts = zip(flat.split(self.lengths), own.split(self.own_lengths), strict=True)
        for member, (whole, part) in zip(self.members, parts, strict=True):
            if self.speaks_for(member):
                whole[member.own] = part
        return flat

    def speaks_for(self, member: Member) -> bool:
        """Whether this rank speaks for what it has of ``member`` in a sum over :attr:`ranks`."""
        return member.share.ranks is not None or self.ranks is None or self.ranks.is_lead

    def scatter(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Undo :meth:`Blocks.take`: (n_blocks, size) for each of :attr:`blocks` -> (L,)."""
        if len(self.blocks) == 1:
            return parts[0].reshape(-1)
        flat = parts[0].new_empty(self.total)
        for blocks, part in zip(self.blocks, parts, strict=True):
            flat[blocks.positions] = part
        return flat

    def add_to_params(self, term: torch.Tensor) -> None:
        """Add ``term`` (M,) to the parameters, computed in :attr:`dtype`, rounded once."""
        if self._windows is not None and self.total <= SMALL_BUCKET:
            if self._staging is None:
                self._staging = torch.empty_like(term)
                self._staged = list(self._staging.split(self.own_lengths))
            self._staging.copy_(term)
            torch._foreach_add_(self._windows, self._staged)
            return
        for param, part in zip(self._own_params(), term.split(self.own_lengths), strict=True):
            coordinates.add_(param.detach(), part.to(param.device))

    def _own_params(self) -> list[torch.Tensor]:
        """The parameters, or what of each is on this rank."""
        return [local(p) for p in self._params] if self._distributed else self._params

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
        ConfigError: a parameter whose coordinates lie on the ranks in an unknown way.
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
    families: dict[tuple[torch.device, torch.dtype, Ranks | None], list[Member]] = {}
    for p in group["params"]:
        if only is not None and p not in only:
            continue
        share = share_of(p, names[p])
        length = coordinates.count(p) if group["scope"] == "all" else min(n, coordinates.count(p))
        if length:
            member = Member(p, length, index, names[p], share)
            families.setdefault((p.device, p.dtype, share.ranks), []).append(member)
    for members in families.values():
        for part in _chunks(members):
            yield Bucket(part, [block_sizes(m.length, n) for m in part])


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
        share = share_of(p, names[p])
        left = param_groups[owner[p]]["n_qubits"] if left is None else left
        length = min(left, coordinates.count(p))
        if length:
            members.append(Member(p, length, owner[p], names[p], share))
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


def _ranks(members: Sequence[Member]) -> Ranks | None:
    found = {m.share.ranks: m.name for m in members if m.share.ranks is not None}
    if len(found) > 1:
        names = " and ".join(map(repr, found.values()))
        raise ConfigError(
            f"The coordinates of one block lie in {names}, which are sharded over different ranks. "
            'Use scope="tensor", or a smaller n_qubits.'
        )
    return next(iter(found), None)


def _read_grad(param: torch.Tensor, length: int) -> torch.Tensor:
    grad = local_grad(param)
    if grad is None:
        return torch.zeros(length, dtype=_real_dtype(param.dtype), device=param.device)
    return coordinates.read(grad.detach(), length)


def _real_dtype(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_complex else dtype
