"""What the simulated hardware really does: Pauli coefficients of many rows, each with own errors.

Written apart from :mod:`qsgd_core.simulate.noise`, so that the device and the twin have no code in
common: the state is all 4**n coefficients ⟨P⟩, and every gate and every error acts on all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Circuit, Slot

Floats = NDArray[np.float64]

CHUNK = 256
"""Rows at a time: 4**4 coefficients of them are half a MiB."""
X, Y, Z = 1, 2, 3


@dataclass(frozen=True, eq=False)
class Errors:
    """The device's errors, float64 (n, R) each: qubit by row.

    Attributes:
        offset: added to the angle of every rx and ry, radians.
        gain: every rx and ry turns by (1 + gain) times its angle.
        twist: coherent rz after every rx and ry, radians.
        depolarising: contraction 1 - p of both qubits' Bloch vectors after a two-qubit gate.
        e01: P(read 1 | 0).
        e10: P(read 0 | 1).
        coupling: crosstalk while a two-qubit gate runs: exp(-i ζ ZZ / 2) between each of its
            qubits and that qubit's other neighbour on the ring; ζ of the pair (q, q + 1), radians.
        leak: crosstalk in reading: added to both flip probabilities of a qubit whose lower
            neighbour on the ring is 1.
    """

    offset: Floats
    gain: Floats
    twist: Floats
    depolarising: Floats
    e01: Floats
    e10: Floats
    coupling: Floats
    leak: Floats

    def rows(self, which: slice | NDArray[np.intp]) -> Errors:
        """Those of some rows."""
        return Errors(**{name: values[:, which] for name, values in vars(self).items()})


def expectations(circuit: Circuit, angles: Floats, errors: Errors) -> Floats:
    """⟨Z_q⟩ as read, without shot noise: float64 (R, n).

    Args:
        circuit: the structure.
        angles: float64 (R, n_slots), radians.
        errors: of each row.
    """
    n = circuit.n_qubits
    parts = []
    for rows in _chunks(len(angles)):
        mine = errors.rows(rows)
        true = _probabilities(circuit, angles[rows], mine)
        columns = []
        for q in range(n):
            others = tuple(axis for axis in range(n) if axis not in (q, (q - 1) % n))
            pair = true.sum(axis=others)
            pair = pair if (q - 1) % n < q else pair.swapaxes(0, 1)  # lower neighbour first
            flips = _flips(mine, q)
            columns.append(
                sum(
                    pair[low, bit] * (1 - 2 * bit) * (1 - 2 * flips[low][bit])
                    for low in (0, 1)
                    for bit in (0, 1)
                )
            )
        parts.append(np.stack(columns, axis=1))
    return np.concatenate(parts)


def sample(
    circuit: Circuit, angles: Floats, errors: Errors, *, shots: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Bits as read: uint8 (R, shots, n)."""
    n = circuit.n_qubits
    parts = []
    for rows in _chunks(len(angles)):
        mine = errors.rows(rows)
        true = _probabilities(circuit, angles[rows], mine).reshape(2**n, -1)
        counts = rng.multinomial(shots, np.clip(true, 0.0, None).T / true.sum(axis=0)[:, None])
        states = np.stack([np.repeat(np.arange(2**n), c) for c in counts])
        bits = (states[:, :, None] >> np.arange(n)[::-1] & 1).astype(np.uint8)
        uniform = rng.random(bits.shape)
        read = bits.copy()
        for q in range(n):
            table = np.array(_flips(mine, q))  # (lower neighbour, bit, row)
            row = np.arange(bits.shape[0])[:, None]
            flip = table[bits[:, :, (q - 1) % n], bits[:, :, q], row]
            read[:, :, q] ^= uniform[:, :, q] < flip
        parts.append(read)
    return np.concatenate(parts)


def _flips(errors: Errors, q: int) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """P(flip of qubit q | lower neighbour's bit, own bit), each (R,)."""
    e01, e10, leak = errors.e01[q], errors.e10[q], errors.leak[q]
    return (e01, e10), (e01 + leak, e10 + leak)


def _probabilities(circuit: Circuit, angles: Floats, errors: Errors) -> Floats:
    """Of every bit string before it is read: (2,) * n + (R,)."""
    n = circuit.n_qubits
    values = np.zeros((4,) * n + (len(angles),))
    values[np.ix_(*[(0, Z)] * n)] = 1.0  # |0…0⟩
    for gate in circuit.gates:
        q = gate.qubits[0]
        if len(gate.qubits) == 2:
            values = _two_qubit(values, gate.name, gate.qubits)
            for qubit in gate.qubits:
                _select(values, qubit, slice(1, 4))[...] *= 1.0 - errors.depolarising[qubit]
            if errors.coupling.any():
                values = _crosstalk(values, gate.qubits, errors.coupling)
        elif gate.name == "h":
            # Compilers merge it into the rotation beside it: no error of its own.
            _hadamard(values, q)
        elif gate.name == "x":
            _select(values, q, slice(Y, 4))[...] *= -1.0
        else:
            given = gate.angle
            angle = angles[:, given.index] if isinstance(given, Slot) else np.float64(given or 0.0)
            if gate.name == "rz":
                _turn(values, q, X, Y, angle)  # a change of frame: exact
            else:
                turned = angle * (1.0 + errors.gain[q]) + errors.offset[q]
                _turn(values, q, *((Z, X) if gate.name == "ry" else (Y, Z)), turned)
                if errors.twist.any():
                    _turn(values, q, X, Y, errors.twist[q])
    strings = values[np.ix_(*[(0, Z)] * n)]
    for q in range(n):
        zero, one = _select(strings, q, 0), _select(strings, q, 1)
        strings = np.stack([0.5 * (zero + one), 0.5 * (zero - one)], axis=q)
    return strings


def _select(values: Floats, axis: int, which: int | slice) -> Floats:
    return values[(slice(None),) * axis + (which,)]


def _swap(values: Floats, q: int, a: int, b: int) -> None:
    first = _select(values, q, a).copy()
    _select(values, q, a)[...] = _select(values, q, b)
    _select(values, q, b)[...] = first


def _turn(values: Floats, q: int, a: int, b: int, angle: Floats | np.float64) -> None:
    """Rotate the Bloch vector from axis ``a`` to axis ``b``."""
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = _select(values, q, a), _select(values, q, b)
    turned = cos * first - sin * second
    second[...] = sin * first + cos * second
    first[...] = turned


def _crosstalk(values: Floats, gate: tuple[int, ...], coupling: Floats) -> Floats:
    n = values.ndim - 1
    for low in range(n):
        pair = (low, (low + 1) % n)
        if len(set(pair) & set(gate)) == 1:
            values = _two_qubit(values, "cx", pair)
            _turn(values, pair[1], X, Y, coupling[low])
            values = _two_qubit(values, "cx", pair)
    return values


_CNOT = {  # (control, target) before -> (control, target, sign) after
    (0, 0): (0, 0, 1), (0, X): (0, X, 1), (0, Y): (Z, Y, 1), (0, Z): (Z, Z, 1),
    (X, 0): (X, X, 1), (X, X): (X, 0, 1), (X, Y): (Y, Z, 1), (X, Z): (Y, Y, -1),
    (Y, 0): (Y, X, 1), (Y, X): (Y, 0, 1), (Y, Y): (X, Z, -1), (Y, Z): (X, Y, 1),
    (Z, 0): (Z, 0, 1), (Z, X): (Z, X, 1), (Z, Y): (0, Y, 1), (Z, Z): (0, Z, 1),
}  # fmt: skip


def _two_qubit(values: Floats, name: str, pair: tuple[int, ...]) -> Floats:
    control, target = pair
    if name == "cz":
        values = values.copy()
        _hadamard(values, target)
    moved = np.moveaxis(values, (control, target), (0, 1))
    out = np.empty_like(values)
    into = np.moveaxis(out, (control, target), (0, 1))
    for (c, t), (after_c, after_t, sign) in _CNOT.items():
        np.multiply(moved[c, t], sign, out=into[after_c, after_t])
    if name == "cz":
        _hadamard(out, target)
    return out


def _hadamard(values: Floats, q: int) -> None:
    _swap(values, q, X, Z)
    _select(values, q, Y)[...] *= -1.0


def _chunks(n_rows: int) -> Iterator[slice]:
    for start in range(0, n_rows, CHUNK):
        yield slice(start, min(start + CHUNK, n_rows))
