"""A recorded device cut down to the qubits a circuit uses: same numbers, a fraction of the time.

Qiskit's own local mode builds the noise of all 127 or 156 qubits for every run. Errors are attached
to gates on qubits, so those of qubits that no gate touches change nothing: the model is built from
a target that has only the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qiskit.providers import BackendV2, Options
from qiskit.transpiler import Target
from qiskit_aer.noise import NoiseModel

if TYPE_CHECKING:
    from qiskit import QuantumCircuit


@dataclass(frozen=True, eq=False)
class Cut:
    """A circuit on its own qubits only, and their noise.

    Attributes:
        circuit: parametrised; classical bits as in the original.
        noise: Aer's model for exactly these qubits.
        qubits: the physical qubit behind each of the circuit's.
    """

    circuit: QuantumCircuit
    noise: NoiseModel
    qubits: tuple[int, ...]


def cut(circuit: QuantumCircuit, target: Target) -> Cut:
    """``circuit``, which is in the device's gates, on the qubits it uses."""
    qubits = tuple(
        sorted({circuit.find_bit(q).index for step in circuit.data for q in step.qubits})
    )
    return Cut(_relabelled(circuit, qubits), noise_of(target, qubits), qubits)


def noise_of(target: Target, qubits: tuple[int, ...]) -> NoiseModel:
    """Aer's noise model of the device, for these physical qubits renumbered from 0."""
    return NoiseModel.from_backend(_TargetBackend(_part(target, qubits)))


def _relabelled(circuit: QuantumCircuit, qubits: tuple[int, ...]) -> QuantumCircuit:
    from qiskit import QuantumCircuit

    position = {qubit: i for i, qubit in enumerate(qubits)}
    made = QuantumCircuit(len(qubits), global_phase=circuit.global_phase)
    for register in circuit.cregs:
        made.add_register(register)
    for step in circuit.data:
        where = [made.qubits[position[circuit.find_bit(q).index]] for q in step.qubits]
        made.append(step.operation, where, step.clbits)
    return made


def _part(target: Target, qubits: tuple[int, ...]) -> Target:
    position = {qubit: i for i, qubit in enumerate(qubits)}
    part = Target(
        num_qubits=len(qubits),
        dt=target.dt,
        qubit_properties=[target.qubit_properties[q] for q in qubits],
    )
    for name in target.operation_names:
        operation: Any = target.operation_from_name(name)
        inside = {
            tuple(position[q] for q in where): figures
            for where, figures in target[name].items()
            if where is not None and position.keys() >= set(where)
        }
        if inside and not isinstance(operation, type):  # types are control flow
            part.add_instruction(operation, inside, name=name)
    return part


class _TargetBackend(BackendV2):  # type: ignore[misc]
    """What ``NoiseModel.from_backend`` needs: a target."""

    def __init__(self, target: Target) -> None:
        super().__init__(name="part of a recorded device")
        self._target = target

    @property
    def target(self) -> Target:
        return self._target

    @property
    def max_circuits(self) -> None:
        return None

    @classmethod
    def _default_options(cls) -> Options:
        return Options()

    def run(self, run_input: Any, **options: Any) -> Any:
        raise NotImplementedError("a part of a device is a description only")
