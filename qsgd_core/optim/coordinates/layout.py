"""The buckets of a step, kept from one step to the next while nothing about them changes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch

from qsgd_core.optim.base_optimizer import check_sees_model
from qsgd_core.optim.coordinates.groups import Groups
from qsgd_core.optim.coordinates.selection import Bucket, select


class Layout:
    """Buckets of the parameters of a step.

    Args:
        optimizer: whose parameters they are; kept weakly.
        groups: its groups.
        paid: the blocks are measured at a price, by rank 0 for all ranks.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, groups: Groups, *, paid: bool) -> None:
        self._optimizer = weakref.ref(optimizer)
        self._groups = groups
        self._paid = paid
        self._checked = False
        self._kept: dict[str, tuple[list[Any], list[Bucket]]] = {}

    def buckets(self, active: list[int]) -> list[Bucket]:
        """Buckets of the parameters that have a gradient.

        Args:
            active: indices of the groups that carry the term now.

        Raises:
            ConfigError: a parameter whose coordinates lie on the ranks in an unknown way; or an
                optimizer that sees a part of the model where the term needs all of it.
        """
        groups = self._groups.all
        key: list[Any] = [p.grad is None or id(p) for i in active for p in groups[i]["params"]]
        return self._look("graded", active, key, lambda p: p.grad is not None)

    def trainable(self, active: list[int]) -> list[Bucket]:
        """Buckets of the parameters that may get a gradient; see :meth:`buckets`."""
        groups = self._groups.all
        key: list[Any] = [p.requires_grad and id(p) for i in active for p in groups[i]["params"]]
        return self._look("trainable", active, key, lambda p: p.requires_grad)

    def of(self, active: list[int], params: set[torch.Tensor]) -> list[Bucket]:
        """Buckets of the given parameters; see :meth:`buckets`."""
        return self._look("given", active, sorted(map(id, params)), lambda p: p in params)

    def _look(
        self, which: str, active: list[int], key: list[Any], wanted: Callable[[torch.Tensor], bool]
    ) -> list[Bucket]:
        """The buckets, having looked at their parameters' memory."""
        groups = self._groups.all
        for i in active:
            key += (i, groups[i]["scope"], groups[i]["n_qubits"])
        before, buckets = self._kept.get(which, (None, []))
        if key != before:
            self._check(any(groups[i]["scope"] == "model" for i in active))
            only = {p for i in active for p in groups[i]["params"] if wanted(p)}
            buckets = select(groups, active, self._groups.order, only=only)
            self._kept[which] = key, buckets
        for bucket in buckets:
            bucket.look()
        return buckets

    def whole(self, *, scheduled: bool) -> list[Bucket]:
        """Buckets of every parameter that may carry the term, with or without a gradient.

        Args:
            scheduled: λ follows a schedule, so that one of 0 now may be another later.
        """
        groups = self._groups.all
        chosen = [i for i, g in enumerate(groups) if scheduled or g["quantum_weight"] != 0]
        return select(groups, chosen, self._groups.order, only=None)

    def _check(self, model_scope: bool) -> None:
        """Once: parts of an optimizer do not become wholes."""
        optimizer = self._optimizer()
        if not self._checked and (model_scope or self._paid) and optimizer is not None:
            what = 'scope="model"' if model_scope else "A paid backend"
            check_sees_model(optimizer, what)
            self._checked = True

    def forget(self) -> None:
        """Make the buckets anew at the next step."""
        self._kept.clear()
