"""A circuit compiled to arithmetic on its Pauli coefficients; :mod:`.noise` has the picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Circuit, Gate, Slot, ZString

Term = tuple[int, int, tuple[int, ...]]
"""A row of the work array, its sign, and the power of each qubit's damping."""
Expression = tuple[Any, ...]
"""Rows that a rotation mixes; for a pair also the second's sign and damping over the first's."""

ONE, ZERO = 0, 1
"""Rows of the work array that hold a constant."""

# P -> i·A·P of one qubit, for a rotation about A: (new P, sign); I is 0, X 1, Z 2, Y 3.
PARTNERS: dict[str, dict[int, tuple[int, int]]] = {
    "rx": {3: (2, -1), 2: (3, 1)},
    "ry": {2: (1, -1), 1: (2, 1)},
    "rz": {1: (3, -1), 3: (1, 1)},
}
HADAMARD = {0: (0, 1), 1: (2, 1), 2: (1, 1), 3: (3, -1)}
FLIP = {0: (0, 1), 1: (1, 1), 2: (2, -1), 3: (3, -1)}


@dataclass(frozen=True)
class Step:
    """Rows ``out`` … of one rotation: cos·a, then sin·b, then cos·a + ratio·sin·b.

    Attributes:
        turn: which angle.
        out: first row written.
        cosines: rows a of the first kind.
        sines: rows b of the second kind.
        pairs: rows (a, b) of the third kind.
        ratios: where the third kind's ratios begin.
    """

    turn: int
    out: int
    cosines: NDArray[np.intp]
    sines: NDArray[np.intp]
    pairs: NDArray[np.intp]
    ratios: int


class Program:
    """The steps of one circuit.

    Attributes:
        turns: (angle, qubit whose noise it has; n for none) of every different rotation.
        steps: in order.
        powers, signs: of every factor: the steps' ratios, then one for each row read.
        masks: the Z-strings read, as bit masks of qubits.
        read: the row of each of them.
        n_rows: rows of the work array.
    """

    def __init__(self, circuit: Circuit, observables: tuple[ZString, ...]) -> None:
        n = circuit.n_qubits
        self.n = n
        self.turns: list[tuple[Slot | float, int]] = []
        self.steps: list[Step] = []
        self.powers: list[tuple[int, ...]] = []
        self.signs: list[int] = []
        self.n_rows = 2
        self.masks = sorted(
            {sum(1 << q for q in kept) for string in observables for kept in subsets(string)}
        )
        none = (0,) * n
        # A label has two bits a qubit: 1 for X, 2 for Z, 3 for Y.
        wanted = [{_z_label(mask, n) for mask in self.masks}]
        for gate in reversed(circuit.gates):
            wanted.append({q for p in wanted[-1] for q, _ in _images(gate, p)})
        wanted.reverse()
        state: dict[int, Term] = {p: (ONE, 1, none) for p in wanted[0] if _only_z(p, n)}
        for gate, labels in zip(circuit.gates, wanted[1:], strict=True):
            if gate.name in PARTNERS:
                state = self._rotation(gate, labels, state)
            else:
                state = self._clifford(gate, labels, state)
        ends = [state.get(_z_label(mask, n), (ZERO, 1, none)) for mask in self.masks]
        self.read = [row for row, _, _ in ends]
        self.signs += [sign for _, sign, _ in ends]
        self.powers += [power for _, _, power in ends]

    def _clifford(self, gate: Gate, labels: set[int], state: dict[int, Term]) -> dict[int, Term]:
        after: dict[int, Term] = {}
        for label in labels:
            ((source, flip),) = _images(gate, label)
            if source not in state:
                continue
            row, sign, power = state[source]
            if len(gate.qubits) == 2:
                power = _damped(power, label, gate.qubits)
            after[label] = (row, sign * flip, power)
        return after

    def _rotation(self, gate: Gate, labels: set[int], state: dict[int, Term]) -> dict[int, Term]:
        assert gate.angle is not None  # noqa: S101 - a Circuit gives every rotation one
        turn = self._turn(gate.angle, self.n if gate.name == "rz" else gate.qubits[0])
        after: dict[int, Term] = {}
        # Expressions already emitted by this step -> position among their kind.
        seen: tuple[dict[Expression, int], ...] = ({}, {}, {})
        pending: list[tuple[int, int, int, int, tuple[int, ...]]] = []
        for label in sorted(labels):
            images = _images(gate, label)
            if len(images) == 1:
                if label in state:
                    after[label] = state[label]
                continue
            first = state.get(images[0][0])
            second = state.get(images[1][0])
            flip = images[1][1]
            if first is not None and second is not None:
                ratio = tuple(b - a for a, b in zip(first[2], second[2], strict=True))
                kind, sign, power = 2, first[1], first[2]
                key: Expression = (first[0], second[0], sign * second[1] * flip, ratio)
            elif first is not None:
                kind, key, sign, power = 0, (first[0],), first[1], first[2]
            elif second is not None:
                kind, key, sign, power = 1, (second[0],), second[1] * flip, second[2]
            else:
                continue
            place = seen[kind].setdefault(key, len(seen[kind]))
            pending.append((label, kind, place, sign, power))
        starts = self._emit(turn, seen)
        for label, kind, place, sign, power in pending:
            after[label] = (starts[kind] + place, sign, power)
        return after

    def _emit(self, turn: int, seen: tuple[dict[Expression, int], ...]) -> list[int]:
        """Append a step; the first row of each of its kinds."""
        cosines, sines, pairs = (list(kind) for kind in seen)
        starts = [
            self.n_rows,
            self.n_rows + len(cosines),
            self.n_rows + len(cosines) + len(sines),
        ]
        if cosines or sines or pairs:
            self.steps.append(
                Step(
                    turn,
                    self.n_rows,
                    np.array([key[0] for key in cosines], dtype=np.intp),
                    np.array([key[0] for key in sines], dtype=np.intp),
                    np.array([key[:2] for key in pairs], dtype=np.intp).reshape(-1, 2),
                    len(self.signs),
                )
            )
            self.signs += [key[2] for key in pairs]
            self.powers += [key[3] for key in pairs]
        self.n_rows = starts[2] + len(pairs)
        return starts

    def _turn(self, angle: Slot | float, noisy: int) -> int:
        turn = (angle, noisy)
        if turn not in self.turns:
            self.turns.append(turn)
        return self.turns.index(turn)


def _images(gate: Gate, label: int) -> list[tuple[int, int]]:
    """U†PU as (string, sign): one of a Clifford; for a rotation, the cosine's and the sine's."""
    if len(gate.qubits) == 2:
        return [_two_qubit_image(gate, label)]
    shift = 2 * gate.qubits[0]
    here = (label >> shift) & 3
    rest = label & ~(3 << shift)
    if gate.name in PARTNERS:
        partner = PARTNERS[gate.name].get(here)
        if partner is None:
            return [(label, 1)]
        return [(label, 1), (rest | partner[0] << shift, partner[1])]
    new, sign = (HADAMARD if gate.name == "h" else FLIP)[here]
    return [(rest | new << shift, sign)]


def _two_qubit_image(gate: Gate, label: int) -> tuple[int, int]:
    control, target = gate.qubits
    xc, zc = (label >> 2 * control) & 1, (label >> 2 * control + 1) & 1
    xt, zt = (label >> 2 * target) & 1, (label >> 2 * target + 1) & 1
    # Aaronson and Gottesman, arXiv:quant-ph/0406196, table of tableau updates; both gates are
    # their own inverse.
    if gate.name == "cx":
        sign = -1 if xc and zt and xt == zc else 1
        xt, zc = xt ^ xc, zc ^ zt
    else:
        sign = -1 if xc and xt and zc != zt else 1
        zc, zt = zc ^ xt, zt ^ xc
    rest = label & ~(3 << 2 * control | 3 << 2 * target)
    return rest | (xc | zc << 1) << 2 * control | (xt | zt << 1) << 2 * target, sign


def _damped(power: tuple[int, ...], label: int, qubits: Iterable[int]) -> tuple[int, ...]:
    raised = list(power)
    for qubit in qubits:
        raised[qubit] += (label >> 2 * qubit) & 3 != 0
    return tuple(raised)


def _z_label(mask: int, n: int) -> int:
    return sum(2 << 2 * q for q in range(n) if mask >> q & 1)


def _only_z(label: int, n: int) -> bool:
    return not any(label >> 2 * q & 1 for q in range(n))


def subsets(string: ZString) -> list[ZString]:
    """Every part of a string, the empty one first."""
    return [kept for k in range(len(string) + 1) for kept in combinations(string, k)]
