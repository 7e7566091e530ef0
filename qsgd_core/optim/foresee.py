"""What a run would cost on a queued service, found out without sending or writing anything."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from qsgd_core.circuits import Workload
from qsgd_core.errors import ConfigError
from qsgd_core.isolate import name_of
from qsgd_core.measure.counts import Count, at_step
from qsgd_core.optim.config import TermConfig, read_options, require_circuit
from qsgd_core.optim.coordinates.groups import Groups
from qsgd_core.optim.coordinates.selection import Bucket, select
from qsgd_core.perturbation import Perturbation
from qsgd_core.plugins.registry import Registry
from qsgd_core.prices import find_price
from qsgd_core.schedule.forecast.forecast import Forecast, Queue, forecast, free, price_of
from qsgd_core.schedule.forecast.survey import Survey, survey
from qsgd_core.schedule.ledger.budgets import DEFAULT_LIMITS, named_caps
from qsgd_core.schedule.ledger.database import ledger_exists
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.money import BudgetAsked, Cap
from qsgd_core.schedule.packing.turns import MAX_BLOCKS, require_affordable_size, rotation, take
from qsgd_core.settings import Settings


def foresee(groups: Groups, config: TermConfig, *, registry: Registry) -> Forecast:
    """The forecast of a run of ``config.total_steps`` steps.

    Args:
        groups: the optimizer's, with the term's settings.
        config: ``every`` may be None: as often as the budget allows; no budget is the default one.
        registry: finds the backend.

    Raises:
        ConfigError: something that cannot be done as asked.
        BudgetError: the budget does not pay for one job, or nobody knows whether it does.
        BackendError: the service cannot be asked, and the price table has no row for it.
    """
    steps, settings = config.total_steps, registry.settings
    if steps is None:
        raise ConfigError("Say how many optimizer steps the run has: total_steps=2000.")
    ledger = _existing_ledger(settings.ledger_url())
    if config.budget is not None:
        _named_caps(ledger, config.budget)
    chosen = config.source_settings(settings)
    backend, options, asked = name_of(chosen.backend), chosen.backend_options, chosen.shots
    perturbation = registry.make_perturbation(
        config.perturbation, depth=config.depth, options=config.perturbation_options
    )
    shots = None if asked is None else at_step(asked, 0, "shots")
    blocks, wanted = _count_blocks(groups), _refreshes(config.every, steps)
    every = None if callable(config.every) else config.every
    if registry.resolve_backend(chosen.backend).spec.kind == "simulator":
        simulator = registry.make_backend(chosen.backend, options)
        if isinstance(perturbation, Perturbation):
            shots = simulator.capabilities.default_shots if shots is None else shots
            work = _refresh(groups, perturbation, most=1)
            simulator.capabilities.require(backend, work, shots=shots)
        times = steps if wanted is None else wanted
        every = 1 if config.every is None else every
        why = "a simulator in this process is free"
        return free(
            backend, steps=steps, wanted=times, every=every, blocks=blocks, shots=shots, why=why
        )
    perturbation = require_circuit(perturbation, name_of(config.perturbation), backend)
    if not registry.make_policy(chosen.policy).measures:
        why = f"policy {name_of(chosen.policy)!r} measures nothing"
        return free(backend, steps=steps, wanted=0, every=None, blocks=blocks, shots=0, why=why)
    schedule = read_options(config.schedule)
    work = _refresh(groups, perturbation, most=MAX_BLOCKS)
    if schedule.blocks_per_refresh is not None:
        turn = rotation([b.n_rows for b in work.batches], schedule.blocks_per_refresh, 0)
        work = take(work, turn)
        blocks = work.n_rows
    found = survey(
        backend,
        registry.backend_options(backend, options),
        work,
        shots=shots,
        tiles=schedule.tiles,
        listed=find_price(backend, settings=settings),
    )
    if blocks > MAX_BLOCKS:
        price = price_of(found.quotes, share=blocks / MAX_BLOCKS)
        require_affordable_size(blocks, None if price is None else f"about {price}")
    waits = []
    if ledger is not None:
        waits = [s for name in {backend, found.device} for s in ledger.queue_times(name)]
    return forecast(
        backend,
        found,
        _caps(ledger, config.budget, found),
        blocks=blocks,
        steps=steps,
        every=every,
        wanted=wanted,
        queue=Queue.of(waits),
    )


def check_budget(budget: str, settings: Settings) -> None:
    """Raise ConfigError unless ``budget`` is an amount or the name of a budget on the ledger."""
    _named_caps(_existing_ledger(settings.ledger_url()), budget)


def _named_caps(ledger: Ledger | None, budget: str) -> list[Cap]:
    """The caps of a budget that exists, or of one that a run would make."""
    asked = BudgetAsked.parse(budget)
    return _new_caps(budget, asked.limits) if asked.limits else named_caps(ledger, budget)


def _caps(ledger: Ledger | None, budget: str | None, found: Survey) -> list[Cap]:
    """The caps that the run's jobs would be held against; makes no budget."""
    if budget is not None:
        return _named_caps(ledger, budget)
    worst = [quote.worst for quote in found.quotes]
    no_money = all(cost.usd == 0 and cost.qpu_s is not None for cost in worst)
    kind = "default-free-plan" if no_money else "default-usd"
    name = kind if found.account is None else f"{kind}:{found.account}"
    if ledger is not None and (caps := ledger.caps(name)):
        return caps
    return _new_caps(name, DEFAULT_LIMITS[kind])


def _new_caps(name: str, limits: Mapping[str, int]) -> list[Cap]:
    return [Cap(name, unit, cap, reserved=0, spent=0, overrun=0) for unit, cap in limits.items()]


def _existing_ledger(url: str) -> Ledger | None:
    """The ledger, unless opening it would make one."""
    return Ledger(url) if ledger_exists(url) else None


def _refreshes(every: Count | None, steps: int) -> int | None:
    """How many refreshes ``every`` asks for; None if it leaves that open."""
    if every is None:
        return None
    if not callable(every):
        return -(-steps // every)
    count, last = 0, None
    for step in range(steps):
        if last is None or step - last >= at_step(every, step, "every"):
            count, last = count + 1, step
    return count


def _buckets(groups: Groups) -> list[Bucket]:
    return select(groups.all, range(len(groups.all)), groups.order, only=None)


def _count_blocks(groups: Groups) -> int:
    return sum(blocks.n_blocks for bucket in _buckets(groups) for blocks in bucket.blocks)


def _refresh(groups: Groups, perturbation: Perturbation, *, most: int) -> Workload:
    """The circuits of one refresh at the present weights: at most so many blocks, g = 0."""
    batches = []
    for bucket in _buckets(groups):
        theta = (
            bucket.read_params()
            if bucket.ranks is None
            else torch.zeros(bucket.total, device="cpu")
        )
        for blocks in bucket.blocks:
            if most > 0:
                rows = blocks.take(theta)[:most].detach().to("cpu", torch.float64).numpy()
                batches += perturbation.plan(rows, np.zeros_like(rows), step=0)
                most -= len(rows)
    return Workload(tuple(batches))
