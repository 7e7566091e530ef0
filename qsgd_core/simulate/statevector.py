"""Any circuit of the gate set on a batched state vector: amplitudes, probabilities, ⟨Z⟩, shots.

Rows of angles are the batch. Qubit j is bit j of a basis state's index and column j of the bits.
Inside, the batch is the last axis, so that every gate is elementwise over contiguous rows; a
circuit without rx and rz stays real, which halves its cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from qsgd_core.circuits import Circuit, Gate, Slot, ZString
from qsgd_core.errors import CapabilityError, ConfigError

MAX_QUBITS = 20
MAX_AMPLITUDES = 2**22
"""Amplitudes held at once; a batch with more is taken a few rows at a time (64 MiB in complex128,
and a few times that while a gate is applied)."""

COMPLEX_GATES = frozenset({"rx", "rz"})


def amplitudes(circuit: Circuit, angles: torch.Tensor) -> torch.Tensor:
    """The state before measurement, one row per row of angles.

    Args:
        circuit: up to :data:`MAX_QUBITS` qubits.
        angles: float32 or float64 (B, n_slots), radians, on any device.

    Returns:
        complex64 or complex128 (B, 2**n).

    Raises:
        CapabilityError: too many qubits.
        ConfigError: angles of the wrong shape or dtype.
    """
    dtype = torch.complex64 if angles.dtype == torch.float32 else torch.complex128
    return torch.cat([state.mT.to(dtype) for state in _states(circuit, angles)])


def probabilities(circuit: Circuit, angles: torch.Tensor) -> torch.Tensor:
    """Probability of each basis state: (B, 2**n) in the dtype of ``angles``.

    Arguments and errors as for :func:`amplitudes`.
    """
    return torch.cat([_squared(state).mT for state in _states(circuit, angles)])


def expectations(
    circuit: Circuit, angles: torch.Tensor, observables: Sequence[ZString]
) -> torch.Tensor:
    """⟨Z-string⟩ of each observable: (B, n_observables) in the dtype of ``angles``.

    Arguments and errors as for :func:`amplitudes`.
    """
    masks = [sum(1 << qubit for qubit in string) for string in observables]
    parts = []
    for state in _states(circuit, angles):
        transformed = _walsh(_squared(state))
        # By plain integers: a list as an index would be copied to the device and wait for it.
        parts.append(torch.stack([transformed[mask] for mask in masks], dim=-1))
    return torch.cat(parts)


def sample(
    circuit: Circuit, angles: torch.Tensor, *, shots: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Measured bit strings with the exact joint law.

    One uniform number is drawn per shot and inverted through the row's cumulative distribution:
    shots are independent and in no order, rows use disjoint stretches of the generator's stream,
    and the bits depend only on the generator's state, not on how rows are taken in turns.

    Args:
        circuit: up to :data:`MAX_QUBITS` qubits.
        angles: float32 or float64 (B, n_slots), radians.
        shots: per row, at least 1.
        rng: drawn from B·shots times.

    Returns:
        uint8 (B, shots, n), 0 or 1; column j is qubit j.
    """
    bits = np.empty((len(angles), shots, circuit.n_qubits), dtype=np.uint8)
    row = 0
    for state in _states(circuit, angles, per_row=shots):
        cumulative = _squared(state).mT.cpu().double().cumsum(-1)
        cumulative = cumulative / cumulative[:, -1:]
        uniform = torch.from_numpy(rng.random((len(cumulative), shots)))
        # right=True: the first state whose cumulative probability exceeds the draw, so that a
        # state of probability 0 never comes up.
        index = torch.searchsorted(cumulative, uniform, right=True, out_int32=True).numpy()
        for qubit in range(circuit.n_qubits):
            bits[row : row + len(index), :, qubit] = (index >> qubit) & 1
        row += len(index)
    return bits


def _states(circuit: Circuit, angles: torch.Tensor, per_row: int = 1) -> Iterator[torch.Tensor]:
    """Final states (2**n, rows) of a few rows at a time, in order; none for no rows."""
    n = circuit.n_qubits
    if n > MAX_QUBITS:
        raise CapabilityError(
            f"The state vector goes to {MAX_QUBITS} qubits; the circuit has {n}.",
            (f"Use n_qubits={MAX_QUBITS} or less.",),
        )
    if angles.ndim != 2 or angles.shape[1] != circuit.n_slots:
        raise ConfigError(
            f"The circuit needs angles of shape (rows, {circuit.n_slots}); "
            f"found {tuple(angles.shape)}."
        )
    if angles.dtype not in (torch.float32, torch.float64):
        raise ConfigError(f"Angles must be float32 or float64, not {angles.dtype}.")
    rows = max(1, MAX_AMPLITUDES // max(2**n, per_row))
    # An empty batch still yields one empty state, so that shapes and dtypes come out right.
    for part in angles.split(rows):
        yield _evolve(circuit, part)


def _evolve(circuit: Circuit, angles: torch.Tensor) -> torch.Tensor:
    n = circuit.n_qubits
    real = not any(gate.name in COMPLEX_GATES for gate in circuit.gates)
    single = angles.dtype == torch.float32
    dtype = angles.dtype if real else (torch.complex64 if single else torch.complex128)
    state = torch.zeros(2**n, len(angles), dtype=dtype, device=angles.device)
    state[0] = 1
    half = angles.mT.contiguous() * 0.5
    cosines, sines = half.cos(), half.sin()
    for gate in circuit.gates:
        cos: torch.Tensor | float = 1.0
        sin: torch.Tensor | float = 0.0
        if isinstance(gate.angle, Slot):
            cos, sin = cosines[gate.angle.index], sines[gate.angle.index]
        elif gate.angle is not None:
            cos, sin = math.cos(gate.angle / 2), math.sin(gate.angle / 2)
        apply = _one_qubit if len(gate.qubits) == 1 else _two_qubits
        state = apply(state, n, gate, cos, sin)
    return state


def _one_qubit(
    state: torch.Tensor, n: int, gate: Gate, cos: torch.Tensor | float, sin: torch.Tensor | float
) -> torch.Tensor:
    """Apply a one-qubit gate to (2**n, B); ``cos`` and ``sin`` of half its angle, (B,)."""
    (qubit,) = gate.qubits
    halves = state.reshape(2 ** (n - 1 - qubit), 2, 2**qubit, state.shape[1])
    zero, one = halves[:, 0], halves[:, 1]
    match gate.name:
        case "h":
            pair = ((zero + one) * math.sqrt(0.5), (zero - one) * math.sqrt(0.5))
        case "x":
            pair = (one, zero)
        case "ry":
            pair = (cos * zero - sin * one, sin * zero + cos * one)
        case "rx":
            pair = (cos * zero - 1j * sin * one, cos * one - 1j * sin * zero)
        case _:  # rz; a Circuit admits no other
            pair = ((cos - 1j * sin) * zero, (cos + 1j * sin) * one)
    return torch.stack(pair, dim=1).reshape(state.shape)


def _two_qubits(
    state: torch.Tensor, n: int, gate: Gate, cos: torch.Tensor | float, sin: torch.Tensor | float
) -> torch.Tensor:
    """Apply cx or cz to (2**n, B)."""
    low, high = sorted(gate.qubits)
    split = state.reshape(2 ** (n - 1 - high), 2, 2 ** (high - 1 - low), 2, 2**low, state.shape[1])
    control, target = (1, 3) if gate.qubits[0] == high else (3, 1)
    off, on = split.unbind(control)
    axis = target if target < control else target - 1
    if gate.name == "cx":
        on = on.flip(axis)
    else:
        kept, negated = on.unbind(axis)
        on = torch.stack((kept, -negated), dim=axis)
    return torch.stack((off, on), dim=control).reshape(state.shape)


def _squared(state: torch.Tensor) -> torch.Tensor:
    if state.is_complex():
        return torch.view_as_real(state).square().sum(-1)
    return state.square()


def _walsh(values: torch.Tensor) -> torch.Tensor:
    """Walsh-Hadamard transform along axis 0: entry m is ⟨∏ Z_j over the bits j of m⟩."""
    transformed = values
    for qubit in range(len(values).bit_length() - 1):
        pairs = transformed.reshape(len(values) >> (qubit + 1), 2, 2**qubit, values.shape[1])
        zero, one = pairs[:, 0], pairs[:, 1]
        transformed = torch.stack((zero + one, zero - one), dim=1)
    return transformed.reshape(values.shape)
