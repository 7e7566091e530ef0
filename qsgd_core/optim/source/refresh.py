"""Where a step's s comes from: measured now, held from an earlier step, or 0 if g says nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from qsgd_core.measure.counts import at_step
from qsgd_core.optim.coordinates.exchange import gather
from qsgd_core.optim.coordinates.selection import Bucket
from qsgd_core.optim.counters import Counters
from qsgd_core.optim.source.held import State, read_held
from qsgd_core.optim.source.modulation import Modulation, Source
from qsgd_core.sources import SourceName

STANDS_IN: dict[str, SourceName] = {"tracked": "tracked", "nominal": "nominal", "zero": "zero"}
"""What stands in for a result keeps its name however many steps use it; the rest is held."""


def modulate(
    source: Source,
    *,
    record: Counters,
    state: State,
    buckets: Sequence[Bucket],
    theta: Sequence[torch.Tensor],
    grad: Sequence[torch.Tensor],
) -> tuple[Modulation, bool]:
    """s for the step that ``record`` has come to.

    Args:
        source: gives s, and says for how many steps.
        record: the engine's; told when something is measured.
        state: the optimizer's, where a held s is.
        buckets: the coordinates.
        theta: θ, (M,) a bucket.
        grad: g, (M,) a bucket.

    Returns:
        s, (L,) a bucket, and whether it is to be held for later steps.
    """
    step = record.steps
    k = 1 if source.every is None else at_step(source.every, step, "every")
    due = record.asked_at is None or record.asked_at <= step - k
    if not due and (values := _held(record, state, buckets)) is not None:
        return Modulation(values, STANDS_IN.get(record.measured, "held")), False
    theta, grad = gather(buckets, theta, grad)
    if not source.cheap and not _worth_measuring(grad):
        return Modulation([torch.zeros_like(g) for g in grad], "zero"), False
    record.asked_at = step
    # An angle that is infinite or NaN would take its whole block along, on a simulator the step.
    angles = [t.nan_to_num(0.0, 0.0, 0.0) for t in theta]
    modulation = source.modulate(buckets, angles, grad, step=step)
    record.measured_at, record.measured = step, modulation.source
    return modulation, k > 1


def _held(record: Counters, state: State, buckets: Sequence[Bucket]) -> list[torch.Tensor] | None:
    """The last measurement, unless a tensor that has a gradient now was not in it."""
    return None if record.measured_at is None else read_held(state, buckets)


def _worth_measuring(grad: Sequence[torch.Tensor]) -> bool:
    """Not all zero, and finite: an overflow that a GradScaler will skip has no modulation."""
    return any(bool(g.any()) for g in grad) and all(bool(g.isfinite().all()) for g in grad)
