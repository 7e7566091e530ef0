"""A noisy circuit compiled to a few gathers and multiplications: ⟨Z-strings⟩ under known noise.

Noise model, per qubit: every rx and ry turns by (1 + gain)·angle + offset; every qubit of a
two-qubit gate is depolarised after it; reading flips 0 to 1 and 1 to 0 with two probabilities. Rz
is a change of frame on superconducting devices and stays exact; so do h and x.

The state is kept as its Pauli coefficients ⟨P⟩ (the Pauli transfer picture). There a Clifford gate
only renames them, depolarising only scales them, and a rotation mixes them in pairs, so the
compiler follows names, signs and powers of the damping symbolically and emits arithmetic for
rotations alone, on those strings which are both reachable from |0…0⟩ and visible to an observable.
Equal expressions are emitted once.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Circuit, Slot, ZString
from qsgd_core.errors import CapabilityError, ConfigError
from qsgd_core.simulate.pauli_program import ONE, ZERO, Program, subsets

Floats = NDArray[np.float64]
MAX_QUBITS = 6
"""4**n Pauli strings: above this, compiling and running take too long for a training step."""

PARAMETERS = ("offset", "gain", "depolarising", "e01", "e10")
"""Columns of a parameter array: radians, relative, probability (contraction of the Bloch vector
by 1 - p), P(read 1 | 0), P(read 0 | 1)."""

MAX_ELEMENTS = 2**19
"""Numbers in the work array (4 MiB, about a core's own cache); more rows are taken in turns."""


class NoisyCircuit:
    """One circuit's ⟨observables⟩ as a function of its angles and of its qubits' noise.

    Args:
        circuit: up to :data:`MAX_QUBITS` qubits.
        observables: Z-strings.

    Raises:
        CapabilityError: too many qubits.
    """

    def __init__(self, circuit: Circuit, observables: tuple[ZString, ...]) -> None:
        if circuit.n_qubits > MAX_QUBITS:
            raise CapabilityError(
                f"A noisy circuit is compiled for up to {MAX_QUBITS} qubits; this one has "
                f"{circuit.n_qubits}.",
                (f"Use n_qubits={MAX_QUBITS} or less.",),
            )
        self.circuit = circuit
        self.observables = observables
        program = Program(circuit, observables)
        self._n_rows = program.n_rows
        self._steps = program.steps
        self._turns = program.turns
        slots = [t[0].index if isinstance(t[0], Slot) else circuit.n_slots for t in self._turns]
        self._slots = np.array(slots, dtype=np.intp)
        self._fixed = np.array([0.0 if isinstance(t[0], Slot) else t[0] for t in self._turns])
        self._noisy = np.array([t[1] for t in self._turns], dtype=np.intp)
        self._powers = np.array(program.powers, dtype=np.float64).reshape(-1, circuit.n_qubits)
        self._signs = np.array(program.signs, dtype=np.float64)
        self._masks = {mask: i for i, mask in enumerate(program.masks)}
        self._read = np.array(program.read, dtype=np.intp)
        self._single = all(len(string) == 1 for string in observables)
        self._of_qubit = np.array([s[0] for s in observables if s], dtype=np.intp)

    def __call__(self, angles: Floats, parameters: Floats) -> Floats:
        """⟨observables⟩ of every row.

        Args:
            angles: float64 (B, n_slots), radians.
            parameters: float64 (n, 5) or (B, n, 5), columns as in :data:`PARAMETERS`;
                depolarising below 1.

        Returns:
            float64 (B, n_observables).

        Raises:
            ConfigError: shapes that do not fit.
        """
        n = self.circuit.n_qubits
        fits = parameters.shape in ((n, len(PARAMETERS)), (len(angles), n, len(PARAMETERS)))
        if angles.ndim != 2 or angles.shape[1] != self.circuit.n_slots or not fits:
            raise ConfigError(
                f"A circuit of {self.circuit.n_slots} slots and {n} qubits got angles of shape "
                f"{angles.shape} and parameters of shape {parameters.shape}; it needs (B, "
                f"{self.circuit.n_slots}) and ({n}, {len(PARAMETERS)}), with or without B before."
            )
        columns = max(1, MAX_ELEMENTS // self._n_rows)
        if len(angles) <= columns:
            return self._run(angles, parameters)
        each_row = parameters.ndim == 3
        return np.concatenate(
            [
                self._run(
                    angles[i : i + columns], parameters[i : i + columns] if each_row else parameters
                )
                for i in range(0, len(angles), columns)
            ]
        )

    def _run(self, angles: Floats, parameters: Floats) -> Floats:
        # Parameters first, qubits second, rows last: (5, n, B), or (5, n, 1) for all rows alike.
        noise = np.ascontiguousarray(parameters.T)
        noise = noise[:, :, None] if parameters.ndim == 2 else noise
        cos, sin = self._rotations(angles, noise)
        factors = np.exp(self._powers @ np.log1p(-noise[2]))
        factors *= self._signs[:, None]
        work = np.empty((self._n_rows, len(angles)))
        work[ONE], work[ZERO] = 1.0, 0.0
        for step in self._steps:
            c, s = cos[step.turn], sin[step.turn]
            start = step.out
            if len(step.cosines):
                stop = start + len(step.cosines)
                np.multiply(work[step.cosines], c, out=work[start:stop])
                start = stop
            if len(step.sines):
                stop = start + len(step.sines)
                np.multiply(work[step.sines], s, out=work[start:stop])
                start = stop
            if (k := len(step.pairs)) > 0:
                # One gather for both halves.
                both = work[step.pairs.T.ravel()]
                both[:k] *= c
                second = both[k:]
                second *= factors[step.ratios : step.ratios + k]
                second *= s
                np.add(both[:k], second, out=work[start : start + k])
        values = work[self._read]
        values *= factors[len(factors) - len(self._read) :]
        return np.ascontiguousarray(self._observed(values, noise).T)

    def _rotations(self, angles: Floats, noise: Floats) -> tuple[Floats, Floats]:
        """Cosine and sine of every turn: (turns, B)."""
        padded = np.concatenate([angles.T, np.zeros((1, len(angles)))])
        turned = padded[self._slots] + self._fixed[:, None]
        # One more qubit without noise, for rz.
        silent = np.zeros((1, noise.shape[2]))
        turned *= np.concatenate([1.0 + noise[1], silent + 1.0])[self._noisy]
        turned += np.concatenate([noise[0], silent])[self._noisy]
        return np.cos(turned), np.sin(turned)

    def _observed(self, values: Floats, noise: Floats) -> Floats:
        """What is read: Z of each qubit becomes (e10 - e01) + (1 - e01 - e10)·Z."""
        shift, scale = noise[4] - noise[3], 1.0 - noise[3] - noise[4]
        if self._single:
            rows = [self._masks[1 << string[0]] for string in self.observables]
            read: Floats = values[rows] * scale[self._of_qubit] + shift[self._of_qubit]
            return read
        read = np.zeros((len(self.observables), values.shape[1]))
        for out, string in zip(read, self.observables, strict=True):
            for kept in subsets(string):
                term = values[self._masks[sum(1 << q for q in kept)]]
                for qubit in string:
                    term = term * (scale[qubit] if qubit in kept else shift[qubit])
                out += term
        return read


@lru_cache(maxsize=64)
def compiled(circuit: Circuit, observables: tuple[ZString, ...]) -> NoisyCircuit:
    """The compiled circuit, from the process's cache."""
    return NoisyCircuit(circuit, observables)


def average_gate_error(p: float) -> float:
    """Average error of a two-qubit gate followed by depolarising both qubits with ``p`` each."""
    return 0.8 * (1.0 - (1.0 - 0.75 * p) ** 2)


def depolarising_of(gate_error: float) -> float:
    """The p per qubit whose two-qubit gate has this average error; inverse of the above.

    Entanglement fidelity of the two channels side by side is (1 - 3p/4)², and average fidelity is
    (4F + 1)/5 (Horodecki 1999; Nielsen 2002). Errors above 3/4 count as 3/4.
    """
    return (4.0 / 3.0) * (1.0 - math.sqrt(1.0 - 1.25 * min(max(gate_error, 0.0), 0.75)))
