"""Sine and cosine of π·x, accurate to the last bits for every x, large or close to an integer.

``torch.sin(math.pi * x)`` is wrong by 9e-5 at x = 1000.25 in float32 and never 0 at x = 1, the
value every normalisation layer's weight starts from. Here π is multiplied in after x has been
reduced, and each step of the reduction is exact in floating point.
"""

from __future__ import annotations

import math

import torch


def wrap(x: torch.Tensor) -> torch.Tensor:
    """The same angle in half-turns, in [-1, 1]: x - 2·round(x/2), exact. A new tensor."""
    return torch.sub(x, (x * 0.5).round_(), alpha=2)


def sinpi(x: torch.Tensor) -> torch.Tensor:
    """sin(π·x), elementwise, to a few units in the last place; exactly 0 at every integer.

    Args:
        x: float32 or float64, any shape and device. Not differentiated.
    """
    return _sin_wrapped(wrap(x), math.pi)


def neg_sin_cos_pi(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(-sin(π·x), cos(π·x)), elementwise, for the same ``x`` as :func:`sinpi` takes."""
    wrapped = wrap(x)
    cosine = (wrapped * math.pi).cos_()
    return _sin_wrapped(wrapped, -math.pi), cosine


def _sin_wrapped(wrapped: torch.Tensor, pi: float) -> torch.Tensor:
    """sin(pi·wrapped), overwriting ``wrapped``.

    Reflects at ±1/2: x - 2·clamp(x) is -x inside and x ∓ 1 outside, where the subtraction is
    exact and the sine of what is left is relatively accurate. Hence the sign of ``-pi``.
    """
    return wrapped.sub_(wrapped.clamp(-0.5, 0.5), alpha=2).mul_(-pi).sin_()
