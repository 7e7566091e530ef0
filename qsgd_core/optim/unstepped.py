"""Training that goes on without ``step``: what the term would miss in silence."""

from __future__ import annotations

import heapq
import weakref
from collections.abc import Callable, Iterable

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from qsgd_core.optim.coordinates.shards import is_distributed

WATCHED = 3
"""Parameters that are looked at: one of them may get no gradient."""

MOST = 3
"""Changes of the weights between two backward passes, without a step, after which it is said."""


class Unstepped:
    """Looks at small parameters after each backward pass, until the first ``step``.

    An optimizer may have its own methods for a step (``first_step``, ``second_step``), or a
    ``step`` replaced on the object; its hooks then never run.

    Args:
        params: the optimizer's.
        tell: a bound method, kept weakly; called once if weights moved and no step was taken.
    """

    def __init__(self, params: Iterable[torch.Tensor], tell: Callable[[], None]) -> None:
        self._tell = weakref.WeakMethod(tell)
        self._seen: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        me = weakref.ref(self)

        def after_backward(param: torch.Tensor) -> None:
            if (watch := me()) is not None:
                watch._look(param)

        trainable = (p for p in params if p.requires_grad and p.is_leaf and not is_distributed(p))
        self._handles = [
            p.register_post_accumulate_grad_hook(after_backward)
            for p in heapq.nsmallest(WATCHED, trainable, key=torch.Tensor.numel)
        ]

    def stop(self) -> None:
        """A step was taken: all is well."""
        if self._handles:
            self._seen.clear()
        while self._handles:
            self._handles.pop().remove()

    @torch.no_grad()
    def _look(self, param: torch.Tensor) -> None:
        now = param.detach().clone()
        before, moves = self._seen.get(param, (now, 0))
        moves += not torch.equal(before, now)
        self._seen[param] = now, moves
        if moves == MOST:
            self.stop()
            if (tell := self._tell()) is not None:
                tell()
