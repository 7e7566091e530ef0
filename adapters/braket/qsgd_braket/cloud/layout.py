"""Where each row's bits are in a task's results, as text short enough for a tag of the task.

The text travels with the task, so that a task that is found again by its tag can be read by a
process that never saw the workload.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from qsgd_core.errors import CapabilityError, ResultCorruptError
from qsgd_core.jobs import Bits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from qsgd_braket.cloud.device import Route
    from qsgd_core.circuits import Workload

MAX_TEXT = 256
"""AWS's limit for a tag's value."""


@dataclass(frozen=True)
class ResultLayout:
    """``route`` and, per batch of the workload, (rows, qubits)."""

    route: Route
    batches: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, work: Workload, route: Route) -> ResultLayout:
        """The layout of a workload.

        Raises:
            CapabilityError: it has too many batches for a tag.
        """
        layout = cls(route, tuple((b.n_rows, b.circuit.n_qubits) for b in work.batches))
        if len(layout.text) > MAX_TEXT:
            raise CapabilityError(
                f"A Braket task takes about {MAX_TEXT // 6} batches of circuits; found "
                f"{len(layout.batches)}. Use fewer block sizes, such as scope='model'."
            )
        return layout

    @property
    def text(self) -> str:
        """Such as ``set:64x4 12x3``: letters, digits, spaces and colons, as AWS allows in tags."""
        return f"{self.route}:" + " ".join(f"{rows}x{qubits}" for rows, qubits in self.batches)

    @classmethod
    def parse(cls, text: str) -> ResultLayout:
        """Read :attr:`text`.

        Raises:
            ResultCorruptError: it is something else.
        """
        if not re.fullmatch(r"(set|one):\d+x\d+( \d+x\d+)*", text):
            raise ResultCorruptError(
                f"A Braket task carries the layout {text!r}, which is none of this version's. Was "
                "it made by another version of qsgd-braket, or its tag edited?"
            )
        route, _, pairs = text.partition(":")
        batches = tuple((int(r), int(n)) for r, n in (p.split("x") for p in pairs.split()))
        return cls(cast("Route", route), batches)

    @property
    def n_rows(self) -> int:
        """Rows of all batches."""
        return sum(rows for rows, _ in self.batches)

    def shots(self, total: int) -> int:
        """Shots per row of a task with ``total`` shots."""
        return total // self.n_rows if self.route == "set" else total

    def split(self, executables: Sequence[NDArray[np.uint8]], shots: int) -> tuple[Bits, ...]:
        """The bits of each batch.

        Args:
            executables: uint8 (shots, qubits) of each executable of the task, in order.
            shots: per row.

        Raises:
            ResultCorruptError: their number or shape is another than the layout's.
        """
        wanted = [(shots, n) for rows, n in self.batches for _ in range(rows)]
        if self.route == "one":
            total = sum(n for _, n in wanted)
            _check([(shots, total)], [e.shape for e in executables])
            ends = np.cumsum([n for _, n in wanted])[:-1]
            executables = np.split(executables[0], ends, axis=1)
        _check(wanted, [e.shape for e in executables])
        parts = []
        start = 0
        for rows, _ in self.batches:
            parts.append(Bits(np.stack(executables[start : start + rows])))
            start += rows
        return tuple(parts)


def _check(wanted: list[tuple[int, int]], found: list[tuple[int, ...]]) -> None:
    if len(wanted) != len(found):
        raise ResultCorruptError(
            f"A task of {len(wanted)} circuits came back with {len(found)} results."
        )
    for row, (one, other) in enumerate(zip(wanted, found, strict=True)):
        if one != other:
            raise ResultCorruptError(
                f"Circuit {row} of a task was measured {one[0]} times on {one[1]} qubits; its "
                f"result has the shape {other}."
            )
