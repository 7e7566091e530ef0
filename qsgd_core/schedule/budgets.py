"""Which budget pays: the run's own, a named one, or the ledger's default."""

from __future__ import annotations

from qsgd_core.errors import ConfigError
from qsgd_core.jobs import Quote
from qsgd_core.schedule.ledger import Ledger
from qsgd_core.schedule.money import parse_budget, say

DEFAULT = "default"
"""Stands for one of the two budgets below until the first quote tells which."""

DEFAULT_LIMITS = {
    "default-usd": {"micro_usd": 10_000_000},
    "default-free-plan": {"qpu_us": 60_000_000},
}
"""$10, or 60 QPU seconds where the plan is known to be free. They never renew by themselves."""


def open_budget(ledger: Ledger, asked: str | None, *, run: str) -> str:
    """The name of the budget that a run's jobs are charged to.

    Args:
        ledger: where it is kept.
        asked: ``600s``, ``$25`` or ``1e6shots`` for a budget of the run's own; the name of a
            budget made by ``qsgd budget create``; None for the default budget.
        run: the run's id.

    Raises:
        ConfigError: neither an amount nor a name that exists; or more than the run's own budget
            was made with.
    """
    if asked is None:
        return DEFAULT
    if ledger.caps(asked):
        return asked
    try:
        unit, cap = parse_budget(asked)
    except ConfigError as error:
        names = sorted({c.budget for c in ledger.caps()})
        known = f" Budgets on this ledger: {', '.join(names)}." if names else ""
        raise ConfigError(f"{error} Or the name of a budget.{known}") from None
    name = f"run:{run}"
    ledger.ensure_budget(name, {unit: cap})
    found = {c.unit: c.cap for c in ledger.caps(name)}
    if unit not in found or found[unit] < cap:
        has = ", ".join(say(u, c) for u, c in found.items())
        raise ConfigError(
            f"Run {run!r} has a budget of {has} already, and {asked!r} was asked for. Leave the "
            f"budget as it was, and raise it: qsgd budget raise {name} AMOUNT."
        )
    return name


def check_name(name: str) -> str:
    """``name``, if a new budget may have it.

    Raises:
        ConfigError: it is empty, reads as an amount, or is one that QSGD gives.
    """
    try:
        parse_budget(name)
    except ConfigError:
        taken = name == DEFAULT or name in DEFAULT_LIMITS or name.startswith("run:")
        if name.strip() == name and 0 < len(name) <= 100 and not taken:
            return name
    raise ConfigError(
        f"A budget cannot be called {name!r}: it must have 1 to 100 characters, not read as an "
        "amount, and not be a name that QSGD gives itself (default…, run:…). Try: my-project."
    )


def default_budget(ledger: Ledger, quote: Quote) -> str:
    """The default budget that a job with this quote is charged to, made if need be."""
    free = quote.worst.usd == 0 and quote.worst.qpu_s is not None
    name = "default-free-plan" if free else "default-usd"
    ledger.ensure_budget(name, DEFAULT_LIMITS[name])
    return name
