"""Before the first job that may cost money: what a person is asked, and what a script must say.

In a terminal the first paid run on a ledger is asked about. A script is not: without ``--budget``
it has the ledger's small default budget, and for more than that it says ``--yes``.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import typer

from qsgd_core.errors import ConfigError
from qsgd_core.schedule.ledger.budgets import DEFAULT_LIMITS, named_caps
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.money import BudgetAsked, say, say_all

NO = 1
"""Exit code of a run that was not agreed to."""


@dataclass(frozen=True)
class Purchase:
    """What is about to be paid for.

    Attributes:
        backend: its full name, as asked for.
        budget: as typed; None for the ledger's default budget.
        price: what one refresh costs, in words; called only if somebody is asked. None: unknown.
    """

    backend: str
    budget: str | None
    price: Callable[[], str | None] = lambda: None


def require_consent(
    plan: Purchase,
    ledger: Ledger,
    *,
    yes: bool,
    line: Sequence[str],
    ask: Callable[[str], bool] | None,
) -> None:
    """Return if the run may spend its budget.

    Args:
        plan: of the run.
        ledger: where the budget is kept.
        yes: ``--yes`` was given.
        line: the command's arguments, for the line to paste.
        ask: puts a question to the person at the terminal; None where there is none.

    Raises:
        ConfigError: a budget that is none; or a large one in a script without ``--yes``.
        typer.Exit: the person said no.
    """
    asked = BudgetAsked.parse(plan.budget)
    if asked.name is not None:
        named_caps(ledger, asked.name)
    limits = asked.limits
    if yes:
        return
    if ask is not None:
        if ledger.paid_before() or ask(_question(plan, limits, ledger)):
            return
        typer.echo("Nothing was sent and nothing was spent.", err=True)
        raise typer.Exit(NO)
    if limits and is_large(limits):
        raise ConfigError(
            f"A budget of {say_all(limits)} for {plan.backend!r} is more than the default "
            f"({_defaults()}), and nobody is at a terminal to be asked. If it is meant, say --yes: "
            f"{shlex.join(['qsgd', *line, '--yes'])}"
        )


def is_large(limits: Mapping[str, int]) -> bool:
    """Whether no cap keeps the budget within what a script may spend without being told to."""
    small = {unit: cap for budget in DEFAULT_LIMITS.values() for unit, cap in budget.items()}
    return not any(cap <= small.get(unit, 0) for unit, cap in limits.items())


def at_terminal() -> Callable[[str], bool] | None:
    """Asks the person at the terminal, with No as the answer to Enter; None in a script."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return lambda question: typer.confirm(question, default=False, err=True)


def _question(plan: Purchase, limits: Mapping[str, int], ledger: Ledger) -> str:
    if limits:
        most = say_all(limits)
    elif plan.budget is not None:
        left = ", ".join(say(cap.unit, cap.left) for cap in ledger.caps(plan.budget))
        most = f"what budget {plan.budget!r} has left, {left}"
    else:
        most = f"the default budget, {_defaults()}"
    price = plan.price() or "an amount that is not known before the service is asked"
    return (
        f"This is the first paid run on this ledger. It may buy jobs on {plan.backend} for up to "
        f"{most}; one refresh costs {price}. Go on?"
    )


def _defaults() -> str:
    paid, free = (say_all(limits) for limits in DEFAULT_LIMITS.values())
    return f"{paid}, or {free} on a free plan"
