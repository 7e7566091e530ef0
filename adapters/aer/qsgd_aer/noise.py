"""A user's noise model: reading it, and rewriting circuits into gates that carry its errors.

Aer attaches errors by gate name and qubits, and ``run`` does not transpile: a Hadamard under the
noise model of a device that has no Hadamard runs without any error. So circuits are transpiled
into the model's gates, onto qubits that it couples, with a fixed seed, and then checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Gate
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.transpiler import CouplingMap
from qiskit.transpiler.exceptions import TranspilerError
from qiskit_aer.noise import NoiseModel

from qsgd_core.errors import CapabilityError

GATES = {
    name: operation.num_qubits
    for name, operation in get_standard_gate_name_mapping().items()
    if isinstance(operation, Gate)
}
"""Qiskit's gates by name -> number of qubits."""

SEED = 0
"""Of the transpiler: one structure becomes one circuit, in every process."""


@dataclass(frozen=True)
class AerNoise:
    """A noise model with what follows from it for circuits.

    Attributes:
        model: not ideal.
    """

    model: NoiseModel

    @cached_property
    def everywhere(self) -> frozenset[str]:
        """Gates that carry an error on any qubits."""
        return frozenset(
            name
            for error in self.model.to_dict()["errors"]
            if error["type"] == "qerror" and "gate_qubits" not in error
            for name in error["operations"]
        )

    @cached_property
    def local(self) -> frozenset[tuple[str, tuple[int, ...]]]:
        """Gates that carry an error on these qubits in this order."""
        return frozenset(
            (name, tuple(qubits))
            for error in self.model.to_dict()["errors"]
            if error["type"] == "qerror" and "gate_qubits" in error
            for name in error["operations"]
            for qubits in error["gate_qubits"]
        )

    @cached_property
    def noisy(self) -> dict[int, frozenset[str]]:
        """Number of qubits -> gates with an error somewhere. Idling (``id``) is not counted."""
        names = (self.everywhere | {name for name, _ in self.local}) - {"id"}
        return {arity: frozenset(n for n in names if GATES.get(n) == arity) for arity in (1, 2)}

    @cached_property
    def basis(self) -> list[str]:
        """The model's gates, less those on two qubits without an error if others have one.

        A model read from its ``to_dict()`` lists cx beside the ecr that carries the errors.
        """
        pairs = self.noisy[2]
        return [
            name
            for name in self.model.basis_gates
            if name in GATES and (GATES[name] != 2 or not pairs or name in pairs)
        ]

    @cached_property
    def coupling(self) -> list[tuple[int, int]] | None:
        """Pairs of qubits with a two-qubit error; None if any pair will do."""
        if self.noisy[2] <= self.everywhere:
            return None
        return sorted((q[0], q[1]) for name, q in self.local if name in self.noisy[2])

    @cached_property
    def n_qubits(self) -> int | None:
        """Qubits that are coupled; None if there is no limit."""
        return None if self.coupling is None else 1 + max(max(pair) for pair in self.coupling)

    @property
    def in_measurement(self) -> bool:
        """Whether measuring carries an error."""
        return "measure" in self.model.noise_instructions

    def transpile(self, circuit: QuantumCircuit, name: str) -> QuantumCircuit:
        """``circuit`` in the model's gates, on qubits that it couples.

        Args:
            circuit: any gates, on qubits 0 … n-1.
            name: of the simulator, for messages.

        Raises:
            CapabilityError: the model's gates do not suffice, or would run without its errors.
        """
        try:
            rewritten = transpile(
                circuit,
                basis_gates=self.basis,
                coupling_map=None if self.coupling is None else CouplingMap(self.coupling),
                optimization_level=1,
                seed_transpiler=SEED,
            )
        except TranspilerError as error:
            raise CapabilityError(
                f"Backend {name!r} cannot run this under the noise model.",
                [
                    f"The model's gates are {', '.join(self.basis)}, coupled on "
                    f"{self.coupling or 'any qubits'}, and Qiskit finds no such circuit: {error} "
                    "Use fewer qubits, or NoiseModel(basis_gates=[…]) with all gates of the device."
                ],
            ) from error
        self._check(rewritten, name)
        return rewritten

    def _check(self, circuit: QuantumCircuit, name: str) -> None:
        """Raise CapabilityError if the circuit misses the errors that the model has for it."""
        placed = {
            (step.operation.name, tuple(circuit.find_bit(bit).index for bit in step.qubits))
            for step in circuit.data
        }
        for arity in (1, 2):
            gates = {(gate, qubits) for gate, qubits in placed if GATES.get(gate) == arity}
            bare = {g for g in gates if g[0] not in self.everywhere and g not in self.local}
            # On one qubit some gates are free of errors by nature (a device's rz is a change of
            # frame); a pair of qubits without an error where others have one is a mistake.
            missed = bare if arity == 2 else bare == gates and bare
            if self.noisy[arity] and missed:
                gate, qubits = min(missed)
                raise CapabilityError(
                    f"Backend {name!r} cannot run this under the noise model.",
                    [
                        f"The model has errors for {', '.join(sorted(self.noisy[arity]))}, and "
                        f"the circuit, in the gates {', '.join(self.basis)}, has {gate} on "
                        f"{qubits}, which carries none. Name the gates that the device has: "
                        "NoiseModel(basis_gates=[…])."
                    ],
                )
