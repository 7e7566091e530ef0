"""``fake_*``: circuits run here with the noise recorded of one of IBM's devices."""

from __future__ import annotations

from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from qsgd_core.backend import Simulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.errors import BackendError, UnknownBackendError
from qsgd_core.jobs import Bits, NoiseSnapshot, Result
from qsgd_core.seeds import derive_seed
from qsgd_ibm.options import FakeOptions
from qsgd_ibm.snapshot import snapshot, stamp_of
from qsgd_ibm.translate import Compiler, Isa

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qsgd_core.circuits import CircuitBatch, Workload
    from qsgd_ibm.fake.translate import Cut

MAX_QUBITS = 10
"""A density matrix of ten qubits takes 16 MiB; routing may need a few qubits more."""


class FakeDevice(Simulator):
    """A recorded device: its gates, its couplings, its noise, at the recorded calibration.

    Circuits are transpiled to the device and simulated as density matrices on the qubits they use.

    Args:
        name: ``fake_brisbane`` and the like.
        options: how circuits are transpiled.

    Raises:
        UnknownBackendError: there is no recording of that name.
    """

    def __init__(self, name: str, options: FakeOptions | None = None) -> None:
        self.name = name
        self._device = _recording(name)
        options = options or FakeOptions()
        self._compiler = Compiler(options)
        self._stamp = stamp_of(self._device)
        self._cuts: dict[Isa, Cut] = {}
        self.capabilities = Capabilities(
            sampled=True,
            seeded=True,
            noisy=True,
            max_qubits=min(
                MAX_QUBITS, len(options.initial_layout or range(self._device.num_qubits))
            ),
            # Aer hands every shot back as a string: this bounds a call's memory to about 300 MiB.
            max_executions=2**22,
            default_shots=1024,
        )

    def run(self, work: Workload, *, shots: int | None, seed: int) -> Result:
        """Bits of every batch, each with a seed of its own, derived from ``seed``."""
        self.capabilities.require(self.name, work, shots=shots)
        assert shots is not None  # noqa: S101  (required above: this simulator is not exact)
        isas = [self._isa(batch) for batch in work.batches]
        parts = tuple(
            self._run(isa, batch, shots=shots, seed=derive_seed(seed, "batch", index))
            for index, (isa, batch) in enumerate(zip(isas, work.batches, strict=True))
        )
        widest = max(isas, key=lambda isa: len(isa.layout))
        return Result(parts, physical_qubits=widest.layout, calibration_stamp=self._stamp)

    def calibration(self, work: Workload) -> NoiseSnapshot:
        """The recorded figures of the qubits that ``work``'s widest circuit runs on."""
        widest = max(map(self._isa, work.batches), key=lambda isa: len(isa.layout))
        return snapshot(self._device, widest)

    def _isa(self, batch: CircuitBatch) -> Isa:
        return self._compiler.compile(batch.circuit, self._device, stamp=self._stamp)

    def _run(self, isa: Isa, batch: CircuitBatch, *, shots: int, seed: int) -> Bits:
        from qiskit_aer import AerSimulator

        if isa not in self._cuts:
            from qsgd_ibm.fake.translate import cut

            self._cuts[isa] = cut(isa.circuit, self._device.target)
        part = self._cuts[isa]
        simulator = AerSimulator(
            method="density_matrix", noise_model=part.noise, max_parallel_threads=1
        )
        # A circuit without parameters has nothing to bind: it is listed once a row instead.
        bound = dict(zip(part.circuit.parameters, isa.angles(batch).T, strict=True))
        answer = simulator.run(
            [part.circuit] if bound else [part.circuit] * batch.n_rows,
            shots=shots,
            parameter_binds=[bound] if bound else None,
            seed_simulator=seed % 2**31,
            memory=True,
        ).result()
        if not answer.success:
            raise BackendError(
                f"Backend {self.name!r}: Aer could not run the circuit: {answer.status}"
            )
        rows = [_bits(answer.get_memory(i), batch.circuit.n_qubits) for i in range(batch.n_rows)]
        return Bits(np.stack(rows))


@lru_cache(maxsize=1)
def recordings() -> dict[str, Any]:
    """Name -> class of every recorded device that IBM's client ships."""
    from qiskit_ibm_runtime import fake_provider

    found = (getattr(fake_provider, name) for name in dir(fake_provider))
    named = ((getattr(cls, "backend_name", None), cls) for cls in found if isinstance(cls, type))
    return {name: cls for name, cls in named if isinstance(name, str)}


def _recording(name: str) -> Any:
    known = recordings()
    if name not in known:
        close = get_close_matches(name, known, n=3) or ["fake_brisbane", "fake_fez"]
        raise UnknownBackendError(
            f"There is no recorded device {name!r}. Did you mean {' or '.join(close)}? "
            f"There are: {', '.join(sorted(known))}."
        )
    return known[name]()


def _bits(memory: list[str], n_qubits: int) -> NDArray[np.uint8]:
    """uint8 (shots, n); Aer writes bit 0, which is qubit 0, at the right end of each string."""
    flat = np.frombuffer("".join(memory).encode("ascii"), dtype=np.uint8) - ord("0")
    return np.ascontiguousarray(flat.reshape(len(memory), n_qubits)[:, ::-1])
