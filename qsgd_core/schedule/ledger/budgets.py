"""Which budget pays: the run's own, a named one, or the ledger's default."""

from __future__ import annotations

from qsgd_core.errors import ConfigError
from qsgd_core.jobs import Quote
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.money import parse_budget, say_all

DEFAULT = "default"
"""Stands for one of the budgets below until the first quote tells which."""

DEFAULT_LIMITS = {
    "default-usd": {"micro_usd": 10_000_000},
    "default-free-plan": {"qpu_us": 60_000_000},
}
"""$10, or 60 QPU seconds where the plan is known to be free; for each billing account, where the
backend knows it. They never renew by themselves."""

_OURS = ("default-", "run:")


def open_budget(ledger: Ledger, asked: str | None, *, run: str) -> str:
    """The name of the budget that a run's jobs are charged to.

    Args:
        ledger: where it is kept.
        asked: ``600s``, ``$25`` or ``1e6shots`` for a budget of the run's own, ``$25,600s`` for
            one with two caps; the name of a budget made by ``qsgd budget create``; None for the
            default budget.
        run: the run's id.

    Raises:
        ConfigError: neither an amount nor a name that exists; or more than the run's own budget
            was made with.
    """
    if asked is None:
        return DEFAULT
    if ledger.caps(asked):
        return asked
    limits = read_amounts(asked, ledger)
    name = f"run:{run}"
    ledger.ensure_budget(name, limits)
    found = {c.unit: c.cap for c in ledger.caps(name)}
    if any(found.get(unit, 0) < cap for unit, cap in limits.items()):
        raise ConfigError(
            f"Run {run!r} has a budget of {say_all(found)} already, and {asked!r} was asked for. "
            f"Leave the budget as it was, and raise it: qsgd budget raise {name} AMOUNT."
        )
    return name


def read_amounts(asked: str, ledger: Ledger | None) -> dict[str, int]:
    """What was typed as a budget and is not the name of one, as {unit: cap}.

    Raises:
        ConfigError: it is no amount either; names the budgets there are.
    """
    try:
        return parse_budget(asked)
    except ConfigError as error:
        names = sorted({c.budget for c in ledger.caps()}) if ledger is not None else []
        known = f" Budgets on this ledger: {', '.join(names)}." if names else ""
        raise ConfigError(f"{error} Or the name of a budget.{known}") from None


def check_name(name: str) -> str:
    """``name``, if a new budget may have it.

    Raises:
        ConfigError: it is empty, reads as an amount, or is one that QSGD gives.
    """
    try:
        parse_budget(name)
    except ConfigError:
        taken = name == DEFAULT or name.startswith(_OURS)
        if name.strip() == name and 0 < len(name) <= 100 and not taken:
            return name
    raise ConfigError(
        f"A budget cannot be called {name!r}: it must have 1 to 100 characters, not read as an "
        "amount, and not be a name that QSGD gives itself (default…, run:…). Try: my-project."
    )


def default_budget(ledger: Ledger, quote: Quote, *, account: str | None) -> str:
    """The default budget that a job is charged to, made if need be.

    Args:
        ledger: where it is kept.
        quote: the job's, which tells whether it is free.
        account: who is billed, see :meth:`Backend.account`; one budget for all where it is unknown.
    """
    free = quote.worst.usd == 0 and quote.worst.qpu_s is not None
    kind = "default-free-plan" if free else "default-usd"
    name = kind if account is None else f"{kind}:{account}"
    ledger.ensure_budget(name, DEFAULT_LIMITS[kind])
    return name
