"""A task's results as Braket writes them to S3: one document, or one with others beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qsgd_core.errors import JobFailedError, ResultCorruptError

Read: TypeAlias = Callable[[str], bytes]
"""Reads an object by its path below the task's folder."""


@dataclass(frozen=True)
class TaskResult:
    """What a task measured.

    Attributes:
        executables: uint8 (shots, qubits) of each circuit that ran, column j = qubit j, in order.
        seconds: run time that an on-demand simulator bills; None on a QPU.
    """

    executables: tuple[NDArray[np.uint8], ...]
    seconds: float | None


def read_results(read: Read, *, shots: int) -> TaskResult:
    """Read ``results.json`` and what it refers to.

    Args:
        read: for ``results.json`` and the paths in it.
        shots: per circuit; turns probabilities into bits where a device gives no more.

    Raises:
        JobFailedError: some circuits of a program set failed.
        ResultCorruptError: it is cut, or not what it should be.
    """
    data = _parse(read("results.json"), "results.json")
    try:
        if "programResults" not in data:
            return TaskResult((_bits(data, shots),), _seconds(data))
        found = []
        for program in data["programResults"]:
            found += _program(_linked(program, read), read, shots)
        return TaskResult(tuple(found), None)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ResultCorruptError(
            f"The results of a Braket task cannot be read ({type(error).__name__}: {error}).",
            may_have_spent=True,
        ) from error


def _program(program: Mapping[str, Any], read: Read, shots: int) -> list[NDArray[np.uint8]]:
    """The executables of one program, by their index: the list may be in any order."""
    entries = [_linked(e, read) for e in program["executableResults"]]
    if failures := [e for e in entries if "failureMetadata" in e]:
        why = failures[0]["failureMetadata"]
        raise JobFailedError(
            f"{len(failures)} of {len(entries)} circuits of a program set failed; circuit "
            f"{failures[0]['inputsIndex']}: {why.get('category')}: {why.get('failureReason')}. "
            "The whole refresh is dropped: half of one would mix measured and unmeasured blocks.",
            provider_code=why.get("category"),
            may_have_spent=True,
        )
    by_index = {int(e["inputsIndex"]): e for e in entries}
    if sorted(by_index) != list(range(len(entries))):
        raise ValueError(f"circuits are numbered {sorted(by_index)}")
    return [_bits(by_index[i], shots) for i in range(len(entries))]


def _bits(entry: Mapping[str, Any], shots: int) -> NDArray[np.uint8]:
    bits: NDArray[Any]
    if entry.get("measurements"):
        bits = np.asarray(entry["measurements"])
    else:
        bits = _from_probabilities(entry["measurementProbabilities"], shots)
    if bits.ndim != 2 or bits.dtype.kind not in "iu" or bits.min() < 0 or bits.max() > 1:
        raise ValueError(f"measurements of type {bits.dtype} and shape {bits.shape}")
    order = entry.get("measuredQubits") or list(range(bits.shape[1]))
    if sorted(order) != list(range(bits.shape[1])):
        # Guessing which column is which qubit would give wrong numbers that look right.
        raise ValueError(f"measured qubits are {order}, not 0 … {bits.shape[1] - 1}")
    return np.ascontiguousarray(bits[:, np.argsort(order)], dtype=np.uint8)


def _from_probabilities(probabilities: Mapping[str, float], shots: int) -> NDArray[np.uint8]:
    """Bits with these frequencies: largest remainders, so that they add up to ``shots``."""
    states = sorted(probabilities)
    given = np.array([probabilities[s] for s in states], dtype=np.float64)
    if abs(given.sum() - 1) > 1e-3:
        raise ValueError(f"probabilities add up to {given.sum()}")
    exact = given / given.sum() * shots
    counts = np.floor(exact + 1e-9).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: shots - counts.sum()]] += 1
    rows = np.array([[int(c) for c in s] for s in states], dtype=np.uint8)
    return np.repeat(rows, counts, axis=0)


def _seconds(data: Mapping[str, Any]) -> float | None:
    simulator = (data.get("additionalMetadata") or {}).get("simulatorMetadata") or {}
    milliseconds = simulator.get("executionDuration")
    return None if milliseconds is None else milliseconds / 1000


def _linked(value: object, read: Read) -> dict[str, Any]:
    """A document, or the one that a path points to."""
    if isinstance(value, str):
        return _parse(read(value), value)
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, found {type(value).__name__}")
    return value


def _parse(body: bytes, path: str) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except ValueError as error:
        raise ResultCorruptError(
            f"{path} of a Braket task is not JSON, or cut: {len(body)} bytes, {error}.",
            may_have_spent=True,
        ) from error
    if not isinstance(data, dict):
        raise ResultCorruptError(
            f"{path} of a Braket task holds a {type(data).__name__}, not an object.",
            may_have_spent=True,
        )
    return data
