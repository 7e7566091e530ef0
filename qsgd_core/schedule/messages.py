"""Frames between trainer and courier: a kind, plain JSON values, and arrays to the bit.

A frame is a mark, two little-endian uint32 (length of the head, length of the rest), the head as
JSON, and the bytes of the arrays one after the other. Encoding one costs a few microseconds: the
training thread does it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from qsgd_core.circuits import Circuit, CircuitBatch, Workload
from qsgd_core.errors import ResultCorruptError

_START = struct.Struct("<4sII")
_MARK = b"QSGD"
_GARBLED = "The stream between trainer and courier is garbled."


@dataclass(frozen=True, eq=False)
class Frame:
    """One message.

    Attributes:
        kind: what it is about.
        values: plain JSON values.
        arrays: anything that must arrive to the bit.
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Sequence[np.ndarray[Any, Any]] = ()

    @classmethod
    def decode(cls, data: bytes) -> Frame:
        """Read :meth:`encode`.

        Raises:
            ResultCorruptError: the bytes are not one frame.
        """
        frames = list(Decoder().feed(data))
        if len(frames) != 1:
            raise ResultCorruptError(f"{len(data)} bytes hold {len(frames)} frames instead of one.")
        return frames[0]

    def encode(self) -> bytes:
        """The frame as bytes."""
        arrays = [np.asarray(a, order="C") for a in self.arrays]
        forms = [(a.dtype.str, a.shape) for a in arrays]
        head = json.dumps([self.kind, self.values, forms]).encode()
        body = b"".join(a.tobytes() for a in arrays)
        return _START.pack(_MARK, len(head), len(body)) + head + body


class Decoder:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that ``data`` completes.

        Raises:
            ResultCorruptError: the bytes are not frames.
        """
        self._buffer += data
        while self._buffer:
            if not _MARK.startswith(bytes(self._buffer[: len(_MARK)])):
                raise ResultCorruptError(_GARBLED)
            if len(self._buffer) < _START.size:
                return
            _, head, body = _START.unpack_from(self._buffer)
            stop = _START.size + head + body
            if len(self._buffer) < stop:
                return
            frame = bytes(self._buffer[_START.size : stop])
            del self._buffer[:stop]
            yield _decode(frame, head)


def _decode(data: bytes, head: int) -> Frame:
    try:
        kind, values, forms = json.loads(data[:head])
        arrays = []
        start = head
        for dtype, shape in forms:
            kind_of = np.dtype(dtype)
            count = int(np.prod(shape, dtype=np.int64))
            arrays.append(np.frombuffer(data, kind_of, count, start).reshape(shape).copy())
            start += count * kind_of.itemsize
    except (ValueError, TypeError) as error:
        raise ResultCorruptError(_GARBLED) from error
    return Frame(kind, values, arrays)


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
