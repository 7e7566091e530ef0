"""⟨Z_i⟩ of the paper's circuit (Eq. 5) with a CNOT chain, or none, in time linear in n.

Pulling Z_i back through the last chain gives Z_0…Z_i, and each remaining chain copies a qubit's
basis value to its neighbour's input, so the circuit factors site by site. Depth 1 is a cumulative
product; depth 2 needs three real numbers a site (four with phases: a Z_2 Fourier transform of the
2×2 environment leaves two sectors); deeper circuits go to :mod:`.matrix_product`, or to the state
vector where the block is so short that it is cheaper. Plain torch on any device, over all blocks at
once; nothing synchronises and no input is changed.
"""

from __future__ import annotations

import math

import torch

from qsgd_core.circuits import Entangler, ansatz
from qsgd_core.errors import CapabilityError, ConfigError
from qsgd_core.simulate import statevector
from qsgd_core.simulate.halfturns import neg_sin_cos_pi, sinpi, wrap
from qsgd_core.simulate.matrix_product import chain_expectations

MAX_DEPTH = 6
"""Layers with the chain; the cost of a site grows as 4**(depth - 1)."""
MAX_QUBITS = 256
"""Qubits of one block with the chain."""


def expectations(
    half_turns: torch.Tensor,
    *,
    depth: int,
    entangler: Entangler,
    phases: torch.Tensor | None = None,
) -> torch.Tensor:
    """⟨Z_0⟩ … ⟨Z_{n-1}⟩ of :func:`qsgd_core.circuits.ansatz`, for every block at once.

    Args:
        half_turns: float32 or float64 (..., n). The Ry angle is π times this, which is θ itself
            in the paper's reading; taking it without π keeps large θ accurate.
        depth: layers, at least 1; with the chain at most :data:`MAX_DEPTH`.
        entangler: ``none`` or ``chain``.
        phases: Rz angles in radians, (depth, n) or (..., depth, n), of the same dtype and device;
            None means 0. The last layer's never matter, since Rz commutes with Z.

    Returns:
        Same shape, dtype and device as ``half_turns``. Not differentiated.

    Raises:
        CapabilityError: no formula for this entangler, depth or number of qubits.
        ConfigError: a dtype or a shape that does not fit.
    """
    _check(half_turns, depth, entangler, phases)
    if entangler == "none":
        return _independent(half_turns, depth, phases)
    if depth == 1:
        return sinpi(half_turns).neg_().cumprod(-1)
    if depth == 2:
        return _depth2(half_turns) if phases is None else _depth2_phased(half_turns, phases)
    if half_turns.shape[-1] <= depth + 3:
        # Measured with thousands of blocks: 2**n amplitudes beat 4**(depth - 1) a site.
        return _short(half_turns, depth, phases)
    return chain_expectations(half_turns, depth, phases)


def limits(n_qubits: int, *, depth: int, entangler: Entangler) -> tuple[str, ...]:
    """One sentence per reason why there is no formula; empty when there is one."""
    if entangler == "none":
        return ()
    if entangler != "chain":
        return (
            f"The closed form is for entangler 'none' or 'chain', not {entangler!r}: "
            "run the circuit on the state vector, with up to 20 qubits.",
        )
    problems = []
    if depth > MAX_DEPTH:
        problems.append(
            f"The closed form of the chain goes to depth {MAX_DEPTH}; {depth} was asked for. "
            f"Use depth={MAX_DEPTH} or less, or entangler='none'."
        )
    if n_qubits > MAX_QUBITS:
        problems.append(
            f"The closed form of the chain goes to {MAX_QUBITS} qubits; {n_qubits} were asked "
            f"for. Use n_qubits={MAX_QUBITS} or less, or entangler='none'."
        )
    return tuple(problems)


def _check(
    half_turns: torch.Tensor, depth: int, entangler: Entangler, phases: torch.Tensor | None
) -> None:
    n_qubits = half_turns.shape[-1]
    if depth < 1:
        raise ConfigError(f"depth must be at least 1, not {depth}.")
    if half_turns.dtype not in (torch.float32, torch.float64):
        raise ConfigError(
            f"Angles must be float32 or float64, not {half_turns.dtype}: convert them first; "
            "in 16 bits sin(πθ) is off by up to 3e-3."
        )
    if phases is not None and phases.shape[-2:] != (depth, n_qubits):
        raise ConfigError(
            f"Phases must have shape (..., {depth}, {n_qubits}) for depth {depth} and "
            f"{n_qubits} qubits; found {tuple(phases.shape)}."
        )
    if problems := limits(n_qubits, depth=depth, entangler=entangler):
        raise CapabilityError("The circuit cannot be computed in closed form.", problems)


def _independent(half_turns: torch.Tensor, depth: int, phases: torch.Tensor | None) -> torch.Tensor:
    """No entangler: each qubit's Bloch vector, from +x, turned layer by layer."""
    if depth == 1:
        return sinpi(half_turns).neg_()
    if phases is None:
        return sinpi(wrap(half_turns).mul_(depth)).neg_()
    neg_sin, cos = neg_sin_cos_pi(half_turns)
    x, y, z = cos, torch.zeros_like(cos), neg_sin
    for layer in range(depth - 1):
        phase = phases[..., layer, :]
        phase_sin, phase_cos = phase.sin(), phase.cos()
        x, y = x * phase_cos - y * phase_sin, x * phase_sin + y * phase_cos
        x, z = cos * x - neg_sin * z, cos * z + neg_sin * x
    return z


def _depth2(half_turns: torch.Tensor) -> torch.Tensor:
    """Depth 2, zero phases: this runs at every training step, so each torch call is counted.

    Of the sectors (L0, L1, L2, L3) of :func:`_depth2_phased`, L3 stays 0 and L1 is
    c_i·⟨Z_{i-1}⟩. What remains of site i, with s_i = sin πθ_i, c_i = cos πθ_i and ⟨Z_{-1}⟩ = 1:
    L0 = -s_i c_i c_{i-1}·⟨Z_{i-2}⟩, L2 = -s_i·(L2 + c_i·L0), ⟨Z_i⟩ = L0 + c_{i+1}·L2, where c_n
    stands for 1.
    """
    # Sites first, so that a site is one contiguous row over all blocks.
    neg_sin, cos = neg_sin_cos_pi(half_turns.movedim(-1, 0).contiguous())
    neg_sin_cos = neg_sin * cos
    last = half_turns.shape[-1] - 1
    if last == 0:
        return (neg_sin_cos * 2).movedim(0, -1)
    ns, c = neg_sin.unbind(), cos.unbind()
    carry = (neg_sin_cos[1:] * cos[:-1]).unbind()
    l0 = neg_sin_cos[0]
    z = [torch.addcmul(l0, l0, c[1])]
    l0, l2 = carry[0], ns[1] * z[0]
    for i in range(1, last):
        z.append(torch.addcmul(l0, l2, c[i + 1]))
        l2 = ns[i + 1] * torch.addcmul(l2, l0, c[i + 1])
        l0 = carry[i] * z[i - 1]
    z.append(l0 + l2)
    return torch.stack(z, dim=-1)


def _short(half_turns: torch.Tensor, depth: int, phases: torch.Tensor | None) -> torch.Tensor:
    """The chain on a block of few qubits, by its state vector."""
    n_qubits = half_turns.shape[-1]
    radians = wrap(half_turns) * math.pi
    if phases is not None:
        lead = torch.broadcast_shapes(radians.shape[:-1], phases.shape[:-2])
        phases = phases.expand(*lead, depth, n_qubits).flatten(-2)
        radians = torch.cat([radians.expand(*lead, n_qubits), phases], dim=-1)
    circuit = ansatz(n_qubits, depth, "chain", phases=phases is not None)
    rows = radians.reshape(-1, circuit.n_slots)
    z = statevector.expectations(circuit, rows, [(i,) for i in range(n_qubits)])
    return z.reshape(*radians.shape[:-1], n_qubits)


def _depth2_phased(half_turns: torch.Tensor, phases: torch.Tensor) -> torch.Tensor:
    """Depth 2 with the first layer's phases φ: x_i = c_i cos φ_i and y_i = c_i sin φ_i."""
    # One of the two may have fewer leading axes than the other.
    half_turns, phase = torch.broadcast_tensors(half_turns, phases[..., 0, :])
    neg_sin, cos = neg_sin_cos_pi(half_turns.movedim(-1, 0).contiguous())
    phase = phase.movedim(-1, 0)
    ns, c = neg_sin.unbind(), cos.unbind()
    x, y = (cos * phase.cos()).unbind(), (cos * phase.sin()).unbind()
    one, zero = torch.ones_like(c[0]), torch.zeros_like(c[0])
    l0, l1, l2, l3 = one, one, zero, zero
    z = []
    for i in range(len(c)):
        reach = torch.addcmul(l0, l2, x[i])
        if i > 0:
            z.append(reach)
        l0, l1, l2, l3 = (
            c[i] * torch.addcmul(l1 * ns[i], l3, y[i], value=-1),
            c[i] * reach,
            ns[i] * torch.addcmul(l2, l0, x[i]),
            ns[i] * torch.addcmul(l3 * ns[i], l1, y[i]),
        )
    z.append(l0 + l2)
    return torch.stack(z, dim=-1)
