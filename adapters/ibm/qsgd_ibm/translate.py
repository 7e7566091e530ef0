"""QSGD's circuits as Qiskit's, fitted to a device once, and measured bits back as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qsgd_core.circuits import Slot, ansatz
from qsgd_core.errors import CapabilityError, ResultCorruptError
from qsgd_core.jobs import Bits

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from qiskit import QuantumCircuit

    from qsgd_core.circuits import Circuit, CircuitBatch
    from qsgd_ibm.options import TranspileOptions

REGISTER = "c"
"""Name of the classical register: bit j of it is qubit j of the circuit."""


@dataclass(frozen=True, eq=False)
class Isa:
    """A circuit in a device's own gates, still parametrised.

    Attributes:
        circuit: on the device's qubits.
        slots: the slot that each of ``circuit.parameters`` stands for, in that order. Slots whose
            gate the transpiler dropped (an Rz right before a measurement) are not there.
        layout: physical qubit that each of the circuit's qubits starts on.
        measured: physical qubit that each is measured on; another one where the circuit needs a
            connection that the device lacks, such as the ring's, and is routed by swaps.
        duration_s: one execution without repetition delay.
    """

    circuit: QuantumCircuit
    slots: tuple[int, ...]
    layout: tuple[int, ...]
    measured: tuple[int, ...]
    duration_s: float

    def angles(self, batch: CircuitBatch) -> NDArray[np.float64]:
        """float64 (B, len(circuit.parameters)), columns in the order of ``circuit.parameters``."""
        return np.ascontiguousarray(batch.angles[:, list(self.slots)])


class Compiler:
    """Fits circuits to devices, once each, with the layout pinned.

    Every circuit of n qubits runs on the same physical ones: those that the transpiler gives a
    chain of n when the first such circuit is seen. The next calibration does not move them. A
    layout that depended on the circuit, or moved within a run, would change the noise law under
    it; and one found for a circuit without entangler would scatter the qubits over the device.
    """

    def __init__(self, options: TranspileOptions) -> None:
        self._options = options
        self._cache: dict[tuple[object, ...], Isa] = {}
        self._layouts: dict[tuple[str, int], tuple[int, ...]] = {}

    def compile(self, circuit: Circuit, device: Any, *, stamp: str) -> Isa:
        """The circuit for ``device`` under the calibration ``stamp``.

        Raises:
            CapabilityError: it does not fit the device or the layout that was asked for.
        """
        options = self._options
        key = (
            circuit.digest,
            device.name,
            stamp,
            options.optimization_level,
            options.seed_transpiler,
        )
        if key not in self._cache:
            layout = self._layout(circuit.n_qubits, device)
            self._cache[key] = _transpile(circuit, device, options, layout)
        return self._cache[key]

    def _layout(self, n_qubits: int, device: Any) -> tuple[int, ...]:
        given = self._options.initial_layout
        if given is None:
            key = (device.name, n_qubits)
            if key not in self._layouts:
                chain = ansatz(n_qubits, 1, "chain")
                self._layouts[key] = _transpile(chain, device, self._options, None).layout
            return self._layouts[key]
        if len(given) < n_qubits or max(given) >= device.target.num_qubits:
            raise CapabilityError(
                f"initial_layout={list(given)} does not fit a circuit of {n_qubits} qubits "
                f"on {device.name}, which has qubits 0 … {device.target.num_qubits - 1}."
            )
        return given[:n_qubits]


def to_qiskit(circuit: Circuit) -> tuple[QuantumCircuit, tuple[Any, ...]]:
    """The circuit with its measurements, and the parameter of each slot."""
    from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister
    from qiskit.circuit import ParameterVector

    slots = tuple(ParameterVector("slot", circuit.n_slots))
    made = QuantumCircuit(
        QuantumRegister(circuit.n_qubits, "q"), ClassicalRegister(circuit.n_qubits, REGISTER)
    )
    for gate in circuit.gates:
        angle = slots[gate.angle.index] if isinstance(gate.angle, Slot) else gate.angle
        arguments = gate.qubits if angle is None else (angle, *gate.qubits)
        getattr(made, gate.name)(*arguments)
    qubits = range(circuit.n_qubits)
    made.measure(qubits, qubits)
    return made, slots


def pubs(isa: Isa, batch: CircuitBatch, metadata: dict[str, Any]) -> list[Any]:
    """What Qiskit's samplers run for one batch.

    One entry for all rows. A circuit without parameters gets one entry a row: IBM's client drops
    the shape of an empty parameter array, and would run one row only.
    """
    from qiskit.primitives.containers.bindings_array import BindingsArray
    from qiskit.primitives.containers.sampler_pub import SamplerPub

    circuit = isa.circuit.copy()
    circuit.metadata = metadata
    if not isa.slots:
        return [SamplerPub(circuit) for _ in range(batch.n_rows)]
    return [SamplerPub(circuit, BindingsArray({tuple(circuit.parameters): isa.angles(batch)}))]


def require_isa(circuits: list[QuantumCircuit], target: Any) -> None:
    """Refuse circuits the device cannot run; IBM's sampler would send them.

    Raises:
        CapabilityError: a gate or connection that the device does not have.
    """
    from qiskit_ibm_runtime.exceptions import IBMInputValueError
    from qiskit_ibm_runtime.utils import validate_isa_circuits

    try:
        validate_isa_circuits(circuits, target)
    except IBMInputValueError as error:
        raise CapabilityError(
            f"The device cannot run the circuit; nothing was sent. {error}"
        ) from error


def decode(text: str) -> list[Any]:
    """The PUB results in the text of ``GET /jobs/{id}/results``.

    Raises:
        ResultCorruptError: it is empty, cut, or something else than a sampler's result.
    """
    from qiskit.primitives import PrimitiveResult
    from qiskit_ibm_runtime.decoders.defaults import DEFAULT_DECODERS

    if not text.strip():
        raise ResultCorruptError("The result is empty.")
    found: Any = text
    try:
        for decoder in DEFAULT_DECODERS["executor"]:
            if decoder.is_applicable(found):
                found = decoder.decode(found)
    except Exception as error:  # the decoders raise whatever the text leads them to
        raise ResultCorruptError(
            f"The result cannot be read ({type(error).__name__}); it starts with {text[:80]!r}."
        ) from error
    if not isinstance(found, PrimitiveResult):
        raise ResultCorruptError(f"The result is a {type(found).__name__}, not a sampler's result.")
    return list(found)


def metadata_of(pub: Any) -> dict[str, Any]:
    """What :func:`pubs` sent along with the circuit."""
    metadata = getattr(pub, "metadata", None)
    circuit = metadata.get("circuit_metadata") if isinstance(metadata, dict) else None
    found = circuit.get("qsgd") if isinstance(circuit, dict) else None
    return found if isinstance(found, dict) else {}


def bits(entries: list[Any], *, rows: int, shots: int, n_qubits: int) -> Bits:
    """The bits of one batch.

    Args:
        entries: its PUB results, in order.
        rows: B.
        shots: per row.
        n_qubits: n.

    Returns:
        uint8 (B, shots, n); column j is qubit j.

    Raises:
        ResultCorruptError: another shape.
    """
    arrays = []
    for entry in entries:
        register = getattr(getattr(entry, "data", None), REGISTER, None)
        if register is None:
            raise ResultCorruptError(f"The result has no register {REGISTER!r}.")
        # "little": column j is bit j of the register, which is qubit j.
        array = np.asarray(register.to_bool_array(order="little"), dtype=np.uint8)
        arrays.append(array.reshape(-1, *array.shape[-2:]))
    values = np.concatenate(arrays) if arrays else np.empty((0, 0, 0), np.uint8)
    if values.shape != (rows, shots, n_qubits):
        raise ResultCorruptError(
            f"The result has shape {values.shape} (rows, shots, qubits); expected "
            f"{(rows, shots, n_qubits)}."
        )
    return Bits(np.ascontiguousarray(values))


def _transpile(
    circuit: Circuit, device: Any, options: TranspileOptions, layout: tuple[int, ...] | None
) -> Isa:
    from qiskit.transpiler import TranspilerError, generate_preset_pass_manager

    made, slots = to_qiskit(circuit)
    try:
        manager = generate_preset_pass_manager(
            optimization_level=options.optimization_level,
            backend=device,
            seed_transpiler=options.seed_transpiler,
            initial_layout=None if layout is None else list(layout),
        )
        isa = manager.run(made)
    except TranspilerError as error:
        raise CapabilityError(
            f"A circuit of {circuit.n_qubits} qubits does not fit {device.name}: {error}"
        ) from error
    index = {parameter: i for i, parameter in enumerate(slots)}
    return Isa(
        circuit=isa,
        slots=tuple(index[p] for p in isa.parameters),
        layout=tuple(isa.layout.initial_index_layout(filter_ancillas=True)),
        measured=tuple(isa.layout.final_index_layout(filter_ancillas=True)),
        duration_s=float(isa.estimate_duration(device.target, "s")),
    )
