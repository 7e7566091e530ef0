"""A workload as plain JSON values beside its arrays: on the wire, in the ledger, in the record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from qsgd_core.circuits import Circuit, CircuitBatch, Workload


def workload_values(work: Workload) -> list[Any]:
    """The part of a workload that is JSON; its angles travel as arrays."""
    return [[_circuit_text(b.circuit), [list(o) for o in b.observables]] for b in work.batches]


def read_workload(values: Sequence[Any], angles: Sequence[np.ndarray[Any, Any]]) -> Workload:
    """Undo :func:`workload_values`."""
    return Workload(
        tuple(
            CircuitBatch(_read_circuit(text), a, tuple(tuple(o) for o in observables))
            for (text, observables), a in zip(values, angles, strict=True)
        )
    )


@lru_cache(maxsize=64)
def _circuit_text(circuit: Circuit) -> str:
    return json.dumps(circuit.to_dict())


@lru_cache(maxsize=64)
def _read_circuit(text: str) -> Circuit:
    return Circuit.from_dict(json.loads(text))
