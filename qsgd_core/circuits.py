"""Circuits as data: a closed gate set, parameter slots, batches, and the workload of one call.

A :class:`Circuit` is a structure with slots; a :class:`CircuitBatch` is one structure with B rows
of angles; a :class:`Workload` is what one call of a simulator or one job of a backend runs. Every
qubit is measured in the Z basis at the end. Qubit j is column j of every array and ``c[j]`` of the
OpenQASM text.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from qsgd_core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GATES: dict[str, tuple[int, int]] = {
    "h": (1, 0),
    "x": (1, 0),
    "rx": (1, 1),
    "ry": (1, 1),
    "rz": (1, 1),
    "cx": (2, 0),
    "cz": (2, 0),
}
"""Gate name -> (number of qubits, number of angles). ``r*`` angles are radians, exp(-i a P / 2)."""

ZString: TypeAlias = tuple[int, ...]
"""A product of Pauli Z operators on these qubits; ``(0, 2)`` is Z_0 Z_2."""

Entangler: TypeAlias = Literal["none", "chain", "ring"]


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands for column ``index`` of a batch's angle array."""

    index: int


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate; ``angle`` is None, a fixed number of radians, or a slot."""

    name: str
    qubits: tuple[int, ...]
    angle: float | Slot | None = None


@dataclass(frozen=True)
class Circuit:
    """A circuit structure on ``n_qubits`` qubits, all starting in |0⟩, all measured in Z.

    Raises:
        ConfigError: a gate outside :data:`GATES`, a qubit out of range, a missing angle, or slots
            that are not exactly 0 … n_slots - 1.
    """

    n_qubits: int
    gates: tuple[Gate, ...]

    def __post_init__(self) -> None:
        if self.n_qubits < 1:
            raise ConfigError(f"A circuit needs at least one qubit, not {self.n_qubits}.")
        for gate in self.gates:
            _check_gate(gate, self.n_qubits)
        used = {g.angle.index for g in self.gates if isinstance(g.angle, Slot)}
        if used != set(range(len(used))):
            raise ConfigError(
                f"A circuit's slots must be numbered 0 … k-1 without gaps; found {sorted(used)}."
            )

    @cached_property
    def n_slots(self) -> int:
        """Number of angles that a row must give."""
        return len({g.angle.index for g in self.gates if isinstance(g.angle, Slot)})

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the structure, hexadecimal: the same in every process and on every machine."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def to_dict(self) -> dict[str, object]:
        """A JSON form; :meth:`from_dict` reads it back."""
        return {
            "n_qubits": self.n_qubits,
            "gates": [
                [
                    g.name,
                    list(g.qubits),
                    _json_angle(g.angle),
                ]
                for g in self.gates
            ],
        }

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> Circuit:
        """Read the JSON form."""
        gates = [
            Gate(name, tuple(qubits), Slot(angle["slot"]) if isinstance(angle, dict) else angle)
            for name, qubits, angle in data["gates"]  # type: ignore[attr-defined]
        ]
        return cls(int(data["n_qubits"]), tuple(gates))  # type: ignore[call-overload]

    def to_qasm3(self, angles: NDArray[np.float64] | None = None) -> str:
        """OpenQASM 3 text; slots become ``input float[64] p0`` … unless ``angles`` binds them.

        Args:
            angles: float64 (n_slots,), radians, or None to leave the slots open.

        Raises:
            ConfigError: ``angles`` has the wrong length.
        """
        if angles is not None and len(angles) != self.n_slots:
            raise ConfigError(f"The circuit has {self.n_slots} slots; {len(angles)} angles given.")
        lines = ["OPENQASM 3.0;", 'include "stdgates.inc";']
        if angles is None:
            lines += [f"input float[64] p{i};" for i in range(self.n_slots)]
        lines += [f"bit[{self.n_qubits}] c;", f"qubit[{self.n_qubits}] q;"]
        for gate in self.gates:
            operands = ", ".join(f"q[{i}]" for i in gate.qubits)
            lines.append(f"{gate.name}{_qasm_angle(gate.angle, angles)} {operands};")
        lines += [f"c[{i}] = measure q[{i}];" for i in range(self.n_qubits)]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, eq=False)
class CircuitBatch:
    """One circuit run once per row of angles.

    Attributes:
        circuit: the structure.
        angles: float64 (B, n_slots), radians. Row order is kept in every result.
        observables: what the caller wants to know of each row; None means Z_0 … Z_{n-1}.
    """

    circuit: Circuit
    angles: NDArray[np.float64]
    observables: tuple[ZString, ...] = ()

    def __post_init__(self) -> None:
        import numpy as np

        angles = np.ascontiguousarray(self.angles, dtype=np.float64)
        if angles.ndim != 2 or angles.shape[1] != self.circuit.n_slots:
            raise ConfigError(
                f"A batch needs angles of shape (rows, {self.circuit.n_slots}); "
                f"found {angles.shape}."
            )
        if not np.isfinite(angles).all():
            raise ConfigError("A batch's angles must be finite; found NaN or infinity.")
        object.__setattr__(self, "angles", angles)
        if not self.observables:
            single = tuple((i,) for i in range(self.circuit.n_qubits))
            object.__setattr__(self, "observables", single)
        for string in self.observables:
            if len(set(string)) != len(string) or not all(
                0 <= q < self.circuit.n_qubits for q in string
            ):
                raise ConfigError(
                    f"Observable {string} does not fit {self.circuit.n_qubits} qubits."
                )

    @property
    def n_rows(self) -> int:
        """B, the number of rows."""
        return int(self.angles.shape[0])


@dataclass(frozen=True, eq=False)
class Workload:
    """What one call or one job runs: circuit batches that share one shot count."""

    batches: tuple[CircuitBatch, ...]

    def __post_init__(self) -> None:
        if not self.batches or any(b.n_rows == 0 for b in self.batches):
            raise ConfigError("A workload needs at least one batch, and each batch one row.")

    @property
    def n_rows(self) -> int:
        """Rows of all batches together: the number of circuits that run."""
        return sum(b.n_rows for b in self.batches)

    @property
    def n_qubits(self) -> int:
        """Qubits of the widest circuit."""
        return max(b.circuit.n_qubits for b in self.batches)

    def digest(self) -> str:
        """SHA-256 over structures, angles (to the bit) and observables, hexadecimal."""
        sha = hashlib.sha256()
        for batch in self.batches:
            sha.update(batch.circuit.digest.encode())
            sha.update(json.dumps([batch.n_rows, batch.observables]).encode())
            sha.update(batch.angles.astype("<f8").tobytes())
        return sha.hexdigest()


def ansatz(
    n_qubits: int, depth: int, entangler: Entangler = "chain", *, phases: bool = False
) -> Circuit:
    """The paper's circuit (Eq. 5): H once, then ``depth`` layers of Ry, Rz and the entangler.

    Slots 0 … n-1 hold the Ry angles, the same in every layer (data re-uploading). With
    ``phases=True`` slots n … n + depth·n - 1 hold the Rz angles φ_{l,i}, layer by layer;
    without, the Rz gates are left out (φ = 0).

    Args:
        n_qubits: at least 1.
        depth: number of layers, at least 1.
        entangler: ``chain`` CNOT(0,1), CNOT(1,2), …; ``ring`` adds CNOT(n-1,0) for n > 2;
            ``none`` leaves the qubits independent.
        phases: whether the Rz gates are there.

    Raises:
        ConfigError: a value out of range.
    """
    return _ansatz(n_qubits, depth, entangler, phases)


@lru_cache(maxsize=64)
def _ansatz(n_qubits: int, depth: int, entangler: Entangler, phases: bool) -> Circuit:
    """One object each, so that what is derived from it is derived once and not in every step."""
    if depth < 1:
        raise ConfigError(f"depth must be at least 1, not {depth}.")
    gates = [Gate("h", (i,)) for i in range(n_qubits)]
    for layer in range(depth):
        for i in range(n_qubits):
            gates.append(Gate("ry", (i,), Slot(i)))
            if phases:
                gates.append(Gate("rz", (i,), Slot(n_qubits * (1 + layer) + i)))
        gates += [Gate("cx", pair) for pair in entangler_pairs(n_qubits, entangler)]
    return Circuit(n_qubits, tuple(gates))


def entangler_pairs(n_qubits: int, entangler: Entangler) -> list[tuple[int, int]]:
    """(control, target) of each CNOT of one layer, in order."""
    if entangler == "none":
        return []
    chain = [(i, i + 1) for i in range(n_qubits - 1)]
    if entangler == "chain":
        return chain
    if entangler == "ring":
        return chain + ([(n_qubits - 1, 0)] if n_qubits > 2 else [])
    raise ConfigError(f"entangler must be none, chain or ring, not {entangler!r}.")


def _check_gate(gate: Gate, n_qubits: int) -> None:
    if gate.name not in GATES:
        raise ConfigError(f"Unknown gate {gate.name!r}; the gate set is {', '.join(GATES)}.")
    arity, angles = GATES[gate.name]
    distinct = len(set(gate.qubits)) == len(gate.qubits) == arity
    if not distinct or not all(0 <= q < n_qubits for q in gate.qubits):
        raise ConfigError(
            f"Gate {gate.name} needs {arity} distinct qubit(s) below {n_qubits}; "
            f"found {gate.qubits}."
        )
    if (gate.angle is not None) != bool(angles):
        raise ConfigError(f"Gate {gate.name} takes {angles} angle(s); found {gate.angle!r}.")
    if isinstance(gate.angle, (int, float)) and not math.isfinite(gate.angle):
        raise ConfigError(f"Gate {gate.name} needs a finite angle; found {gate.angle!r}.")


def _json_angle(angle: float | Slot | None) -> dict[str, int] | float | None:
    if isinstance(angle, Slot):
        return {"slot": angle.index}
    return None if angle is None else float(angle)


def _qasm_angle(angle: float | Slot | None, angles: NDArray[np.float64] | None) -> str:
    if angle is None:
        return ""
    if isinstance(angle, Slot):
        return f"(p{angle.index})" if angles is None else f"({float(angles[angle.index])!r})"
    return f"({float(angle)!r})"
