"""What a run's record holds, row by row. A step is the number of steps taken before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Workload
from qsgd_core.schedule.messages import Frame
from qsgd_core.sources import SourceName

Arrays = tuple[NDArray[np.float64], ...]
"""⟨observables⟩ of a workload: float64 (B, n_observables) a batch."""


@dataclass(frozen=True, eq=False)
class RefreshEntry:
    """A measurement was asked for.

    Attributes:
        step: at which.
        wall: seconds since the epoch, here and below.
        shots: per circuit.
        work: the blocks at this step's angles.
        used: what this step used, before the answer was known; empty where nobody noted it.
    """

    step: int
    wall: float
    shots: int
    work: Workload
    used: Arrays = ()


@dataclass(frozen=True, eq=False)
class OutcomeEntry:
    """What came of a refresh.

    Attributes:
        step: the refresh's.
        wall: when it arrived.
        executed_at: when the service ran it; None if it did not say.
        z: measured, NaN in blocks that were not; empty where nothing came.
        n_rows: blocks that were.
        of_rows: blocks that the term has.
        e_sq: mean of (measured - used)² less the shot noise: E² at this step.
        twin_sq: the same for the free nominal twin.
        noise: the shot noise in those means.
        predicted_var: mean of (predicted - true)² that the tracker expected.
        innovation_sq: mean of (predicted - measured)² before learning, less the shot noise.
        nis: normalised innovation squared.
        alarm: whether the tracker took it for a recalibration.
        cost_usd: billed; None means unknown, here and below.
        qpu_s: billed.
        shots: executions billed or run, over all circuits.
        queue_s: seconds from the submission to the result.
        error: why (some of) it did not come.
    """

    step: int
    wall: float
    executed_at: float | None = None
    z: Arrays = ()
    n_rows: int | None = None
    of_rows: int | None = None
    e_sq: float | None = None
    twin_sq: float | None = None
    noise: float | None = None
    predicted_var: float | None = None
    innovation_sq: float | None = None
    nis: float | None = None
    alarm: bool = False
    cost_usd: float | None = None
    qpu_s: float | None = None
    shots: int | None = None
    queue_s: float | None = None
    error: str | None = None


@dataclass(frozen=True, eq=False)
class AppliedEntry:
    """A snapshot came into force: this step is the first that used it, with so many tiles."""

    step: int
    wall: float
    tiles: int
    frame: Frame


@dataclass(frozen=True)
class Happening:
    """Something the user was told; ``kind`` is one word, such as fallback, alarm or denied."""

    step: int
    wall: float
    kind: str
    message: str


@dataclass(frozen=True)
class Balance:
    """Where the budget stood in one of its units, in that unit.

    Attributes:
        step: when.
        wall: when.
        unit: usd, qpu_s or shots.
        cap: what may be spent.
        reserved: held for jobs under way.
        spent: settled.
        overrun: billed above what was held.
        planned: what was to be spent by this step; None without a plan.
    """

    step: int
    wall: float
    unit: str
    cap: float
    reserved: float
    spent: float
    overrun: float
    planned: float | None = None


@dataclass(frozen=True, eq=False)
class Sampled:
    """What a simulator gave to a step.

    Attributes:
        step: which.
        z: used by it.
        source: what it counts as.
        angles: float64 (B, n_parameters) a batch; empty for most steps.
    """

    step: int
    z: Arrays
    source: SourceName
    angles: Arrays = ()


@dataclass(frozen=True)
class Stretch:
    """Steps in a row, both ends included, whose s came from the same source."""

    first: int
    last: int
    source: SourceName


Header = dict[str, Any]
"""What the run is: plain JSON values by name."""
