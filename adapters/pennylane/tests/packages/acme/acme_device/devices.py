"""Devices that each differ from ``default.qubit``, which they hand their circuits to."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pennylane as qml
from pennylane.devices import Device

HERE = Path(__file__).parent


class Qubit(Device):
    """Four gates; takes no seed, and an option of its own."""

    config_filepath = str(HERE / "qubit.toml")
    calls: ClassVar[list[int]] = []

    def __init__(self, wires=None, shots=None, flavour="plain"):
        super().__init__(wires=wires, shots=shots)
        if flavour not in ("plain", "vanilla"):
            raise ValueError(f"no such flavour: {flavour}")
        self.inner = qml.device("default.qubit", wires=wires)

    def execute(self, circuits, execution_config=None):
        """All circuits of one call."""
        Qubit.calls.append(len(circuits))
        for circuit in circuits:
            names = {operation.name for operation in circuit.operations}
            assert names <= set(self.capabilities.operations), names
        return self.inner.execute(circuits)


class RxCz(Qubit):
    """Other gates: RX, RZ and CZ."""

    config_filepath = str(HERE / "rxcz.toml")


class Sampler(Qubit):
    """Answers an exact request with a thousand samples."""

    def execute(self, circuits, execution_config=None):
        """As qiskit.aer does through PennyLane."""
        return super().execute([c if c.shots else c.copy(shots=1000) for c in circuits])


class Stuck(Qubit):
    """Starts its generator anew at each call."""

    def execute(self, circuits, execution_config=None):
        """The same noise each time."""
        self.inner = qml.device("default.qubit", wires=self.wires, seed=42)
        return super().execute(circuits)


class Swapped(Qubit):
    """Gives its qubits in the wrong order, and no expectation values."""

    def execute(self, circuits, execution_config=None):
        """Bits from last to first."""
        if not circuits[0].shots:
            raise NotImplementedError("no expectation values")
        return tuple(np.flip(result, axis=-1) for result in super().execute(circuits))


class Fails(Qubit):
    """Fails on more than two wires."""

    def execute(self, circuits, execution_config=None):
        """Breaks down late."""
        if len(self.wires) > 2:
            raise RuntimeError("out of flux")
        return super().execute(circuits)


class Fixed(Qubit):
    """Every new device starts from the same seed, and goes on from there."""

    def __init__(self, wires=None, shots=None):
        super().__init__(wires=wires, shots=shots)
        self.inner = qml.device("default.qubit", wires=wires, seed=42)


class Noisy(Qubit):
    """Reads each bit wrongly with probability ``flip``."""

    def __init__(self, wires=None, shots=None, flip=0.1):
        super().__init__(wires=wires, shots=shots)
        self.flip = flip
        self.rng = np.random.default_rng()

    def execute(self, circuits, execution_config=None):
        """Flipped samples, or expectation values that much closer to zero."""
        results = super().execute(circuits)
        if not circuits[0].shots:
            return tuple(np.asarray(result) * (1 - 2 * self.flip) for result in results)
        return tuple(r ^ (self.rng.random(r.shape) < self.flip) for r in results)
