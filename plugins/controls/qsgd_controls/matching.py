"""Strength: the RMS of a modulation, and draws given that RMS inside [-1, 1]."""

from __future__ import annotations

import numpy as np
import torch

SMALLEST_DRAW = 2.0**-20
"""Draws nearer to zero than this are moved out to it, so that any RMS up to 1 can be reached."""


def rms(s: torch.Tensor) -> torch.Tensor:
    """sqrt(mean(s²)): (m,) with m ≥ 1 -> 0-dim, same dtype and device, no synchronisation."""
    # torch's mean adds pairwise; its vector_norm on the CPU is off by 1e-5 at 3e6 float32 entries.
    return s.square().mean().sqrt()


def clipped_to_rms(draws: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """clip(c · draws, -1, 1) with the one c ≥ 0 that gives it the RMS of ``reference``.

    f(c) = Σ_i min(c·|z_i|, 1)² grows from 0 to m. With |z| sorted downwards and the k largest
    clipped, f(c) = k + c²·S_k where S_k = Σ_{i>k} z_i², which holds between the breakpoints
    c = 1/|z_k| and c = 1/|z_{k+1}|. So k is the number of breakpoints at which f stays below
    Σ reference², and c = sqrt((Σ reference² - k) / S_k): exact, with no iteration.

    Args:
        draws: float64 (m,) on the CPU, m ≥ 1, not NaN.
        reference: float32 or float64 (m,). An RMS above 1 counts as 1; NaN gives NaN.

    Returns:
        (m,), entries in [-1, 1], in the dtype and on the device of ``reference``. What depends on
        the draws alone is worked out in float64 on the CPU; the device is not synchronised.
    """
    m = reference.numel()
    signed = draws.numpy()
    size = np.maximum(np.abs(signed), SMALLEST_DRAW)
    squares = np.sort(size)[::-1] ** 2
    left = np.cumsum(squares[::-1])[::-1]  # S_0 … S_{m-1}
    breakpoints = np.arange(m) + left / squares  # f(1 / |z_{k+1}|)

    table = torch.from_numpy(np.stack([breakpoints, left, np.copysign(size, signed)]))
    at, rest, z = table.to(reference.device, reference.dtype, non_blocking=True)
    wanted = reference.square().sum().clamp(max=m)
    k = torch.searchsorted(at, wanted).clamp(max=m - 1)
    # take, not []: indexing with a 0-dim tensor reads it back from the device.
    c = ((wanted - k).clamp(min=0.0) / rest.take(k)).sqrt()
    s: torch.Tensor = (c * z).clamp_(-1.0, 1.0)
    return s
