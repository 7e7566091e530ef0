"""What a budget holds: caps, holds, spending. Steps of the ledger's transactions."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from qsgd_core.errors import BudgetError, BudgetExceededError, ConfigError
from qsgd_core.schedule.ledger.tables import budgets, caps
from qsgd_core.schedule.money import MOST, UNITS, Amount, Cap, say


def read_caps(db: sa.Connection, budget: str | None = None) -> list[Cap]:
    """The caps of one budget, or of all."""
    query = sa.select(caps).order_by(caps.c.budget, caps.c.unit)
    if budget is not None:
        query = query.where(caps.c.budget == budget)
    return [Cap(**row) for row in db.execute(query).mappings()]


def create(db: sa.Connection, name: str, limits: Mapping[str, int], *, now: float) -> None:
    """A new budget; see :meth:`Ledger.create_budget`."""
    if not limits or any(u not in UNITS or not 1 <= c <= MOST for u, c in limits.items()):
        raise ConfigError(f"A budget needs a positive cap in one of {', '.join(UNITS)}.")
    db.execute(budgets.insert().values(name=name, created_at=now))
    for unit, cap in limits.items():
        db.execute(caps.insert().values(budget=name, unit=unit, cap=cap))


def raise_caps(db: sa.Connection, name: str, limits: Mapping[str, int]) -> None:
    """Higher caps; see :meth:`Ledger.raise_budget`."""
    found = {c.unit: c for c in read_caps(db, name)}
    if not found:
        raise ConfigError(f"There is no budget {name!r}. See qsgd budget show.")
    for unit, cap in limits.items():
        if unit not in found:
            raise ConfigError(
                f"Budget {name!r} has no cap in {unit}, only in {', '.join(found)}. A cap in "
                "another unit needs a budget of its own: qsgd budget create NAME AMOUNT."
            )
        old = found[unit]
        if not old.cap < cap <= MOST:
            raise ConfigError(f"Budget {name!r} is {say(unit, old.cap)} already; raise it to more.")
        # An overrun that the new cap covers becomes ordinary spending.
        covered = old.overrun if old.reserved + old.spent + old.overrun <= cap else 0
        _change(db, old, cap=cap, spent=caps.c.spent + covered, overrun=caps.c.overrun - covered)


def refusal(limits: list[Cap], hold: Amount, *, backend: str) -> BudgetError | None:
    """Why a hold cannot be had; None if it can."""
    for limit in limits:
        asked = hold.of(limit.unit)
        if asked is None:
            return BudgetError(
                f"Budget {limit.budget!r} is capped in {limit.unit}, and what a job on {backend!r} "
                "costs in that unit is unknown. Give a budget in another unit (600s, $25 or "
                "1e6shots), or the price as a backend option."
            )
        if asked > limit.left:
            why = (
                f"is frozen: the vendor billed {say(limit.unit, limit.overrun)} above what was held"
                if limit.overrun
                else f"has {say(limit.unit, limit.left)} left of {say(limit.unit, limit.cap)}"
            )
            return BudgetExceededError(
                f"The next job on {backend!r} can cost up to {say(limit.unit, asked)}; budget "
                f"{limit.budget!r} {why}. Raise it: qsgd budget raise {limit.budget} AMOUNT.",
                asked=asked,
                left=limit.left,
                unit=limit.unit,
            )
    return None


def say_overrun(cap: Cap) -> str:
    """What a frozen cap means and what to do about it."""
    return (
        f"The vendor has billed {say(cap.unit, cap.overrun)} above what was held under budget "
        f"{cap.budget!r}: {say(cap.unit, cap.spent + cap.overrun)} in all, of "
        f"{say(cap.unit, cap.cap)}. Nothing more is bought from it. See qsgd jobs list and the "
        f"vendor's bill; to accept it: qsgd budget raise {cap.budget} AMOUNT."
    )


def hold(db: sa.Connection, limits: list[Cap], amount: Amount) -> None:
    """Reserve an amount that :func:`refusal` has nothing against."""
    for limit in limits:
        _change(db, limit, reserved=caps.c.reserved + amount.of(limit.unit))


def spend(db: sa.Connection, budget: str, *, held: Amount | None, paid: Amount) -> None:
    """Turn a hold into spending; what was paid above it is overrun, which freezes the budget.

    Args:
        db: the transaction.
        budget: who pays.
        held: the hold; None for a cost that nothing was held for, which takes what room there is.
        paid: what it cost; None in a unit counts as 0.
    """
    for limit in read_caps(db, budget):
        reserved = 0 if held is None else held.of(limit.unit) or 0
        cost = paid.of(limit.unit) or 0
        within = min(cost, limit.room if held is None else reserved)
        _change(
            db,
            limit,
            reserved=caps.c.reserved - reserved,
            spent=caps.c.spent + within,
            overrun=caps.c.overrun + (cost - within),
        )


def restate(db: sa.Connection, budget: str, *, held: Amount, was: Amount, now: Amount) -> None:
    """Spending that turns out to be more or less than was booked.

    What is above the hold is overrun, before and after; so is what there is no room for any more.

    Args:
        db: the transaction.
        budget: who pays.
        held: what had been held for it; 0 where nothing was.
        was: what was booked; None in a unit counts as 0.
        now: what it costs; what is None stays as it was.
    """
    for limit in read_caps(db, budget):
        cost, booked = now.of(limit.unit), was.of(limit.unit) or 0
        if cost is None:
            continue
        hold = held.of(limit.unit) or 0
        if cost >= booked:
            above = max(0, cost - max(hold, booked))
            within = min(cost - booked - above, max(0, limit.room))
            spent, overrun = within, cost - booked - within
        else:
            overrun = -min(booked - cost, max(0, booked - hold), limit.overrun)
            spent = -min(booked - cost + overrun, limit.spent)
            overrun = cost - booked - spent
        _change(db, limit, spent=caps.c.spent + spent, overrun=caps.c.overrun + overrun)


def _change(db: sa.Connection, limit: Cap, **values: object) -> None:
    where = (caps.c.budget == limit.budget, caps.c.unit == limit.unit)
    db.execute(caps.update().where(*where).values(**values))
