"""⟨Z_i⟩ of the CNOT-chain ansatz at any depth, by matrix products along the chain.

Qubit i meets its left neighbour once per layer, as the target of a CNOT whose control is in a
basis state b_l, and hands its own basis value r_l on to its right neighbour. Between two qubits
run therefore depth - 1 bits (the last chain is pulled into the observable, Z_i -> Z_0…Z_i), once
for the ket and once for the bra: an environment of 4**(depth - 1) numbers, real without phases.
Two sweeps, from the left with Z and from the right without, give every ⟨Z_i⟩.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from qsgd_core.simulate.halfturns import wrap

MAX_ELEMENTS = 2**22
"""Numbers in the largest intermediate tensor; more blocks than fit are taken in turns."""


def chain_expectations(
    half_turns: torch.Tensor, depth: int, phases: torch.Tensor | None
) -> torch.Tensor:
    """⟨Z_0⟩ … ⟨Z_{n-1}⟩ for every block.

    Args:
        half_turns: float32 or float64 (..., n); the Ry angle is π times this.
        depth: layers, at least 2.
        phases: Rz angles, radians, (depth, n) or (..., depth, n); None means 0.

    Returns:
        Same shape as ``half_turns`` (broadcast against ``phases``), same dtype and device.
    """
    n = half_turns.shape[-1]
    if phases is not None:
        lead = torch.broadcast_shapes(half_turns.shape[:-1], phases.shape[:-2])
        half_turns = half_turns.expand(*lead, n)
        phases = phases.expand(*lead, depth, n).reshape(-1, depth, n)
    if half_turns.numel() == 0:
        return torch.empty_like(half_turns)
    blocks = half_turns.reshape(-1, n)
    rows = max(1, MAX_ELEMENTS // (n * max(64 * (depth - 1), 4 ** (depth - 1))))
    parts = [
        _sweep(part, depth, None if phases is None else phases[i * rows : (i + 1) * rows])
        for i, part in enumerate(blocks.split(rows))
    ]
    return torch.cat(parts).reshape(half_turns.shape)


@dataclass(frozen=True)
class _Sites:
    """The linear maps of all sites.

    Attributes:
        layers: one per layer but the last: (n, B, r_{l-1}, r_l, b_l), pairs (ket, bra) of bits
            as numbers 0 … 3; the first layer has a single r_0.
        observed: (n, B, r_{depth-1}), the last layer's rotation traced with Z.
        traced: (r_{depth-1},), traced without Z: the rotation drops out and ket = bra is left.
    """

    layers: list[torch.Tensor]
    observed: torch.Tensor
    traced: torch.Tensor


def _sweep(half_turns: torch.Tensor, depth: int, phases: torch.Tensor | None) -> torch.Tensor:
    blocks, n = half_turns.shape
    sites = _sites(half_turns, depth, phases)
    size = 4 ** (depth - 1)
    right = sites.layers[0].new_ones(blocks, size)
    rights = [right]
    for i in range(n - 1, 0, -1):
        right = _to_the_left(sites, i, right)
        rights.append(right)
    left = torch.zeros_like(right)
    left[:, 0] = 1
    z = []
    for i in range(n):
        left = _to_the_right(sites, i, left)
        z.append((left * rights[n - 1 - i]).sum(-1))
    values = torch.stack(z, dim=-1)
    return values.real.contiguous() if values.is_complex() else values


def _sites(half_turns: torch.Tensor, depth: int, phases: torch.Tensor | None) -> _Sites:
    half = wrap(half_turns.mT.contiguous()).mul_(math.pi / 2)  # (n, B)
    cos, sin = half.cos(), half.sin()
    rotation = torch.stack((cos, -sin, sin, cos), dim=-1).unflatten(-1, (2, 2))
    channel = _both_sides(rotation)
    # Rz commutes with Z: the last layer's phases are dead.
    observed = channel[..., 0, :] - channel[..., 3, :]
    pair = torch.arange(4, device=half.device)
    xor = pair.unsqueeze(-1) ^ pair
    layers = []
    for layer in range(depth - 1):
        if phases is not None:
            quarter = phases[:, layer].mT * 0.5
            turn = torch.polar(torch.ones_like(quarter), quarter)
            channel = _both_sides(torch.stack((turn.conj(), turn), -1).unsqueeze(-1) * rotation)
        # H|0⟩ has all four entries of its density matrix equal to 1/2.
        source = channel.sum(-1, keepdim=True) * 0.5 if layer == 0 else channel
        layers.append(source[..., xor, :].movedim(-1, -3))
    return _Sites(layers, observed, torch.eye(2, dtype=half.dtype, device=half.device).flatten())


def _both_sides(rotation: torch.Tensor) -> torch.Tensor:
    """R ⊗ R*: (…, 2, 2) -> (…, 4, 4), acting on pairs 2·ket + bra."""
    product = torch.einsum("...ac,...bd->...abcd", rotation, rotation.conj())
    return product.flatten(-2).flatten(-3, -2)


def _to_the_right(sites: _Sites, i: int, left: torch.Tensor) -> torch.Tensor:
    """Absorb site i with Z: (B, b_1 … b_{d-1}) -> (B, r_1 … r_{d-1})."""
    blocks = left.shape[0]
    for layer in sites.layers:
        pairs = layer[i] @ left.reshape(blocks, layer.shape[2], 4, -1)
        left = pairs.movedim(1, -1)
    left = left.reshape(blocks, 4, -1) * sites.observed[i].unsqueeze(-1)
    return left.movedim(1, -1).reshape(blocks, -1)


def _to_the_left(sites: _Sites, i: int, right: torch.Tensor) -> torch.Tensor:
    """Absorb site i without Z: (B, r_1 … r_{d-1}) -> (B, b_1 … b_{d-1})."""
    blocks = right.shape[0]
    right = (right.reshape(blocks, -1, 4) * sites.traced).movedim(-1, 1)
    for layer in reversed(sites.layers):
        previous = layer.shape[2]
        pairs = right.reshape(blocks, 4, -1, previous).movedim(-1, 1)
        right = layer[i].mT @ pairs
    return right.reshape(blocks, -1)
