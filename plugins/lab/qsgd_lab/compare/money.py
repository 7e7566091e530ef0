"""What a comparison on a paid backend may spend: equal shares for the runs that measure.

A run spends what its budget holds, spread over its steps. With one budget for all, the first would
leave nothing to the others, and later seeds would be measured less than earlier ones. So an amount
is shared out before the first run: each has a budget of its own on the ledger, and together they
hold what was asked for and no more.
"""

from __future__ import annotations

from collections.abc import Sequence

from qsgd_core.cli import consent
from qsgd_core.errors import ConfigError
from qsgd_core.schedule.ledger.budgets import named_caps
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.money import BudgetAsked, say_all
from qsgd_lab.compare.plan import ComparisonPlan, RunKey


def paid_runs(plan: ComparisonPlan) -> list[RunKey]:
    """The runs that measure."""
    return [key for key in plan.every_run() if plan.arm(key.arm).paid]


def agree(plan: ComparisonPlan, ledger: Ledger, *, yes: bool, line: Sequence[str]) -> None:
    """See to it that the comparison may spend its budget, and that it is one. Changes nothing.

    Args:
        plan: of a comparison with paid runs.
        ledger: where budgets are kept.
        yes: ``--yes`` was given.
        line: the command's arguments, for the line to paste.

    Raises:
        ConfigError: no budget, one that is none, or too small a one; or a large one in a script
            without ``--yes``.
        typer.Exit: the person at the terminal said no.
    """
    runs = paid_runs(plan)
    backend = str(plan.arm(runs[0].arm).config["backend"])
    if plan.budget is None:
        raise ConfigError(
            f"The comparison would pay for {len(runs)} runs on {backend!r}. Say what all of them "
            "together may cost: --budget $25, or --budget 600s."
        )
    asked = BudgetAsked.parse(plan.budget)
    if asked.name is not None:
        named_caps(ledger, asked.name)
        _check_named(plan, runs)
    else:
        _shares(asked, len(runs))
    agreed = consent.Purchase(backend, plan.budget)
    consent.require_consent(agreed, ledger, yes=yes, line=line, ask=consent.at_terminal())


def reserve(plan: ComparisonPlan, ledger: Ledger) -> None:
    """Make the runs' shares of an amount; those that are there stay as they are."""
    runs = paid_runs(plan)
    asked = BudgetAsked.parse(plan.budget)
    if not runs or not asked.limits:
        return
    shares = _shares(asked, len(runs))
    for key in runs:
        ledger.ensure_budget(_share(plan, key), shares)


def budget_of(plan: ComparisonPlan, key: RunKey) -> str:
    """The ledger's name of what pays for a run: its share of an amount, or the named budget."""
    return BudgetAsked.parse(plan.budget).name or _share(plan, key)


def _share(plan: ComparisonPlan, key: RunKey) -> str:
    return f"compare:{plan.id}:{key.name}"


def _shares(asked: BudgetAsked, n: int) -> dict[str, int]:
    """An equal part for each of ``n`` runs, in the ledger's integers."""
    shares = {unit: cap // n for unit, cap in asked.limits.items()}
    if not all(shares.values()):
        raise ConfigError(
            f"A budget of {say_all(asked.limits)} leaves nothing when it is shared among {n} runs. "
            "Ask for more, or for fewer arms and seeds."
        )
    return shares


def _check_named(plan: ComparisonPlan, runs: Sequence[RunKey]) -> None:
    """A named budget is there for all runs; only a fixed interval keeps the first from it."""
    if free := [key.arm for key in runs if plan.arm(key.arm).config["every"] is None]:
        raise ConfigError(
            f"Budget {plan.budget!r} is shared, and a run of {free[0]!r} spends whatever it finds "
            "there: the first one would leave nothing to the others. Say how many steps lie "
            "between two measurements (--every 50), or give an amount (--budget $25), which is "
            "shared out equally."
        )
