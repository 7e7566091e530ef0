"""The circuits that the kit runs, made of the gates that are claimed and of no others.

A probe is a few batches that answer one question. Ideal values are either ±1 or well inside, where
the normal approximation behind "5 sigma" holds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import GATES, Circuit, CircuitBatch, Gate, Slot, Workload, ansatz

Batches = tuple[CircuitBatch, ...]

WIDTH = 3
"""Qubits of a probe, where the capabilities allow as many."""
PATTERNS = (1, 0, 3, 6, 4)
"""Basis states of the rows of ``order``: not the same backwards, on 1, 2 or 3 qubits."""
SLOTS = 12
"""More than ten, so that slots sorted as text (p1, p10, p2) are noticed."""
TOGETHER_SEED = 662
TWINS = (8, 4, 2)
"""Identical rows: as many as fit one job, beside two in a batch of their own."""


class UnclaimedError(Exception):
    """The probe needs something that the capabilities do not claim; says what."""


def build(name: str, has: Capabilities) -> Batches:
    """The batches of the probe ``name`` for these capabilities.

    Raises:
        UnclaimedError: they do not claim what it needs.
    """
    if name.startswith("gate "):
        return _gate(name.removeprefix("gate "), has)
    return _PROBES[name](has)


def pack(has: Capabilities, *, shots: int) -> tuple[list[dict[str, Batches]], dict[str, str]]:
    """All probes in as few jobs as the capabilities allow.

    Returns:
        Jobs, each probe name -> batches; and the probes left out, each with the reason.
    """
    jobs: list[dict[str, Batches]] = [{}]
    left_out: dict[str, str] = {}
    for name in NAMES:
        try:
            batches = build(name, has)
        except UnclaimedError as reason:
            left_out[name] = str(reason)
            continue
        if problems := has.missing(Workload(batches), shots=shots):
            left_out[name] = " ".join(problems)
            continue
        if has.missing(workload({**jobs[-1], name: batches}), shots=shots):
            jobs.append({})
        jobs[-1][name] = batches
    return [job for job in jobs if job], left_out


def workload(job: dict[str, Batches]) -> Workload:
    """The probes of one job as one workload."""
    return Workload(tuple(batch for batches in job.values() for batch in batches))


def width(has: Capabilities) -> int:
    """Qubits of a probe."""
    return WIDTH if has.max_qubits is None else min(WIDTH, has.max_qubits)


def _order(has: Capabilities) -> Batches:
    """One basis state per row."""
    n = width(has)
    turn = _rotation(has)
    circuit = Circuit(n, tuple(Gate(turn, (q,), Slot(q)) for q in range(n)))
    bits = [[(pattern >> q) & 1 for q in range(n)] for pattern in PATTERNS]
    return (CircuitBatch(circuit, np.pi * np.array(bits, dtype=np.float64)),)


def _columns(has: Capabilities) -> Batches:
    """One batch per qubit, which alone is turned to 1; nothing to bind, two rows."""
    n = width(has)
    turn = ("x", None) if "x" in has.gates else (_rotation(has), math.pi)
    circuits = [Circuit(n, (Gate(turn[0], (q,), turn[1]),)) for q in range(n)]
    return tuple(CircuitBatch(circuit, np.zeros((2, 0))) for circuit in circuits)


def _slots(has: Capabilities) -> Batches:
    """Twelve slots, used in another order than they are numbered in."""
    n = width(has)
    turn = _rotation(has)
    gates = []
    for place in range(SLOTS):
        gates.append(Gate(turn, (place % n,), Slot((5 * place + 3) % SLOTS)))
        if "h" in has.gates:
            gates.append(Gate("h", (place % n,)))
    return (CircuitBatch(Circuit(n, tuple(gates)), _angles("slots", 2, SLOTS)),)


def _joint(has: Capabilities) -> Batches:
    """A Bell pair: each bit is a coin, and the two always agree."""
    _require(has, "cx")
    if width(has) < 2:
        raise UnclaimedError("it takes one qubit at a time")
    half = Gate("h", (0,)) if "h" in has.gates else Gate(_rotation(has), (0,), math.pi / 2)
    circuit = Circuit(2, (half, Gate("cx", (0, 1))))
    return (CircuitBatch(circuit, np.zeros((1, 0)), observables=((0,), (1,), (0, 1))),)


def _twins(has: Capabilities) -> Batches:
    """Identical rows of fair coins, and two more in a batch of their own."""
    n = width(has)
    if {"ry", "rx"} & has.gates:
        gates = tuple(Gate(_rotation(has), (q,), Slot(q)) for q in range(n))
    else:
        _require(has, "h")
        gates = tuple(Gate("h", (q,)) for q in range(n))
    circuit = Circuit(n, gates)
    rows = min(TWINS)
    for rows in TWINS:
        fits = has.max_rows is None or rows + 2 <= has.max_rows
        if fits and (has.max_total_qubits is None or (rows + 2) * n <= has.max_total_qubits):
            break
    angles = np.full((rows, circuit.n_slots), np.pi / 2)
    return CircuitBatch(circuit, angles), CircuitBatch(circuit, angles[:2])


def _ansatz(has: Capabilities) -> Batches:
    """The paper's circuit, Eq. 5, with two layers."""
    n = width(has)
    _require(has, "h", "ry", *(["cx"] if n > 1 else []))
    circuit = ansatz(n, 2, phases="rz" in has.gates)
    return (CircuitBatch(circuit, _angles("ansatz", 4, circuit.n_slots)),)


def _together(has: Capabilities) -> Batches:
    """Every claimed gate three times, in a random order, with slots and with fixed angles."""
    n = width(has)
    # With all gates on three qubits, leaving out any of them or its sign moves some ⟨Z⟩ by 0.3.
    rng = random.Random(TOGETHER_SEED)
    names = [g for g in sorted(has.gates) if GATES[g][0] <= n] * 3
    rng.shuffle(names)
    gates, turns, slots = [], 0, 0
    for name in names:
        arity, angles = GATES[name]
        angle: float | Slot | None = None
        if angles:
            angle = 0.4 + 0.1 * turns if turns % 2 else Slot(slots)
            slots += isinstance(angle, Slot)
            turns += 1
        gates.append(Gate(name, tuple(rng.sample(range(n), arity)), angle))
    return (CircuitBatch(Circuit(n, tuple(gates)), _angles("together", 3, slots)),)


def _gate(name: str, has: Capabilities) -> Batches:
    """One gate between others that bring its sign, its angle and its direction to light."""
    _require(has, name)
    arity, angles = GATES[name]
    n = width(has)
    if arity > n:
        raise UnclaimedError(f"it takes circuits of {n} qubit(s)")
    if arity == 1:
        before, after = _frame(name, has)
        angle = Slot(0) if angles else None
        circuit = Circuit(1, (*before, Gate(name, (0,), angle), *after))
        rows = np.array([[0.6], [-1.1], [2.3]]) if angles else np.zeros((1, 0))
        return (CircuitBatch(circuit, rows),)
    batches = []
    for pair in dict.fromkeys([(0, 1), (1, 0), (n - 1, 0)]):
        before = tuple(_turn(has, q, 0.7 + 1.2 * (q == pair[0])) for q in range(n))
        after = tuple(_turn(has, q, 0.5 + 0.3 * q) for q in range(n)) if name == "cz" else ()
        batches.append(CircuitBatch(Circuit(n, (*before, Gate(name, pair), *after)), _no_angles()))
    return tuple(batches)


def _frame(name: str, has: Capabilities) -> tuple[tuple[Gate, ...], tuple[Gate, ...]]:
    """Gates before and after a one-qubit gate. A sign that no other gate tells is left unseen."""
    if name == "ry":
        return ((Gate("h", (0,)),) if "h" in has.gates else ()), ()
    if name == "rx":
        both = {"ry", "rz"} <= has.gates
        return ((Gate("ry", (0,), 1.0), Gate("rz", (0,), 0.9)) if both else ()), ()
    if name == "rz":
        last = "rx" if "rx" in has.gates else "ry"
        after = (Gate(last, (0,), 0.9),) if last in has.gates else (_turn(has, 0, 0.9),)
        return (_turn(has, 0, 1.0),), after
    return (_turn(has, 0, -0.7 if name == "h" else 0.7),), ()


def _turn(has: Capabilities, qubit: int, angle: float) -> Gate:
    """A rotation away from the Z axis; a Hadamard where no rotation is claimed."""
    for name in ("ry", "rx"):
        if name in has.gates:
            return Gate(name, (qubit,), angle)
    _require(has, "h")
    return Gate("h", (qubit,))


def _rotation(has: Capabilities) -> str:
    for name in ("ry", "rx"):
        if name in has.gates:
            return name
    raise UnclaimedError("it claims neither ry nor rx")


def _require(has: Capabilities, *gates: str) -> None:
    if missing := [gate for gate in gates if gate not in has.gates]:
        raise UnclaimedError(f"it does not claim the gate {', '.join(missing)}")


def _no_angles() -> NDArray[np.float64]:
    return np.zeros((1, 0))


def _angles(name: str, rows: int, slots: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(sum(name.encode()))
    signs = 2.0 * rng.integers(0, 2, (rows, slots)) - 1.0
    angles: NDArray[np.float64] = rng.uniform(0.3, 1.2, (rows, slots)) * signs
    return angles


_PROBES: dict[str, Callable[[Capabilities], Batches]] = {
    # First, so that it has the same place in a job with all probes as in a job of its own: what
    # ignores the seed then gives the very same bits twice.
    "twins": _twins,
    "order": _order,
    "columns": _columns,
    "slots": _slots,
    "joint": _joint,
    "ansatz": _ansatz,
    "together": _together,
}

NAMES = (*_PROBES, *(f"gate {gate}" for gate in GATES))
"""Every probe."""
