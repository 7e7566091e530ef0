"""Workloads just beyond a declared limit."""

from __future__ import annotations

import numpy as np

from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import GATES, Circuit, CircuitBatch, Gate, Workload
from qsgd_core.testing.probes import UnclaimedError

LIMITS = (
    "gates",
    "max_qubits",
    "max_rows",
    "max_total_qubits",
    "min_shots",
    "max_shots",
    "max_executions",
)
"""Fields of Capabilities that say what is refused."""

MOST_ROWS = 200_000
"""Rows that the kit makes to go beyond a limit."""


def beyond(limit: str, has: Capabilities, *, shots: int) -> tuple[Workload, int]:
    """A workload and its shots that break ``limit``, and no other where that can be helped.

    Args:
        limit: one of :data:`LIMITS`.
        has: what is declared.
        shots: per row, within the limits.

    Raises:
        UnclaimedError: no such limit is declared.
    """
    if limit == "gates":
        return _foreign_gate(has), shots
    if limit == "min_shots":
        if has.min_shots <= 1:
            raise UnclaimedError("one shot is enough")
        return _idle(has, 1, 1), has.min_shots - 1
    most: int | None = getattr(has, limit)
    if most is None:
        raise UnclaimedError(f"no {limit} is declared")
    if limit == "max_qubits":
        return _idle(has, most + 1, 1), shots
    if limit == "max_shots":
        return _idle(has, 1, 1), most + 1
    if limit == "max_executions":
        each = max(has.min_shots, min(most, has.max_shots or most))
        return _idle(has, 1, _rows(most // each + 1)), each
    n = 1 if limit == "max_rows" else min(most, has.max_qubits or most)
    return _idle(has, n, _rows(max(2, most // n + 1))), has.min_shots


def _foreign_gate(has: Capabilities) -> Workload:
    foreign = sorted(set(GATES) - has.gates)
    if not foreign:
        raise UnclaimedError("it takes every gate")
    arity, angles = GATES[foreign[0]]
    gate = Gate(foreign[0], tuple(range(arity)), 0.5 if angles else None)
    return Workload((CircuitBatch(Circuit(arity, (gate,)), np.zeros((1, 0))),))


def _idle(has: Capabilities, n_qubits: int, rows: int) -> Workload:
    """``rows`` rows of a claimed one-qubit gate on each of ``n_qubits``."""
    name = next(g for g in GATES if g in has.gates and GATES[g][0] == 1)
    angle = 0.5 if GATES[name][1] else None
    circuit = Circuit(n_qubits, tuple(Gate(name, (q,), angle) for q in range(n_qubits)))
    return Workload((CircuitBatch(circuit, np.zeros((rows, 0))),))


def _rows(rows: int) -> int:
    if rows > MOST_ROWS:
        raise UnclaimedError(f"it takes {rows} rows to go beyond, which the kit does not make")
    return rows
