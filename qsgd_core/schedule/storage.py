"""Workloads and results as bytes, to the bit, without pickle."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import asdict
from typing import Any

import numpy as np

from qsgd_core.circuits import Workload
from qsgd_core.errors import ResultCorruptError
from qsgd_core.jobs import Bits, Cost, Expectations, Part, Result
from qsgd_core.schedule.workloads import read_workload, workload_values

# What numpy and zipfile raise for a damaged file; RuntimeError stands for a flipped header flag.
_DAMAGED = (ValueError, KeyError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def pack_workload(work: Workload) -> bytes:
    """A workload as npz bytes."""
    return _save(
        workload_values(work), {f"angles{i}": b.angles for i, b in enumerate(work.batches)}
    )


def unpack_workload(data: bytes) -> Workload:
    """Read :func:`pack_workload`."""
    head, arrays = _load(data)
    values = [_values(h) if isinstance(h, dict) else h for h in head]
    return read_workload(values, [arrays[f"angles{i}"] for i in range(len(values))])


def _values(written: dict[str, Any]) -> list[Any]:
    """A batch as ledgers have it that were written before 2026-12."""
    return [json.dumps(written["circuit"]), written["observables"]]


def pack_result(result: Result) -> bytes:
    """A result as npz bytes; bits are packed eight to a byte."""
    arrays: dict[str, np.ndarray] = {}
    kinds: list[tuple[str, tuple[int, ...]]] = []
    for i, part in enumerate(result.parts):
        if isinstance(part, Bits):
            kinds.append(("bits", part.values.shape))
            arrays[f"part{i}"] = np.packbits(part.values)
        else:
            kinds.append(("expectations", part.values.shape))
            arrays[f"part{i}"] = part.values
    head = {
        "kinds": kinds,
        "executed_at": result.executed_at,
        "physical_qubits": result.physical_qubits,
        "calibration_stamp": result.calibration_stamp,
        "billed": None if result.billed is None else asdict(result.billed),
    }
    return _save(head, arrays)


def unpack_result(data: bytes) -> Result:
    """Read :func:`pack_result`.

    Raises:
        ResultCorruptError: the bytes are not a stored result.
    """
    head, arrays = _load(data)
    parts: list[Part] = []
    for i, (kind, shape) in enumerate(head["kinds"]):
        array = arrays[f"part{i}"]
        if kind == "bits":
            size = int(np.prod(shape))
            parts.append(Bits(np.unpackbits(array, count=size).reshape(shape)))
        else:
            parts.append(Expectations(array))
    physical = head["physical_qubits"]
    return Result(
        tuple(parts),
        executed_at=head["executed_at"],
        physical_qubits=None if physical is None else tuple(physical),
        calibration_stamp=head["calibration_stamp"],
        billed=None if head["billed"] is None else Cost(**head["billed"]),
    )


def _save(head: object, arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    arrays["head"] = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _load(data: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """Head and arrays. The zip's checksums see every damaged byte that matters."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return json.loads(arrays.pop("head").tobytes()), arrays
    except _DAMAGED as error:
        raise ResultCorruptError(f"Stored data cannot be read: {error!r}.") from error
