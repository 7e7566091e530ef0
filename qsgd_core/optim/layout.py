"""The buckets of a step, kept from one step to the next while nothing about them changes."""

from __future__ import annotations

from typing import Any

from qsgd_core.optim.groups import Groups
from qsgd_core.optim.selection import Bucket, select


class Layout:
    """Buckets of the parameters that have a gradient."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._buckets: list[Bucket] = []
        self._key: list[Any] | None = None

    def buckets(self, active: list[int]) -> list[Bucket]:
        """Buckets of the active groups, having looked at their parameters' memory.

        Args:
            active: indices of the groups that carry the term now.

        Raises:
            ConfigError: a sharded parameter.
        """
        groups = self._groups.all
        key: list[Any] = [p.grad is None or id(p) for i in active for p in groups[i]["params"]]
        for i in active:
            key += (i, groups[i]["scope"], groups[i]["n_qubits"])
        if key != self._key:
            only = {p for i in active for p in groups[i]["params"] if p.grad is not None}
            if not only <= self._groups.order.keys():  # a parameter took another one's place
                self._groups.name_parameters()
            self._buckets = select(groups, active, self._groups.order, only=only)
            self._key = key
        for bucket in self._buckets:
            bucket.look()
        return self._buckets

    def forget(self) -> None:
        """Make the buckets anew at the next step."""
        self._key = None
