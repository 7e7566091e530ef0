"""Whether what a run asks is what it asked before."""

from __future__ import annotations

import numpy as np

from qsgd_core.circuits import Workload
from qsgd_core.errors import ConfigError
from qsgd_core.schedule.messages import Ask

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
    before: Ask,
    work: Workload,
    *,
    shots: int | None,
    run: str,
    radians: float | None = SAME_RADIANS,
) -> ConfigError | None:
    """Why what was measured for ``before`` is no answer to a question of now; None if it is one.

    Args:
        before: what the run asked at this step in an earlier life.
        work: what it asks now.
        shots: with how many a circuit; None: as many as the backend likes.
        run: its id.
        radians: by which an angle may differ; None: angles and shots may be any.
    """
    other = None
    if _forms(before.work) != _forms(work):
        other = "other circuits"
    elif radians is not None and shots not in (None, before.shots):
        other = f"the same circuits with another number of shots ({before.shots}, not {shots})"
    elif radians is not None and not _near(before.work, work, radians):
        other = "the same circuits at other angles"
    if other is None:
        return None
    return ConfigError(
        f"Run {run!r} has had {other} measured at step {before.step} than are asked for now: its "
        "results are not those of this program. Give it a run id of its own (or none), or go on "
        f"from a checkpoint of {run!r}. Nothing was bought."
    )


def _near(before: Workload, now: Workload, radians: float) -> bool:
    pairs = zip(before.batches, now.batches, strict=True)
    return all(np.allclose(a.angles, b.angles, rtol=0, atol=radians) for a, b in pairs)


def _forms(work: Workload) -> list[tuple[object, ...]]:
    return [(b.circuit, b.observables, b.n_rows) for b in work.batches]
