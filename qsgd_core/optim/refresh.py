"""Where a step's s comes from: measured now, held from an earlier step, or 0 if g says nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from qsgd_core.errors import BackendError, BudgetError
from qsgd_core.optim.config import Count, at_step, logger
from qsgd_core.optim.held import State, read_held
from qsgd_core.optim.modulation import Modulation, Source
from qsgd_core.optim.record import Record
from qsgd_core.optim.selection import Bucket


def modulate(
    source: Source,
    every: Count | None,
    *,
    record: Record,
    state: State,
    buckets: Sequence[Bucket],
    theta: Sequence[torch.Tensor],
    grad: Sequence[torch.Tensor],
) -> tuple[Modulation, bool]:
    """s for the step that ``record`` has come to.

    Args:
        source: measures.
        every: steps that use one measurement.
        record: the engine's; told when something is measured.
        state: the optimizer's, where a held s is.
        buckets: the coordinates.
        theta: θ, (L,) a bucket.
        grad: g, (L,) a bucket.

    Returns:
        s, and whether it is to be held for later steps.
    """
    step = record.steps
    k = 1 if every is None else at_step(every, step, "every")
    due = record.asked_at is None or record.asked_at <= step - k
    if not due and (held := _held(record, state, buckets)):
        return held, False
    if not source.cheap and not _worth_measuring(grad):
        return Modulation([torch.zeros_like(g) for g in grad], "zero"), False
    record.asked_at = step
    try:
        modulation = source.modulate(buckets, theta, grad, step=step)
    except (BackendError, BudgetError) as error:
        last = _held(record, state, buckets) if k > 1 and source.paid is not None else None
        if last is None:
            raise
        logger.warning(
            "Step %d was not measured: %s The measurement of step %s is held; the next is asked "
            "for in %d steps.",
            step,
            error,
            record.measured_at,
            k,
        )
        return last, False
    record.measured_at, record.measured = step, modulation.source
    return modulation, k > 1


def _held(record: Record, state: State, buckets: Sequence[Bucket]) -> Modulation | None:
    """The last measurement, unless a tensor that has a gradient now was not in it."""
    values = None if record.measured_at is None else read_held(state, buckets)
    return None if values is None else Modulation(values, record.measured)


def _worth_measuring(grad: Sequence[torch.Tensor]) -> bool:
    """Not all zero, and finite: an overflow that a GradScaler will skip has no modulation."""
    return any(bool(g.any()) for g in grad) and all(bool(g.isfinite().all()) for g in grad)
