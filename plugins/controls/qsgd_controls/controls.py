"""The five controls. Below, r = RMS(reference), the strength of the matched modulation.

Each control answers one question about a gain that a quantum modulation s is seen to give: does it
come from s itself, or would anything of that strength have given it? So at each step, for each
parameter, a control has exactly the RMS of the modulation it stands in for, and otherwise knows
nothing of the circuit.

Draws come from a generator seeded with the hash of (control, seed, step, parameter name), for
``frozen`` without the step, on the CPU whatever the device is: every device sees the same draws.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch

from qsgd_controls.matching import clipped_to_rms, rms
from qsgd_controls.options import ControlOptions
from qsgd_core.errors import ConfigError
from qsgd_core.perturbation import ClassicalPerturbation
from qsgd_core.seeds import derive_seed

HOST: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
"""Of every draw, whatever torch's default device is."""


class MatchedControl(ClassicalPerturbation):
    """A modulation that takes its strength from another perturbation and nothing else.

    Args:
        depth: of the matched perturbation, which the caller makes; no draw depends on it.
        options: what to match; the sine when None.
    """

    new_at_each_step = True

    def __init__(self, depth: int, options: ControlOptions | None = None) -> None:
        self.match = (options or ControlOptions()).match

    def modulation(
        self,
        theta: torch.Tensor,
        grad: torch.Tensor,
        *,
        step: int,
        name: str,
        seed: int,
        reference: torch.Tensor | None,
    ) -> torch.Tensor:
        """s with RMS(s) = RMS(reference), see :class:`ClassicalPerturbation`.

        Raises:
            ConfigError: no reference, or one of another shape than ``theta``.
        """
        kind = type(self).__name__.lower()
        if reference is None or reference.shape != theta.shape:
            found = "nothing" if reference is None else f"a tensor of shape {(*reference.shape,)}"
            raise ConfigError(
                f"The control {kind!r} needs the modulation of {self.match!r} for the "
                f"{theta.numel()} selected coordinates of {name!r}; it was handed {found}. "
                f"Pass reference= a tensor of shape {(*theta.shape,)}."
            )
        reference = reference.to(theta)
        if theta.numel() == 0:
            return reference
        parts = (seed, step, name) if self.new_at_each_step else (seed, name)
        generator = torch.Generator("cpu").manual_seed(derive_seed("qsgd-controls", kind, *parts))
        return self._drawn(reference, generator)

    @abstractmethod
    def _drawn(self, reference: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """s for a reference of shape (m,), m ≥ 1: same shape, dtype and device."""


class Rademacher(MatchedControl):
    """s_i = ±r, each sign with probability 1/2: strength without any shape."""

    def _drawn(self, reference: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        signs = 2 * torch.randint(2, reference.shape, generator=generator, device="cpu") - 1
        strength = rms(reference).clamp(max=1.0)
        return strength * signs.to(reference.device, reference.dtype, non_blocking=True)


class Uniform(MatchedControl):
    """s = clip(c·u, -1, 1), u_i uniform on [-1, 1], c such that RMS(s) = r.

    Nothing is clipped while r stays well below 1/√3, the RMS of a uniform draw on [-1, 1].
    """

    def _drawn(self, reference: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        u = 2 * torch.rand(reference.shape, generator=generator, **HOST) - 1
        return clipped_to_rms(u, reference)


class Gaussian(MatchedControl):
    """s = clip(c·z, -1, 1), z_i ~ N(0, 1), c such that RMS(s) = r after the clipping."""

    def _drawn(self, reference: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        z = torch.randn(reference.shape, generator=generator, **HOST)
        return clipped_to_rms(z, reference)


class Permuted(MatchedControl):
    """s_i = reference_{π(i)}, π a random order of the parameter's coordinates.

    The values are the matched modulation's own; only which coordinate gets which is lost.
    """

    def _drawn(self, reference: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        order = torch.randperm(reference.numel(), generator=generator, device="cpu")
        return reference[order.to(reference.device, non_blocking=True)]


class Frozen(Uniform):
    """As :class:`Uniform`, with one draw of u per parameter for the whole run; r follows the step.

    It keeps its direction from step to step, as the modulation of slowly moving weights does.
    """

    new_at_each_step = False
