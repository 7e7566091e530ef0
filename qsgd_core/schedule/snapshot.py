"""What a step's ⟨observables⟩ are made of: an immutable record, read by steps and kept by runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Workload
from qsgd_core.schedule.messages import Frame, Message
from qsgd_core.schedule.twin.twin import Estimate, Twin
from qsgd_core.seeds import derive_seed
from qsgd_core.sources import Rung, SourceName


@dataclass(frozen=True, eq=False)
class Moment(Message, kind="moment"):
    """When something was measured: step, seconds since the epoch, angles (B, n_slots) a batch."""

    step: int
    wall: float
    angles: tuple[NDArray[np.float64], ...]

    def to_frame(self) -> Frame:
        """As a frame; :meth:`from_frame` reads it back."""
        return Frame("moment", {"step": self.step, "wall": self.wall}, self.angles)

    @classmethod
    def from_frame(cls, frame: Frame) -> Moment:
        """Read the frame."""
        return cls(frame.values["step"], frame.values["wall"], tuple(frame.arrays))

    def radians_to(self, work: Workload) -> float:
        """The furthest that an angle has moved since, on the circle."""
        furthest = 0.0
        for batch, old in zip(work.batches, self.angles, strict=False):
            if batch.angles.shape == old.shape and old.size:
                turn = np.remainder(batch.angles - old + np.pi, 2 * np.pi) - np.pi
                furthest = max(furthest, float(np.abs(turn).max()))
        return furthest


@dataclass(frozen=True, eq=False)
class Snapshot(Message, kind="snapshot"):
    """One state of the scheduler, as a step uses it.

    Attributes:
        rung: what it is.
        refresh: the step whose refresh it was made from; None before the first.
        measured_at: the newest step that a result in it was measured at.
        estimate: the twin's parameters, for ``tracked`` and ``nominal``.
        z: float64 (B, n_observables) a batch, for ``measured``.
        whole: whether all of ``z`` was measured at ``measured_at``, and none of it before.
        spread: root mean square of ⟨observables⟩ that ``random`` imitates.
    """

    rung: Rung
    refresh: int | None = None
    measured_at: int | None = None
    estimate: Estimate | None = None
    z: tuple[NDArray[np.float64], ...] = ()
    spread: float = 0.5
    whole: bool = True

    def fits(self, work: Workload) -> bool:
        """Whether it has an answer for these blocks."""
        if self.rung != "measured":
            return True
        shapes = [(b.n_rows, len(b.observables)) for b in work.batches]
        return shapes == [z.shape for z in self.z]

    def source(self, step: int) -> SourceName:
        """What a step that uses it counts as."""
        if self.rung != "measured":
            return self.rung
        return "measured" if self.whole and self.measured_at == step else "held"

    def expectations(
        self, work: Workload, sites: Sequence[NDArray[np.intp]], *, seed: int, step: int
    ) -> list[NDArray[np.float64]]:
        """⟨observables⟩ of each batch, float64 (B, n_observables).

        Args:
            work: the blocks at this step's angles.
            sites: (B, n) a batch: where each row's qubits run.
            seed: the run's.
            step: the number of steps taken before this one.
        """
        if self.rung == "measured":
            return [z.copy() for z in self.z]
        if self.estimate is not None:
            return self.twin().predict(work, sites)
        shapes = [(b.n_rows, len(b.observables)) for b in work.batches]
        if self.rung == "zero":
            return [np.zeros(shape) for shape in shapes]
        rng = np.random.default_rng(derive_seed("fallback", seed, step))
        return [np.clip(rng.normal(0.0, self.spread, shape), -1.0, 1.0) for shape in shapes]

    def twin(self) -> Twin:
        """The model behind ``tracked`` and ``nominal``, made once."""
        found = self.__dict__.get("_twin")
        if found is None:
            assert self.estimate is not None  # noqa: S101  those two rungs have one
            found = self.__dict__["_twin"] = Twin(self.estimate)
        return found

    def to_frame(self) -> Frame:
        """As a message; :meth:`from_frame` reads it back to the bit."""
        if (read := self.__dict__.get("_read")) is not None:
            return cast(Frame, read)
        values: dict[str, Any] = {
            "rung": self.rung,
            "refresh": self.refresh,
            "measured_at": self.measured_at,
            "estimate": None if self.estimate is None else self.estimate.to_json(),
            "spread": self.spread.hex(),
            "whole": self.whole,
        }
        return Frame("snapshot", values, self.z)

    @classmethod
    def from_frame(cls, frame: Frame) -> Snapshot:
        """Read the message."""
        values = dict(frame.values)
        text = values.pop("estimate")
        snapshot = cls(
            rung=values["rung"],
            refresh=values["refresh"],
            measured_at=values["measured_at"],
            estimate=None if text is None else Estimate.from_json(text),
            z=tuple(frame.arrays),
            spread=float.fromhex(values["spread"]),
            whole=values.get("whole", True),  # an older record does not say
        )
        snapshot.__dict__["_read"] = frame  # the trainer sends it back: writing it anew is slow
        return snapshot
