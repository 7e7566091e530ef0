"""θ and g as a step begins, for optimizers that move the weights before they call the closure."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from qsgd_core.optim.coordinates.selection import Bucket


class Start:
    """What was there before ``step`` did anything.

    A sharpness-aware optimizer climbs along the gradients that it finds and has the closure
    evaluated there; the step that it makes in the end starts from the weights before that.

    Args:
        buckets: of every parameter that may get a gradient.
    """

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        self._buckets = list(buckets)
        self._theta: dict[torch.Tensor, torch.Tensor] = {}
        self._grad: dict[torch.Tensor, torch.Tensor] = {}
        self._moved: torch.Tensor | None = None
        for bucket in buckets:
            thetas = bucket.read_params().split(bucket.own_lengths)
            grads = bucket.read_grads().split(bucket.own_lengths)
            for member, theta, grad in zip(bucket.members, thetas, grads, strict=True):
                self._theta[member.param] = theta
                if member.param.grad is not None:
                    self._grad[member.param] = grad

    @property
    def with_gradient(self) -> set[torch.Tensor]:
        """The parameters that had one."""
        return set(self._grad)

    def look(self) -> None:
        """Note whether the weights have moved since, as the closure is about to be evaluated."""
        moved: torch.Tensor | None = None
        for bucket in self._buckets:
            bucket.look()
            now, before = bucket.read_params(), self._join(self._theta, bucket)
            one = ((now != before) & (now == now)).any()  # NaN differs from itself
            moved = one if moved is None else moved | one.to(moved.device)
        self._moved = moved

    def theta(self, bucket: Bucket) -> torch.Tensor:
        """θ, (M,): from before the step if the weights have moved, else as it is now."""
        before = self._join(self._theta, bucket)
        return _choose(self._moved, before, bucket.read_params())

    def grad(self, bucket: Bucket, now: torch.Tensor) -> torch.Tensor:
        """g, (M,): from before the step if the weights have moved and there was one, else ``now``.

        Args:
            bucket: the coordinates.
            now: (M,), as the closure left it.
        """
        parts = zip(bucket.members, now.split(bucket.own_lengths), strict=True)
        before = torch.cat([self._grad.get(m.param, part) for m, part in parts])
        return _choose(self._moved, before, now)

    @staticmethod
    def _join(parts: dict[torch.Tensor, torch.Tensor], bucket: Bucket) -> torch.Tensor:
        return torch.cat([parts[m.param] for m in bucket.members])


def _choose(moved: torch.Tensor | None, before: torch.Tensor, now: torch.Tensor) -> torch.Tensor:
    """By a value that stays on the device; ``before`` if nobody has looked."""
    return before if moved is None else torch.where(moved.to(now.device), before, now)
