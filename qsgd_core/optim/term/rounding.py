"""Whether a low-precision parameter can hold the term at all."""

from __future__ import annotations

import torch

from qsgd_core.optim.coordinates.selection import Bucket


class Rounding:
    """Looks once per dtype narrower than float32, at the first term that is not 0."""

    def __init__(self) -> None:
        self._looked: set[torch.dtype] = set()

    def advice(self, bucket: Bucket, term: torch.Tensor, before: torch.Tensor) -> str | None:
        """A sentence for the user if none of the term got through. Synchronises when it looks.

        Args:
            bucket: the coordinates; the term was just added to its parameters.
            term: (M,), what was added.
            before: (M,), the parameters without it.
        """
        dtype = bucket.members[0].param.dtype
        if dtype.itemsize >= 4 or dtype in self._looked or not bool(term.any()):
            return None
        self._looked.add(dtype)
        if not torch.equal(bucket.read_params(), before):
            return None
        return (
            f"The term rounds away: none of {bucket.total} {str(dtype).removeprefix('torch.')} "
            "weights changed when it was added. Keep float32 weights (mixed precision), or raise "
            "lr or quantum_weight."
        )
