"""Splitting a workload by what one job may hold, and joining the parts' results. Pure."""

from __future__ import annotations

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
    limits = [n for n in (has.max_rows, _rows_by_executions(has, shots)) if n is not None]
    most = min(limits, default=work.n_rows)
    if most < 1:
        raise CapabilityError(
            "Not even one circuit fits a job.",
            [f"{shots} shots a row were asked for; a job takes {has.max_executions} executions."],
        )
    parts: list[list[CircuitBatch]] = [[]]
    room = most
    for batch in work.batches:
        start = 0
        while start < batch.n_rows:
            if room == 0:
                parts.append([])
                room = most
            stop = min(batch.n_rows, start + room)
            parts[-1].append(
                CircuitBatch(batch.circuit, batch.angles[start:stop], batch.observables)
            )
            room -= stop - start
            start = stop
    return [Workload(tuple(part)) for part in parts]


def join(work: Workload, results: Sequence[Result]) -> Result:
    """The parts' results as one result of the whole workload; inverse of :func:`split`."""
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


def _rows_by_executions(has: Capabilities, shots: int) -> int | None:
    return None if has.max_executions is None else has.max_executions // shots
