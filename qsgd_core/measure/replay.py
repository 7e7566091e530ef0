"""Repeating a recorded run: every step gets what it got then, from the record alone."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Workload
from qsgd_core.errors import ConfigError
from qsgd_core.measure.machine import differences
from qsgd_core.measure.runner import Sample
from qsgd_core.schedule.packing.tiles import pack
from qsgd_core.schedule.record.entries import AppliedEntry
from qsgd_core.schedule.record.reader import RecordReader
from qsgd_core.schedule.snapshot import Snapshot

TOLERANCE = 1e-9
"""Radians by which an angle may differ from the recorded one."""

logger = logging.getLogger("qsgd_core")

_Sites = tuple[NDArray[np.intp], ...]


class Replay:
    """A runner that reads; it needs no adapter, ledger, courier or network.

    Args:
        path: the record.

    Attributes:
        header: what the recorded run was.
        n_steps: how far the record goes.
        departed: the first step that is not as recorded, and the largest difference of an angle
            in radians (None: that step measured nothing); None as long as there is none.
        checked_angles: steps at which they were compared.
        checked_weights: steps after which the weights were compared.
        other_weights: the first of them at which they differ.

    Raises:
        ConfigError: there is no record, it is damaged, or nothing was recorded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = RecordReader(path)
        self.header = self._reader.header
        self.n_steps = self._reader.n_steps
        if not self.n_steps or "kind" not in self.header:
            raise ConfigError(
                f"{path} holds no step: that run ended before its first one, so there is nothing "
                "to replay."
            )
        self.departed: tuple[int, float | None] | None = None
        self.checked_angles = 0
        self.checked_weights: set[int] = set()
        self.other_weights: int | None = None
        self._applied: list[AppliedEntry] = []
        self._angles: dict[int, list[NDArray[np.float64]]] = {}
        if self.header["kind"] == "backend":
            self._applied = self._reader.applied()
            for refresh in self._reader.refreshes():
                self._angles[refresh.step] = [b.angles for b in refresh.work.batches]
        self._marks = self._reader.marks()
        self._snapshot: tuple[int, Snapshot] | None = None
        self._sites: tuple[Any, _Sites] | None = None

    def run(self, work: Workload, *, shots: int | None, step: int) -> Sample:
        """See :class:`.runner.Runner`.

        Raises:
            ConfigError: the record does not go so far, or it is of other blocks.
        """
        if step >= self.n_steps and (self._marks or self.header["kind"] != "backend"):
            raise ConfigError(
                f"The record {self.path} ends after {self.n_steps} steps; there is no step "
                f"{step + 1} to replay."
            )
        if self.header["kind"] == "backend":
            return self._scheduled(work, step)
        found = self._reader.sample(step)
        if found is None:
            raise self._silent(step)
        self._fit(found.z, work, step)
        if found.step != step:
            self._depart(step, None)
        elif found.angles:
            self._compare(found.angles, work, step)
        return Sample(list(found.z), found.source)

    def check(self, work: Workload, *, shots: int | None) -> None:
        """What was run can be replayed."""

    def elsewhere(self, machine: Mapping[str, Any]) -> list[str]:
        """What of the machine is not as it was; empty too where nobody noted it."""
        then = self.header.get("machine")
        return [] if then is None else differences(then, machine)

    def verdict(self) -> dict[str, Any]:
        """Whether this has been the recorded run so far, plain JSON values."""
        differs = []
        if self.departed is not None:
            step, size = self.departed
            differs.append(
                f"step {step} measured nothing then"
                if size is None
                else f"angles at step {step} by up to {size:.3g} rad"
            )
        if self.other_weights is not None:
            differs.append(f"weights after step {self.other_weights}")
        compared = {"angles": self.checked_angles, "weights": len(self.checked_weights)}
        return {
            "record": str(self.path),
            "bit_identical": not differs and any(compared.values()),
            "compared": compared,
            "differs": differs,
        }

    def compare_weights(self, step: int, digest: str) -> None:
        """Compare a fingerprint of the weights after ``step`` steps with the recorded one."""
        if step in self._marks:
            self.checked_weights.add(step)
            if self._marks[step] != digest and self.other_weights is None:
                self.other_weights = step
                logger.warning(
                    "After step %d the weights are not those of the recorded run, to the bit.", step
                )

    def _scheduled(self, work: Workload, step: int) -> Sample:
        if step in self._angles:
            self._compare(self._angles[step], work, step)
        index = bisect_right([row.step for row in self._applied], step) - 1
        if index < 0:
            raise self._silent(step)
        row = self._applied[index]
        if self._snapshot is None or self._snapshot[0] != index:
            self._snapshot = (index, Snapshot.from_frame(row.frame))
        snapshot = self._snapshot[1]
        if snapshot.rung == "measured":
            self._fit(snapshot.z, work, step)
        where = self._where(work, row.tiles)
        z = snapshot.expectations(work, where, seed=self.header["seed"], step=step)
        return Sample(z, snapshot.source(step))

    def _where(self, work: Workload, tiles: int) -> _Sites:
        """Each row's sites; the same as long as the blocks are."""
        key = (tiles, [(b.circuit.digest, b.n_rows) for b in work.batches])
        if self._sites is None or self._sites[0] != key:
            self._sites = (key, pack(work, tiles=tiles).sites)
        return self._sites[1]

    def _compare(self, recorded: Sequence[NDArray[np.float64]], work: Workload, step: int) -> None:
        """Note the first step whose angles are others; NaN equals NaN."""
        angles = [b.angles for b in work.batches]
        if [a.shape for a in angles] != [a.shape for a in recorded]:
            raise self._other_blocks(recorded, angles, step)
        self.checked_angles += 1
        if self.departed is not None:
            return
        for now, then in zip(angles, recorded, strict=True):
            if now.size and not np.allclose(now, then, rtol=0, atol=TOLERANCE, equal_nan=True):
                size = np.abs(now - then)
                self._depart(step, float(np.nanmax(size)) if size.size else 0.0)
                return

    def _depart(self, step: int, size: float | None) -> None:
        if self.departed is None:
            self.departed = (step, size)
            logger.warning(
                "Step %d is not as recorded: %s. This is no longer the recorded run; it goes on "
                "with what is recorded for each step.",
                step,
                "it measured nothing then"
                if size is None
                else f"its angles differ by up to {size:.3g} rad",
            )

    def _fit(self, z: Sequence[NDArray[np.float64]], work: Workload, step: int) -> None:
        shapes = [(b.n_rows, len(b.observables)) for b in work.batches]
        if [a.shape for a in z] != shapes:
            raise self._other_blocks(z, [np.empty(shape) for shape in shapes], step)

    def _other_blocks(
        self,
        then: Sequence[NDArray[np.float64]],
        now: Sequence[NDArray[np.float64]],
        step: int,
    ) -> ConfigError:
        def say(arrays: Sequence[NDArray[np.float64]]) -> str:
            return f"{sum(len(a) for a in arrays)} blocks in {len(arrays)} batches"

        return ConfigError(
            f"Step {step} has {say(now)}, and the recorded run had {say(then)} of another shape: "
            "the model or the term's settings have changed since. Replay it with the code and the "
            "settings it was run with."
        )

    def _silent(self, step: int) -> ConfigError:
        return ConfigError(f"The record {self.path} does not say what step {step} used.")
