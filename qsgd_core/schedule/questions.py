"""Whether two workloads are the same question."""

from __future__ import annotations

import numpy as np

from qsgd_core.circuits import Workload
from qsgd_core.errors import ConfigError

SAME_RADIANS = 1e-6
"""Angles that differ by less are the same: no number of shots would tell them apart."""
SHARE_OF_NOISE = 0.1
"""Angles that change ⟨Z⟩ by no more than this share of its shot noise are as good as the same."""


def same_within(shots: int) -> float:
    """Radians by which angles may differ for one measurement with ``shots`` to answer both.

    ⟨Z⟩ changes by no more than an angle does, and its shot noise is at most 1/√shots.
    """
    return max(SAME_RADIANS, SHARE_OF_NOISE / float(np.sqrt(shots)))


def not_the_same(
    before: Workload, now: Workload, *, run: str, step: int, radians: float | None = SAME_RADIANS
) -> ConfigError | None:
    """Why what was measured for ``before`` is no answer to ``now``; None if it is one.

    Args:
        before: what the run asked at this step in an earlier life.
        now: what it asks.
        run: its id.
        step: of both.
        radians: by which an angle may differ; None: the angles may be any.
    """
    other = _difference(before, now, radians)
    if other is None:
        return None
    return ConfigError(
        f"Run {run!r} has had {other} measured at step {step} than are asked for now: its results "
        "are not those of this program. Give it a run id of its own (or none), or go on from a "
        f"checkpoint of {run!r}. Nothing was bought."
    )


def _difference(before: Workload, now: Workload, radians: float | None) -> str | None:
    if _forms(before) != _forms(now):
        return "other circuits"
    if radians is None:
        return None
    pairs = zip(before.batches, now.batches, strict=True)
    if all(np.allclose(a.angles, b.angles, rtol=0, atol=radians) for a, b in pairs):
        return None
    return "the same circuits at other angles"


def _forms(work: Workload) -> list[tuple[object, ...]]:
    return [(b.circuit, b.observables, b.n_rows) for b in work.batches]
