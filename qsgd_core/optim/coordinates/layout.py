"""The buckets of a step, kept from one step to the next while nothing about them changes."""

from __future__ import annotations

from typing import Any

import torch

from qsgd_core.optim.base_optimizer import check_sees_model
from qsgd_core.optim.coordinates.groups import Groups
from qsgd_core.optim.coordinates.selection import Bucket, select


class Layout:
    """Buckets of the parameters that have a gradient.

    Args:
        optimizer: whose parameters they are.
        groups: its groups.
        paid: the blocks are measured at a price, by rank 0 for all ranks.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, groups: Groups, *, paid: bool) -> None:
        self._optimizer = optimizer
        self._groups = groups
        self._paid = paid
        self._checked = False
        self._buckets: list[Bucket] = []
        self._key: list[Any] | None = None

    def buckets(self, active: list[int]) -> list[Bucket]:
        """Buckets of the active groups, having looked at their parameters' memory.

        Args:
            active: indices of the groups that carry the term now.

        Raises:
            ConfigError: a parameter whose coordinates lie on the ranks in an unknown way; or an
                optimizer that sees a part of the model where the term needs all of it.
        """
        groups = self._groups.all
        key: list[Any] = [p.grad is None or id(p) for i in active for p in groups[i]["params"]]
        for i in active:
            key += (i, groups[i]["scope"], groups[i]["n_qubits"])
        if key != self._key:
            self._check(any(groups[i]["scope"] == "model" for i in active))
            only = {p for i in active for p in groups[i]["params"] if p.grad is not None}
            self._buckets = select(groups, active, self._groups.order, only=only)
            self._key = key
        for bucket in self._buckets:
            bucket.look()
        return self._buckets

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
        if not self._checked and (model_scope or self._paid):
            what = 'scope="model"' if model_scope else "A paid backend"
            check_sees_model(self._optimizer, what)
            self._checked = True

    def forget(self) -> None:
        """Make the buckets anew at the next step."""
        self._key = None
