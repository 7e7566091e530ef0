"""Seeds derived by hash, so that no two uses of randomness in a run overlap."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A seed in 0 … 2**63 - 1 from the SHA-256 of the parts, the same in every process.

    Never derive a seed by adding a step to a base: simulators that count rows up from a seed
    (Aer: row i uses seed + 2113·i) would then repeat each other's draws.
    """
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
