"""The effect size of ``inject="gradient"``: the base optimizer's rule on the raw gradients.

With ``inject="gradient"`` the term passes through the base optimizer, and no difference of weights
shows what it was. So the rule of the base optimizer runs beside it, on a copy of the selected
coordinates alone, with a state that has only ever seen raw gradients. From that state, one step
with g + λ·Q and one with g: their difference is the term. Nothing of the base optimizer is touched.

Known are torch's optimizers that treat each coordinate by itself. Of any other the effect size is
unknown: a step of it cannot be taken back where its state is in attributes, in parameter groups, in
consumed gradients or in random draws.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from qsgd_core.optim.coordinates import memory as coordinates
from qsgd_core.optim.coordinates.selection import Bucket
from qsgd_core.optim.coordinates.shards import local

SHADOW_KEY = "qsgd_shadow"
"""str of a state entry in a checkpoint, before the name that the base optimizer gives it."""

KNOWN: tuple[type[torch.optim.Optimizer], ...] = (
    torch.optim.Adadelta,
    torch.optim.Adagrad,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.Adamax,
    torch.optim.ASGD,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.Rprop,
    torch.optim.SGD,
)
"""Each coordinate's step depends on that coordinate alone."""

NOT_COPIED = {"fused": None, "foreach": None, "differentiable": False, "maximize": False}
"""Settings of a group that say how to compute, or of what sign g is, which the caller undoes."""

NUMBERS = ("step", "eta", "mu", "mu_product")
"""State that is one number a parameter, not one a coordinate."""

State = Mapping[torch.Tensor, Any]


def rule_of(optimizer: torch.optim.Optimizer) -> type[torch.optim.Optimizer] | None:
    """The class in :data:`KNOWN` whose ``step`` this optimizer runs; None if it is another."""
    own = inspect.unwrap(type(optimizer).step)
    for known in KNOWN:
        if isinstance(optimizer, known) and own is inspect.unwrap(known.step):
            return known
    return None


class Shadow:
    """The base optimizer's rule, and its state fed with raw gradients.

    Args:
        rule: a class in :data:`KNOWN`.
    """

    def __init__(self, rule: Callable[..., torch.optim.Optimizer]) -> None:
        self._optimizer = rule([torch.nn.Parameter(torch.zeros(1))])
        self._step = inspect.unwrap(
            type(self._optimizer).step
        )  # no hooks, also none of the process
        self._names = self._optimizer.defaults.keys() - NOT_COPIED.keys()
        self._copies: Any = WeakTensorKeyDictionary()

    def begin(
        self,
        buckets: Sequence[Bucket],
        state: State,
        param_groups: Sequence[Mapping[str, Any]],
    ) -> None:
        """Have a copy of every coordinate; of a new one with the state that it has by now.

        Args:
            buckets: the coordinates of the step that begins.
            state: the base optimizer's, before its step.
            param_groups: the base optimizer's.
        """
        for bucket in buckets:
            for member, length in zip(bucket.members, bucket.own_lengths, strict=True):
                copy = self._copies.get(member.param)
                if copy is None or len(copy) != length:
                    self._copies[member.param] = copy = torch.nn.Parameter(
                        torch.zeros(length, dtype=bucket.dtype, device=bucket.device)
                    )
                    self._optimizer.state.pop(copy, None)
                    on_device = param_groups[member.group].get("capturable", False)
                    if member.param in state:
                        self._optimizer.state[copy] = _selected(
                            state[member.param],
                            copy,
                            numbers=copy.device if on_device else torch.device("cpu"),
                        )

    @torch.no_grad()
    def step(
        self,
        buckets: Sequence[Bucket],
        theta: Sequence[torch.Tensor],
        grad: Sequence[torch.Tensor],
        q: Sequence[torch.Tensor],
        param_groups: Sequence[Mapping[str, Any]],
        *,
        found_inf: torch.Tensor | None,
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """What the term does to a step, and the step without it; the state goes on by the latter.

        Args:
            buckets: the coordinates.
            theta: the weights before the step, (M,) a bucket.
            grad: g of the objective that is minimised, unscaled, (M,) a bucket.
            q: s ⊙ g, (M,) a bucket.
            param_groups: the base optimizer's.
            found_inf: from a GradScaler; not 0 if this step was skipped.

        Returns:
            Term and step, (M,) each a bucket.
        """
        self._optimizer.param_groups = self._groups(buckets, param_groups)
        weights = [
            _spread(bucket, [param_groups[m.group]["quantum_weight"] for m in bucket.members])
            for bucket in buckets
        ]
        kept = {p: _copied(values) for p, values in self._optimizer.state.items()}
        pushed = [g + w * x for g, w, x in zip(grad, weights, q, strict=True)]
        both = self._move(buckets, theta, pushed)
        self._optimizer.state = defaultdict(dict, kept)
        before = {} if found_inf is None else {p: _copied(values) for p, values in kept.items()}
        base = self._move(buckets, theta, grad)
        if found_inf is not None:
            self._skip(before, found_inf)
            base = [torch.where(found_inf.to(b.device) == 0, b, 0.0) for b in base]
        pairs = [(a - b, b) for a, b in zip(both, base, strict=True)]
        return [(x.nan_to_num(0.0, 0.0, 0.0), b.nan_to_num(0.0, 0.0, 0.0)) for x, b in pairs]

    def keep(self, state_dict: dict[str, Any], params: Sequence[torch.Tensor]) -> None:
        """Put the state into a state dict, beside the base optimizer's; ``params`` are its own.

        A parameter that is cut over ranks keeps none: each rank has another part of it.
        """
        for k, param in enumerate(params):
            copy = self._copies.get(param)
            values = None if copy is None else self._optimizer.state.get(copy)
            if values and not hasattr(param, "full_tensor") and k in state_dict["state"]:
                named = {f"{SHADOW_KEY}_{name}": v for name, v in values.items() if v is not None}
                state_dict["state"][k] = {**state_dict["state"][k], **_copied(named)}

    def restore(
        self, kept: Mapping[int, Mapping[str, Any]], params: Sequence[torch.Tensor]
    ) -> None:
        """Go on from what :meth:`taken` found; what it has not begins with the optimizer's."""
        self._copies.clear()
        self._optimizer.state.clear()
        for k, values in kept.items():
            each = [v for name, v in values.items() if name not in NUMBERS]
            if each:
                copy = torch.nn.Parameter(torch.zeros_like(each[0], device=params[k].device))
                self._copies[params[k]] = copy
                self._optimizer.state[copy] = {
                    name: v.clone() if name in NUMBERS else v.to(copy.device, copy=True)
                    for name, v in values.items()
                }

    def _groups(
        self, buckets: Sequence[Bucket], param_groups: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        found: dict[int, list[torch.Tensor]] = {}
        for member in (m for bucket in buckets for m in bucket.members):
            found.setdefault(member.group, []).append(self._copies[member.param])
        return [
            NOT_COPIED
            | {k: param_groups[i][k] for k in self._names if k in param_groups[i]}
            | {"params": params}
            for i, params in found.items()
        ]

    def _move(
        self,
        buckets: Sequence[Bucket],
        theta: Sequence[torch.Tensor],
        grad: Sequence[torch.Tensor],
    ) -> list[torch.Tensor]:
        """What a step with these gradients does to these weights, (M,) a bucket."""
        for bucket, t, g in zip(buckets, theta, grad, strict=True):
            lengths = bucket.own_lengths
            parts = zip(bucket.members, t.split(lengths), g.split(lengths), strict=True)
            for member, here, slope in parts:
                copy = self._copies[member.param]
                copy.copy_(here)
                copy.grad = None if member.param.grad is None else slope.clone()
        self._step(self._optimizer)
        return [
            torch.cat([self._copies[m.param].detach() for m in bucket.members]) - t
            for bucket, t in zip(buckets, theta, strict=True)
        ]

    def _skip(self, before: Mapping[torch.Tensor, dict[str, Any]], found_inf: torch.Tensor) -> None:
        """Take the state back where a GradScaler skipped the step, without asking the device."""
        for p, values in self._optimizer.state.items():
            for name, now in values.items():
                then = before.get(p, {}).get(name)
                if isinstance(now, torch.Tensor):
                    old = torch.zeros_like(now) if then is None else then
                    values[name] = torch.where(found_inf.to(now.device) == 0, now, old)


def taken(state_dict: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The shadow's state in a state dict, by the parameter's position over all groups."""
    ids = [i for group in state_dict["param_groups"] for i in group["params"]]
    found = {}
    for k, i in enumerate(ids):
        values = state_dict["state"].get(i, {})
        named = {n: v for n, v in values.items() if str(n).startswith(f"{SHADOW_KEY}_")}
        if named:
            found[k] = {n.removeprefix(f"{SHADOW_KEY}_"): v for n, v in named.items()}
    return found


def drop(state: State) -> None:
    """Take what a load has put into the optimizer's state out of it."""
    for values in state.values():
        if isinstance(values, dict):
            for name in [n for n in values if str(n).startswith(f"{SHADOW_KEY}_")]:
                del values[name]


def _selected(
    values: Mapping[str, Any], copy: torch.Tensor, *, numbers: torch.device
) -> dict[str, Any]:
    """The base optimizer's state of the selected coordinates; what is one number on ``numbers``."""
    found = {}
    for name, value in values.items():
        if str(name).startswith("qsgd_"):
            continue
        if name in NUMBERS and isinstance(value, torch.Tensor):
            found[name] = value.detach().to(numbers, copy=True)
        elif isinstance(value, torch.Tensor):
            part = coordinates.read(local(value).detach(), len(copy))
            found[name] = part.to(copy.device, copy.dtype, copy=True)
        else:
            found[name] = value
    return found


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.detach().clone() if isinstance(v, torch.Tensor) else v for k, v in values.items()}


def _spread(bucket: Bucket, weights: Sequence[float]) -> torch.Tensor | float:
    if len(set(weights)) == 1:
        return weights[0]
    each = torch.tensor(weights, dtype=bucket.dtype, device=bucket.device)
    return torch.repeat_interleave(each, bucket.own_lengths_tensor, output_size=bucket.own_total)
