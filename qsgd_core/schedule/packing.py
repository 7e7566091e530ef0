"""Splitting a workload by what one job may hold, and joining the parts' results. Pure."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import CircuitBatch, Workload
from qsgd_core.errors import CapabilityError
from qsgd_core.jobs import Bits, Expectations, Part, Result


def split(work: Workload, has: Capabilities, *, shots: int) -> list[Workload]:
    """The workload as a list of workloads that each fit one job, rows in order.

    Raises:
        CapabilityError: not even one row fits.
    """
    parts: list[list[CircuitBatch]] = [[]]
    rows = qubits = 0
    for batch in work.batches:
        width = batch.circuit.n_qubits
        start = 0
        while start < batch.n_rows:
            room = _room(has, shots, width, rows=rows, qubits=qubits)
            if room < 1 and not parts[-1]:
                raise CapabilityError(
                    "Not even one circuit fits a job.",
                    [f"{shots} shots were asked for; a job takes {has.max_executions}."],
                )
            if room < 1:
                parts.append([])
                rows = qubits = 0
                continue
            stop = min(batch.n_rows, start + room)
            parts[-1].append(
                CircuitBatch(batch.circuit, batch.angles[start:stop], batch.observables)
            )
            rows += stop - start
            qubits += width * (stop - start)
            start = stop
    return [Workload(tuple(part)) for part in parts]


def _room(has: Capabilities, shots: int, width: int, *, rows: int, qubits: int) -> int:
    """How many more rows of ``width`` qubits a job takes that has so many rows and qubits."""
    most = [sys.maxsize]
    if has.max_rows is not None:
        most.append(has.max_rows - rows)
    if has.max_executions is not None:
        most.append(has.max_executions // shots - rows)
    if has.max_total_qubits is not None:
        # A row that runs alone may be wider than the register that rows share.
        most.append(max((has.max_total_qubits - qubits) // width, 1 - rows))
    return min(most)


def join(work: Workload, results: Sequence[Result]) -> Result:
    """The parts' results as one result of the whole workload; inverse of :func:`split`.

    Time, layout and calibration are those of the first part; ``billed`` stays with the parts.
    """
    pieces = [part for result in results for part in result.parts]
    parts: list[Part] = []
    for batch in work.batches:
        taken: list[Part] = []
        rows = 0
        while rows < batch.n_rows:
            taken.append(pieces.pop(0))
            rows += len(taken[-1].values)
        parts.append(_stack(taken))
    first = results[0]
    return Result(
        tuple(parts),
        executed_at=first.executed_at,
        physical_qubits=first.physical_qubits,
        calibration_stamp=first.calibration_stamp,
    )


def _stack(parts: list[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    values = np.concatenate([p.values for p in parts])
    return Bits(values) if isinstance(parts[0], Bits) else Expectations(values)
