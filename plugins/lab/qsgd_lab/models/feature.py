"""Φ of the paper's Eq. 4: a number for every attention score, computed by a circuit.

    Φ_ijh = Σ_{k=1..n} ψ_k( C( (Q Kᵀ)_ijh ) )          (arXiv 2511.01918, Eq. 4; C from its Eq. 5)

The paper leaves open how a score x enters C, and an amplitude is complex. Our readings:

* H once on each of n qubits, then ``depth`` layers of Ry(θ_i + x), Rz(φ_li) on each qubit and
  CNOT(0,1), CNOT(1,2), …: the score is uploaded again in every layer, on top of the learned angle.
  θ is the same in every layer, as in the perturbation's circuit; φ is each layer's own.
* ``amplitude``: Φ = Σ_k Re ψ_k over the first n basis states 0 … n-1, qubit j being bit j (the
  order of Qiskit, the paper's simulator). No hardware can measure it. |Φ| <= √n.
* ``z``: Φ = Σ_k ⟨Z_k⟩ over the qubits, which hardware can measure. |Φ| <= n.

x enters by n·depth rotations, so Φ is a trigonometric polynomial of x with that many frequencies at
most, and its coefficients depend on θ and φ alone. They follow exactly from the circuit at as many
points as there are coefficients (4 qubits, depth 2: 9 for ``amplitude``, 17 for ``z``); the scores
then cost a few multiplications each, and never a state vector.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from qsgd_core.errors import ConfigError

Feature: TypeAlias = Literal["amplitude", "z"]

MAX_QUBITS = 10
CHUNK = {"cpu": 2**15, "elsewhere": 2**20}
"""Scores evaluated at once, with 2·frequencies numbers of work space each. On a CPU that work space
should stay in its cache (measured); elsewhere a launch has to be worth it."""


class ScoreFeature(nn.Module):
    """The learned map x -> Φ(x) of Eq. 4, elementwise.

    Attributes:
        theta: parameter (n_qubits,), radians; added to the score in the Ry gates of every layer.
        phi: parameter (depth, n_qubits), radians; the Rz gates'. With ``z`` the last layer's never
            matter, since Rz commutes with Z, and their gradient is 0.

    Args:
        n_qubits: 1 … :data:`MAX_QUBITS`.
        depth: layers, at least 1.
        feature: ``amplitude`` or ``z``.
        generator: on the CPU; the first angles are drawn from it, or from torch's own if None.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(
        self,
        n_qubits: int = 4,
        depth: int = 2,
        *,
        feature: Feature = "amplitude",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if feature not in get_args(Feature):
            raise ConfigError(f"feature must be 'amplitude' or 'z', not {feature!r}.")
        if not 1 <= n_qubits <= MAX_QUBITS or depth < 1:
            raise ConfigError(
                f"A score's circuit needs 1 to {MAX_QUBITS} qubits and a depth of at least 1; "
                f"found n_qubits={n_qubits}, depth={depth}. The paper's are 4 and 2."
            )
        self.feature: Feature = feature
        self.theta = nn.Parameter(torch.empty(n_qubits, device=device, dtype=dtype))
        self.phi = nn.Parameter(torch.empty(depth, n_qubits, device=device, dtype=dtype))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all angles uniformly from [-π, π).

        Not all from 0: Φ is even in φ, so that φ = 0 has gradient 0 and would stay there.
        """
        with torch.no_grad():
            for angles in (self.theta, self.phi):
                drawn = torch.empty(angles.shape, dtype=torch.float64, device="cpu")
                angles.copy_(drawn.uniform_(-math.pi, math.pi, generator=generator))

    def forward(self, scores: Tensor) -> Tensor:
        """Φ of each score, computed in float32 at least, also under autocast.

        Args:
            scores: floating, any shape, on the parameters' device.

        Returns:
            Shape and dtype of ``scores``.
        """
        dtype = torch.promote_types(scores.dtype, torch.float32)
        with _without_autocast(scores.device):
            theta, phi = self.theta.to(dtype), self.phi.to(dtype)
            series = fourier_series(theta, phi, self.feature)
            _, lowest = spectrum(len(theta), len(phi), self.feature)
            flat = scores.reshape(-1).to(dtype)
            values: Tensor = _Evaluate.apply(flat, series, lowest)  # type: ignore[no-untyped-call]
        return values.reshape(scores.shape).to(scores.dtype)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        depth, n_qubits = self.phi.shape
        return f"n_qubits={n_qubits}, depth={depth}, feature={self.feature!r}"


def circuit_feature(angles: Tensor, phi: Tensor, feature: Feature) -> Tensor:
    """Φ by its definition: the state vector of the circuit, row by row.

    Args:
        angles: float32 or float64 (B, n), θ_i + x, radians.
        phi: same dtype (depth, n), radians.
        feature: ``amplitude`` or ``z``.

    Returns:
        (B,), same dtype, differentiable.
    """
    n_qubits = angles.shape[1]
    basis = torch.arange(2**n_qubits, device=angles.device)
    bits = (basis[:, None] >> torch.arange(n_qubits, device=angles.device)) & 1
    signs = (1 - 2 * bits).to(angles.dtype)
    # The chain sets bit i to the parity of bits 0 … i; this is where an outcome came from.
    origin = basis ^ ((basis << 1) & (2**n_qubits - 1))
    # Real and imaginary part are an axis: torch.compile has no kernels for complex numbers.
    real = _uniform_then_ry(angles)
    state = torch.stack((real, torch.zeros_like(real)), dim=1)
    phases = (-phi / 2) @ signs.mT
    for layer, (cos, sin) in enumerate(zip(phases.cos(), phases.sin(), strict=True)):
        if layer > 0:
            state = _ry(state, angles)
        real, imaginary = state.unbind(1)
        turned_real = torch.addcmul(real * cos, imaginary, sin, value=-1)
        turned_imaginary = torch.addcmul(real * sin, imaginary, cos)
        state = torch.stack((turned_real, turned_imaginary), dim=1)[..., origin]
    if feature == "amplitude":
        return state[:, 0, :n_qubits].sum(-1)
    return state.square().sum(1) @ signs.sum(-1)


def _uniform_then_ry(angles: Tensor) -> Tensor:
    """H and the first Ry on |0…0⟩: a real product state, (B, n) -> (B, 2**n)."""
    # H|0⟩ is Ry(π/2)|0⟩.
    half = angles / 2 + math.pi / 4
    first, *others = torch.stack((half.cos(), half.sin()), dim=-1).unbind(1)
    state = first
    for factor in others:
        state = (factor[:, :, None] * state[:, None, :]).flatten(1)
    return state


def _ry(state: Tensor, angles: Tensor) -> Tensor:
    """Ry(angles[:, i]) on every qubit i of the state (B, 2, 2**n)."""
    cos, sin = (angles / 2).cos(), (angles / 2).sin()
    rotations = torch.stack((cos, sin, -sin, cos), dim=-1).unflatten(-1, (2, 2))
    for rotation in rotations.unbind(1):
        # The lowest bit is turned and becomes the highest: after n turns all are in place.
        pairs = state.unflatten(-1, (-1, 2))
        state = (pairs.flatten(1, 2) @ rotation).view(pairs.shape).mT.flatten(2)
    return state


def spectrum(n_qubits: int, depth: int, feature: Feature) -> tuple[int, float]:
    """How many frequencies Φ(x) has at most, and the lowest: they follow each other by 1.

    Each of the n·depth rotations turns an amplitude by ±x/2 and a probability by ±x or 0.
    """
    rotations = n_qubits * depth
    if feature == "z":
        return rotations + 1, 0.0
    return rotations // 2 + 1, rotations % 2 / 2


def fourier_series(theta: Tensor, phi: Tensor, feature: Feature) -> Tensor:
    """Coefficients (a, b) of Φ(x) = Σ_ω a_ω cos ωx + b_ω sin ωx, differentiable.

    Args:
        theta: float32 or float64 (n,), radians.
        phi: same dtype (depth, n), radians.
        feature: ``amplitude`` or ``z``.

    Returns:
        (2·K,), same dtype: a, then b, for the K frequencies of :func:`spectrum`.
    """
    n_frequencies, lowest = spectrum(len(theta), len(phi), feature)
    # One point per unknown: on these the waves are orthogonal. sin 0·x is no unknown.
    n_points = 2 * n_frequencies - (lowest == 0)
    points = torch.arange(n_points, device=theta.device, dtype=theta.dtype)
    points = points * (2 * math.pi / n_points)
    waves = _waves(points, n_frequencies, lowest)
    samples = circuit_feature(theta + points[:, None], phi, feature)
    return (waves @ samples) / waves.square().sum(-1).clamp(min=1)


def _waves(x: Tensor, n_frequencies: int, lowest: float) -> Tensor:
    """cos ωx of each frequency, then sin ωx of each: (N,) -> (2·K, N).

    By repeated turns through x: two calls of a transcendental function instead of 2·K.
    """
    step_cos, step_sin = x.cos(), x.sin()
    cosines, sines = [(x * lowest).cos()], [(x * lowest).sin()]
    for _ in range(n_frequencies - 1):
        cos, sin = cosines[-1], sines[-1]
        cosines.append(torch.addcmul(cos * step_cos, sin, step_sin, value=-1))
        sines.append(torch.addcmul(sin * step_cos, cos, step_sin))
    return torch.stack(cosines + sines)


class _Evaluate(torch.autograd.Function):
    """A Fourier series at many points, whose waves are computed again in the backward pass.

    What autograd would keep is 4·K numbers a score, which for long texts is more memory than all
    else in the model together; this keeps the score.
    """

    @staticmethod
    def forward(x: Tensor, series: Tensor, lowest: float) -> Tensor:
        n_frequencies = len(series) // 2
        return torch.cat([series @ _waves(part, n_frequencies, lowest) for part in _parts(x)])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, float], output: Tensor) -> None:
        x, series, ctx.lowest = inputs
        ctx.save_for_backward(x, series)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, series = ctx.saved_tensors
        cosines, sines = series.chunk(2)
        frequencies = torch.arange(len(cosines), device=x.device) + ctx.lowest
        slope = torch.cat((frequencies * sines, -frequencies * cosines))
        grad_x, grad_series = [], torch.zeros_like(series)
        for part, grad_part in zip(_parts(x), _parts(grad), strict=True):
            waves = _waves(part, len(cosines), ctx.lowest)
            grad_x.append(grad_part * (slope @ waves))
            grad_series = grad_series + waves @ grad_part
        return torch.cat(grad_x), grad_series, None


def _parts(x: Tensor) -> Sequence[Tensor]:
    # The compiler fuses the waves away, and would unroll the loop over the parts.
    if torch.compiler.is_compiling():
        return (x,)
    parts: Sequence[Tensor] = x.split(CHUNK.get(x.device.type, CHUNK["elsewhere"]))
    return parts


def _without_autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()
