"""``inject="gradient"``: λ·Q in the gradients that the base optimizer reads, then out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from qsgd_core.errors import ConfigError
from qsgd_core.optim.coordinates import memory as coordinates
from qsgd_core.optim.coordinates.selection import Bucket
from qsgd_core.optim.coordinates.shards import local_grad


class GradientRoute:
    """The gradients that one step replaced."""

    def __init__(self) -> None:
        self._replaced: list[tuple[torch.Tensor, torch.Tensor, int]] = []
        """Gradient, what its first coordinates were, and its version with the term in it."""

    def inject(
        self,
        buckets: Sequence[Bucket],
        modulation: Sequence[torch.Tensor],
        raw: Sequence[torch.Tensor],
        param_groups: Sequence[Mapping[str, Any]],
    ) -> None:
        """Add λ·Q to the gradients of the groups that ask for it; keep what was there.

        Args:
            buckets: the coordinates.
            modulation: s, (M,) a bucket.
            raw: g as it stands in ``p.grad`` (scaled, not negated), (M,) a bucket.
            param_groups: the optimizer's.

        Raises:
            ConfigError: a sparse gradient; those before it are replaced already.
        """
        for bucket, s, g in zip(buckets, modulation, raw, strict=True):
            for member, part in zip(bucket.members, (s * g).split(bucket.own_lengths), strict=True):
                group, grad = param_groups[member.group], local_grad(member.param)
                if group["inject"] != "gradient" or grad is None:
                    continue
                if grad.is_sparse:
                    raise ConfigError(
                        f"Parameter {member.name!r} has a sparse gradient, to which "
                        'inject="gradient" cannot add. Use inject="update" for its group.'
                    )
                kept = coordinates.read(grad.detach(), len(part)).clone()
                coordinates.add_(grad.detach(), part * group["quantum_weight"])
                self._replaced.append((grad, kept, grad._version))

    def restore(self, optimizer: torch.optim.Optimizer) -> None:
        """Put back what was there; a fused optimizer has unscaled the gradients meanwhile."""
        scale = getattr(optimizer, "grad_scale", None)
        found_inf = getattr(optimizer, "found_inf", None)
        for grad, kept, _ in self._replaced:
            if scale is not None and found_inf is not None:
                device = kept.device
                kept = torch.where(found_inf.to(device) == 0, kept / scale.to(device), kept)
            coordinates.write_(grad.detach(), kept)

    def abandon(self) -> None:
        """Take back a step that began and did not end, in gradients that still are as it left them.

        It raised; or a subclass's ``step`` calls its parent's, which torch has given hooks too if
        the parent has instances: then the term belongs to the inner step.
        """
        for grad, kept, version in self._replaced:
            if grad._version == version:
                coordinates.write_(grad.detach(), kept)
