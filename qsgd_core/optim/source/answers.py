"""What a perturbation answers, held to its contract before it moves a weight.

The core's own perturbations are held to it by tests, and are not asked at every step. On the CPU
an answer is looked at at once. To look at one on an accelerator would stop training until the
device has come so far: there a wrong entry is made 0 on the device, and the step after the one
whose look has come back raises.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qsgd_core.errors import PluginHookError
from qsgd_core.jobs import ROUNDING

LIMIT = 1.0 + ROUNDING


class Answers:
    """The answers of one perturbation.

    Args:
        who: what it is and who serves it, for messages.
        trusted: whether it is the core's own.
    """

    def __init__(self, who: str, *, trusted: bool) -> None:
        self._who = who
        self._trusted = trusted
        self._looks: list[tuple[torch.Tensor, torch.cuda.Event]] = []

    def decoded(self, s: Any, shape: tuple[int, int]) -> NDArray[np.float64]:
        """s that was decoded from finite ⟨observables⟩.

        Args:
            s: as ``decode`` gave it.
            shape: (n_blocks, n) that it must have.

        Raises:
            PluginHookError: another shape, or an entry that is not in [-1, 1].
        """
        values = np.asarray(s, dtype=np.float64)
        if values.shape != shape:
            raise PluginHookError(
                f"{self._who}: decode gave shape {values.shape} for {shape[0]} blocks of "
                f"{shape[1]} coordinates."
            )
        if not self._trusted:
            wrong = values[~(np.abs(values) <= LIMIT)]
            if wrong.size:
                raise self._outside(float(wrong[0]))
        return values

    def checked(self, s: torch.Tensor, theta: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        """s for these θ and g. What is not finite in them may be in s.

        Args:
            s: as it was given.
            theta: what it was asked for, any shape.
            grad: same shape.

        Raises:
            PluginHookError: another shape, dtype or device, or an entry that is not in [-1, 1];
                the latter, on an accelerator, a few steps later.
        """
        if self._trusted:
            return s
        like = theta.shape, theta.dtype, theta.device
        if not isinstance(s, torch.Tensor) or (s.shape, s.dtype, s.device) != like:
            found = _said(s) if isinstance(s, torch.Tensor) else f"the {type(s).__name__} {s!r}"
            raise PluginHookError(f"{self._who} gave {found} for {_said(theta)}.")
        if s.device.type == "cpu":
            if not bool((s.abs() <= LIMIT).all()) and _finite(theta, grad):
                raise self._outside(float(s[~(s.abs() <= LIMIT)].flatten()[0]))
            return s
        return self._look_later(s, theta, grad) if s.device.type == "cuda" else s

    def _look_later(self, s: torch.Tensor, theta: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
        if torch.cuda.is_current_stream_capturing():  # a graph cannot stop a step
            return s
        while self._looks and self._looks[0][1].query():
            wrong, _ = self._looks.pop(0)
            if bool(wrong):
                raise self._outside(None)
        good = s.abs() <= LIMIT
        wrong = ~good.all() & theta.isfinite().all() & grad.isfinite().all()
        host = torch.empty((), dtype=torch.bool, pin_memory=True, device="cpu")
        host.copy_(wrong, non_blocking=True)
        seen = torch.cuda.Event()
        seen.record(torch.cuda.current_stream(s.device))
        self._looks.append((host, seen))
        return torch.where(good | ~wrong, s, 0.0)

    def _outside(self, found: float | None) -> PluginHookError:
        what = "an entry" if found is None else f"s = {found:g}"
        return PluginHookError(
            f"{self._who} gave {what} outside [-1, 1] for finite weights and gradients, which "
            "would go into the weights. qsgd conform says more of it."
        )


def _finite(theta: torch.Tensor, grad: torch.Tensor) -> bool:
    return bool(theta.isfinite().all()) and bool(grad.isfinite().all())


def _said(tensor: torch.Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"a {dtype} tensor of shape {(*tensor.shape,)} on {tensor.device}"
