"""A device's own calibration as a NoiseSnapshot."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from qsgd_core.jobs import NoiseSnapshot

if TYPE_CHECKING:
    from qsgd_ibm.translate import Isa


def stamp_of(device: Any) -> str:
    """Names the calibration by its date, in UTC whatever the machine's zone is."""
    properties = device.properties()
    if properties is None:
        return "unknown"
    return str(properties.last_update_date.astimezone(UTC).isoformat())


def snapshot(device: Any, isa: Isa) -> NoiseSnapshot:
    """The figures of the physical qubits that ``isa`` runs on, in the order of the circuit's.

    Args:
        device: anything with IBM's ``properties()`` and ``target``.
        isa: a circuit on this device. Readout is that of the qubits it is measured on.

    Returns:
        Gate errors are keyed by physical qubits, under the device's own gate names.
    """
    properties = device.properties()
    inside = set(isa.layout)
    readout = []
    for qubit in isa.measured:
        figures = properties.qubit_property(qubit)
        even = figures.get("readout_error", (0.0,))
        readout.append(
            (
                float(figures.get("prob_meas1_prep0", even)[0]),
                float(figures.get("prob_meas0_prep1", even)[0]),
            )
        )
    errors: dict[str, dict[tuple[int, ...], float]] = {}
    for name in device.target.operation_names:
        if name == "measure":
            continue
        for qubits, figures in device.target[name].items():
            if qubits and figures and figures.error is not None and inside.issuperset(qubits):
                errors.setdefault(name, {})[tuple(qubits)] = float(figures.error)
    return NoiseSnapshot(stamp_of(device), isa.layout, tuple(readout), errors)
