"""A measured s that several steps use: where it is kept, and how it survives a checkpoint.

It lies in ``optimizer.state[p]``, so that it travels with the optimizer. ``load_state_dict`` casts
every state tensor to its parameter's dtype, so s is carried around it. Of a parameter that is cut
over ranks each rank keeps the whole s, so that a checkpoint can be loaded on any number of ranks.

torch.distributed.checkpoint loads the keys that the new optimizer has, and no others. So where s is
held at all, NaN keeps its place until there is one.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch

from qsgd_core.optim.coordinates.selection import Bucket

S_KEY = "qsgd_s"
"""(m,) float32 or float64: the held modulation of the parameter's selected coordinates."""

State = MutableMapping[torch.Tensor, Any]
"""``optimizer.state``: one dict a parameter, made on first use."""


def read_held(state: State, buckets: Sequence[Bucket]) -> list[torch.Tensor] | None:
    """The held s, (L,) a bucket; None if a tensor that has a gradient now has none that fits."""
    values = []
    for bucket in buckets:
        parts = []
        for m in bucket.members:
            s = state[m.param].get(S_KEY) if m.param in state else None
            if m.param.grad is None:  # s is not used; only a place is kept for it
                s = torch.zeros(m.length, device=bucket.device)
            if s is None or len(s) != m.length:
                return None
            parts.append(s.to(bucket.device, bucket.dtype))
        values.append(torch.cat(parts))
    return values


def keep_held(state: State, buckets: Sequence[Bucket], values: Sequence[torch.Tensor]) -> None:
    """Hold s, (L,) a bucket, for the next steps; after the base optimizer made its own state.

    An optimizer takes an entry in ``state`` to mean that its own is there.
    """
    for bucket, flat in zip(buckets, values, strict=True):
        for member, s in zip(bucket.members, flat.split(bucket.lengths), strict=True):
            if member.param.grad is None:  # the base optimizer has no state for it yet
                continue
            # A copy; NaN where phases came from an infinite g. Only tensors of one or more axes may
            # lie here: torch.distributed.checkpoint cannot load other new keys (torch 2.13).
            state[member.param][S_KEY] = s.nan_to_num()


def reserve(state: State, buckets: Sequence[Bucket], *, stepped: bool) -> bool:
    """Keep places for s that is not there yet; whether there was one to keep.

    Args:
        state: the optimizer's.
        buckets: of all parameters that may come to hold s.
        stepped: the base optimizer has just stepped, so that a parameter with a gradient and
            without a state will never have one of its own.
    """
    found = False
    for bucket in buckets:
        for m in bucket.members:
            entry = state.get(m.param, {})
            if S_KEY not in entry and (entry or (stepped and m.param.grad is not None)):
                state[m.param][S_KEY] = torch.full(
                    (m.length,), torch.nan, dtype=bucket.dtype, device=m.param.device
                )
                found = True
    return found


def release(state: State) -> None:
    """Undo :func:`reserve` where no s has come."""
    for param, entry in list(state.items()):
        if isinstance(entry, dict) and S_KEY in entry and _is_reserved(entry[S_KEY]):
            del entry[S_KEY]
            if not entry:
                del state[param]


def drop_held(state: State) -> None:
    """Forget every held s."""
    for entry in state.values():
        if isinstance(entry, dict):
            entry.pop(S_KEY, None)


def held_values(state_dict: Mapping[str, Any]) -> dict[int, torch.Tensor]:
    """The held s in a state dict, by the parameter's position over all groups."""
    ids = [i for group in state_dict["param_groups"] for i in group["params"]]
    state = state_dict["state"]
    return {k: state[i][S_KEY] for k, i in enumerate(ids) if i in state and S_KEY in state[i]}


def restore_held(optimizer: torch.optim.Optimizer, held: Mapping[int, torch.Tensor]) -> None:
    """Put s back in the precision it was saved in, on each parameter's device."""
    for k, param in enumerate(p for group in optimizer.param_groups for p in group["params"]):
        if k in held:
            optimizer.state[param][S_KEY] = held[k].detach().clone().to(param.device)
    release(optimizer.state)


def _is_reserved(s: torch.Tensor) -> bool:
    return bool(s.isnan().any())
