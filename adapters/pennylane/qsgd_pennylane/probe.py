"""Finding out what a device does by running it: PennyLane's devices declare too little.

Four small questions, asked once when a simulator is made. Does it run circuits and give bits in
order? Does a seed decide them? Are they fresh at each call? Is the answer to an exact request
exact, or a sample mean?
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pennylane as qml

from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Slot
from qsgd_core.errors import ConfigError, ResultCorruptError
from qsgd_pennylane import devices, translate

EXACT = 1e-6
"""An exact answer may be off by this much: single precision is still exact, 10**11 shots not."""

TURN = Circuit(2, (Gate("ry", (1,), Slot(0)),))
COIN = Circuit(1, (Gate("ry", (0,), math.pi / 2),))
COIN_SHOTS = 128
"""Two honest series of as many coin flips are the same with probability 2**-128."""


@dataclass(frozen=True)
class Findings:
    """What a device does.

    Attributes:
        native: our gates that it has.
        seeded: its argument ``seed`` decides the samples.
        noisy: its expectation values are not those of the ideal circuit, twice the same.
        not_sampled: why its samples cannot be used; None if they can.
        not_exact: why its expectation values cannot be used as exact; None if they can.
    """

    native: frozenset[str]
    seeded: bool
    noisy: bool
    not_sampled: str | None
    not_exact: str | None


def probe(name: str, options: Mapping[str, Any]) -> Findings:
    """Run the device ``name`` on one and two qubits.

    Raises:
        ConfigError: it cannot be built.
    """
    takes_seed = _takes_seed(name, options)

    def build(seed: int, n_wires: int = 1) -> qml.devices.Device:
        return devices.build(name, options, n_wires=n_wires, seed=seed if takes_seed else None)

    device = build(1, n_wires=2)
    native = translate.native_gates(device)
    not_sampled, seeded = _wrong_bits(device, native), False
    if not_sampled is None:
        one = build(1)
        first, second, again, other = (_flip(d, native) for d in (one, one, build(1), build(2)))
        seeded = first == again and first != other
        if first == second:
            not_sampled = "It gives the same samples at each call."
    not_exact, noisy = _not_exact(device, build(2, n_wires=2), native)
    return Findings(native, seeded, noisy, not_sampled, not_exact)


def _takes_seed(name: str, options: Mapping[str, Any]) -> bool:
    try:
        devices.build(name, options, n_wires=1, seed=1)
    except ConfigError:
        return False  # a third-party device need not know the argument
    return True


def _wrong_bits(device: qml.devices.Device, native: frozenset[str]) -> str | None:
    """What is wrong with the bits of a row that stays at 00 and one where qubit 1 turns to 1."""
    batch = CircuitBatch(TURN, np.array([[0.0], [math.pi]]))
    try:
        bits = _run(device, batch, 32, native)
    except Exception as error:  # noqa: BLE001  (a third party's device runs here)
        return f"It failed to give samples: {type(error).__name__}: {error}"
    found = bits.mean(axis=1)
    # Room for a noisy device: more than half must be right.
    if (np.abs(found - [[0, 0], [0, 1]]) < 0.5).all():
        return None
    return (
        "Its samples are not those of the circuit: of qubits 0 and 1, of which the second turns "
        f"from 0 to 1 in the second row, it gave shares of ones {found.tolist()}."
    )


def _flip(device: qml.devices.Device, native: frozenset[str]) -> bytes:
    batch = CircuitBatch(COIN, np.zeros((1, 0)))
    return _run(device, batch, COIN_SHOTS, native).tobytes()


def _not_exact(
    device: qml.devices.Device, other: qml.devices.Device, native: frozenset[str]
) -> tuple[str | None, bool]:
    """Why the values are not exact, and whether they are noisy rather than sampled."""
    angles = np.array([[0.5], [1.0], [2.0]])
    batch = CircuitBatch(TURN, angles, ((1,),))
    try:
        found, again = (_run(d, batch, None, native) for d in (device, other))
    except Exception as error:  # noqa: BLE001  (a third party's device runs here)
        return f"It failed to give expectation values: {type(error).__name__}: {error}", False
    off = float(np.abs(found - np.cos(angles)).max())
    if off < EXACT:
        return None, False
    same = bool((found == again).all())
    kind = "and the same again, so noise" if same else "and another the next time, so samples"
    return f"Its answer to an exact request is off by {off:.2g}, {kind}.", same


def _run(
    device: qml.devices.Device, batch: CircuitBatch, shots: int | None, native: frozenset[str]
) -> np.ndarray[Any, Any]:
    scripts = list(translate.tapes(batch, shots=shots, native=native, rows_per_tape=batch.n_rows))
    results = execute(scripts, device)
    if shots is None:
        return translate.expectations(results, batch)
    return translate.bits(results, batch.circuit, rows=batch.n_rows, shots=shots)


def execute(scripts: list[Any], device: qml.devices.Device) -> list[Any]:
    """All tapes in one call, with the device's own preprocessing and no gradient.

    A cache would hand identical rows the same samples.
    """
    results = list(qml.execute(scripts, device, diff_method=None, cache=False))
    if len(results) != len(scripts):
        raise ResultCorruptError(f"{len(scripts)} tapes got {len(results)} results.")
    return results
