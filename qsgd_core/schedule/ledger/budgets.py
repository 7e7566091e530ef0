"""Which budget pays: the run's own, a named one, or the ledger's default."""

from __future__ import annotations

from qsgd_core.errors import ConfigError
from qsgd_core.jobs import Quote
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.money import BudgetAsked, Cap, parse_budget, say_all
from qsgd_core.schedule.paid_run import DEFAULT_BUDGET

DEFAULT_LIMITS = {
    "default-usd": {"micro_usd": 10_000_000},
    "default-free-plan": {"qpu_us": 60_000_000},
}
"""$10, or 60 QPU seconds where the plan is known to be free; for each billing account, where the
backend knows it. They never renew by themselves."""

_OURS = ("default-", "run:")


def open_budget(ledger: Ledger, asked: BudgetAsked, *, run: str) -> str:
    """The name of the budget that a run's jobs are charged to.

    Args:
        ledger: where it is kept.
        asked: amounts make a budget of the run's own; nothing is the default budget.
        run: the run's id.

    Raises:
        ConfigError: neither an amount nor a name that exists; or more than the run's own budget
            was made with.
    """
    if asked.text is None:
        return DEFAULT_BUDGET
    if asked.name is not None:
        return named_caps(ledger, asked.name)[0].budget
    name = f"run:{run}"
    ledger.ensure_budget(name, asked.limits)
    found = {c.unit: c.cap for c in ledger.caps(name)}
    if any(found.get(unit, 0) < cap for unit, cap in asked.limits.items()):
        raise ConfigError(
            f"Run {run!r} has a budget of {say_all(found)} already, and {asked.text!r} was asked "
            f"for. Leave the budget as it was, and raise it: qsgd budget raise {name} AMOUNT."
        )
    return name


def named_caps(ledger: Ledger | None, name: str) -> list[Cap]:
    """The caps of a budget by its name.

    Raises:
        ConfigError: there is none; says how amounts are written, and which budgets there are.
    """
    if ledger is not None and (caps := ledger.caps(name)):
        return caps
    try:
        parse_budget(name)
    except ConfigError as error:
        names = sorted({c.budget for c in ledger.caps()}) if ledger is not None else []
        known = f" Budgets on this ledger: {', '.join(names)}." if names else ""
        raise ConfigError(f"{error} Or the name of a budget.{known}") from None
    raise ConfigError(f"{name!r} is an amount, and not the name of a budget.")


def check_name(name: str) -> str:
    """``name``, if a new budget may have it.

    Raises:
        ConfigError: it is empty, reads as an amount, or is one that QSGD gives.
    """
    taken = name == DEFAULT_BUDGET or name.startswith(_OURS)
    fits = name.strip() == name and 0 < len(name) <= 100
    if fits and not taken and not BudgetAsked.parse(name).limits:
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
