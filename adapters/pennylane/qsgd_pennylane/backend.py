"""The simulators ``pennylane:DEVICE``: all rows of all batches in one call of the device."""

from __future__ import annotations

import pennylane as qml

from qsgd_core.backend import Simulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import Workload
from qsgd_core.errors import BackendError, CapabilityError, QSGDError
from qsgd_core.jobs import Bits, Expectations, Part, Result
from qsgd_core.seeds import derive_seed
from qsgd_pennylane import devices, translate
from qsgd_pennylane.options import PennyLaneOptions
from qsgd_pennylane.probe import execute, probe

MAX_QUBITS = {
    "default.qubit": 26,
    "default.mixed": 12,
    "reference.qubit": 20,
    "lightning.qubit": 28,
}
"""Where PennyLane's own devices fit into a few GB. What others hold is for them to say."""

MAX_EXECUTIONS = 2**24
"""PennyLane gives each bit as eight bytes: this bounds a call's memory to 128 MiB per qubit."""

BROADCAST = 2**22
"""Amplitudes that a tape holds at once; a batch with more is cut into several tapes."""


class PennyLane(Simulator):
    """A PennyLane device that simulates on this machine.

    Raises:
        CapabilityError: the device sends jobs to a service, or cannot run our circuits.
        UnknownBackendError: no installed plugin provides it.
        PluginLoadError: its plugin cannot be imported.
        ConfigError: it refuses its options.
    """

    def __init__(self, name: str, options: PennyLaneOptions | None = None) -> None:
        self.name = name
        self._device = name.partition(":")[2]
        self._options = options.arguments if options else {}
        devices.find(self._device)
        self._found = found = probe(self._device, self._options)
        if found.not_sampled and found.not_exact:
            raise CapabilityError(
                f"Backend {name!r} cannot run QSGD's circuits.",
                [found.not_sampled, found.not_exact],
            )
        # Devices without a seed: building one anew for each call could repeat its noise.
        self._kept: dict[int, qml.devices.Device] = {}
        self.capabilities = Capabilities(
            exact=found.not_exact is None,
            sampled=found.not_sampled is None,
            seeded=found.seeded,
            noisy=found.noisy,
            gates=translate.possible_gates(found.native),
            max_qubits=MAX_QUBITS.get(self._device),
            max_executions=MAX_EXECUTIONS,
            default_shots=None if found.not_exact is None else 1024,
        )

    def run(self, work: Workload, *, shots: int | None, seed: int) -> Result:
        """Bits of every row, or expectation values when ``shots`` is None; see the contract."""
        self._require(work, shots)
        scripts = [
            list(
                translate.tapes(
                    batch,
                    shots=shots,
                    native=self._found.native,
                    rows_per_tape=self._rows(batch.circuit.n_qubits),
                )
            )
            for batch in work.batches
        ]
        try:
            device = self._built(work.n_qubits, seed)
            results = execute([script for part in scripts for script in part], device)
        except QSGDError:
            raise
        except Exception as error:  # a third party's device runs here
            raise BackendError(
                f"Backend {self.name!r} failed on {work.n_rows} rows of {work.n_qubits} qubits: "
                f"{type(error).__name__}: {error}"
            ) from error
        parts: list[Part] = []
        start = 0
        for batch, part in zip(work.batches, scripts, strict=True):
            own = results[start : start + len(part)]
            start += len(part)
            if shots is None:
                parts.append(Expectations(translate.expectations(own, batch)))
            else:
                bits = translate.bits(own, batch.circuit, rows=batch.n_rows, shots=shots)
                parts.append(Bits(bits))
        return Result(tuple(parts))

    def _require(self, work: Workload, shots: int | None) -> None:
        why = self._found.not_exact if shots is None else self._found.not_sampled
        if why is not None:
            advice = "Give shots=1024, say." if shots is None else "Leave shots out."
            raise CapabilityError(f"Backend {self.name!r} cannot run this.", [why, advice])
        self.capabilities.require(self.name, work, shots=shots)

    def _built(self, n_qubits: int, seed: int) -> qml.devices.Device:
        if self._found.seeded:
            # 32 bits are what every generator takes.
            small = derive_seed(seed, "pennylane") % 2**32
            return devices.build(self._device, self._options, n_wires=n_qubits, seed=small)
        if n_qubits not in self._kept:
            self._kept[n_qubits] = devices.build(
                self._device, self._options, n_wires=n_qubits, seed=None
            )
        return self._kept[n_qubits]

    def _rows(self, n_qubits: int) -> int:
        """How many rows may share one tape."""
        per_row = n_qubits * (2 if "mixed" in self._device else 1)
        return max(1, BROADCAST >> per_row)
