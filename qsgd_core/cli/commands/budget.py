"""``qsgd budget show|create|raise``: what hardware jobs may cost, on this ledger."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsgd_core.cli.options import Debug, Json
from qsgd_core.cli.show.output import print_json, print_table
from qsgd_core.errors import ConfigError
from qsgd_core.settings import load_settings

if TYPE_CHECKING:
    from qsgd_core.schedule.ledger.ledger import Ledger
    from qsgd_core.schedule.money import Cap

budget = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The budget's name.")]
Amounts = Annotated[
    list[str],
    typer.Argument(
        help="600s, $25 or 1e6shots; several cap several units at once.", metavar="AMOUNT..."
    ),
]


def open_ledger() -> Ledger:
    """The ledger of QSGD_LEDGER, else of QSGD_HOME."""
    from qsgd_core.schedule.ledger.ledger import Ledger

    return Ledger(load_settings().ledger_url())


@budget.command()
def show(
    name: Annotated[str | None, typer.Argument(help="One budget. Default: all.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show caps, holds and spending; each unit of a budget is a record."""
    records = _records(open_ledger(), name)
    if name is not None and not records:
        raise ConfigError(f"There is no budget {name!r}. Make it: qsgd budget create {name} $25")
    if as_json:
        print_json(records)
        return
    if not records:
        typer.echo(
            "No budget yet. The first paid job makes the default one ($10, or 60 s of QPU time on "
            "a free plan); your own: qsgd budget create NAME $25"
        )
        return
    _print(records)


@budget.command()
def create(name: Name, amounts: Amounts, as_json: Json = False, debug: Debug = False) -> None:
    """Make a budget for runs that name it: --budget NAME. A job must fit under all its caps."""
    from qsgd_core.schedule.ledger.budgets import check_name
    from qsgd_core.schedule.money import parse_budget

    limits = parse_budget(",".join(amounts))
    ledger = open_ledger()
    ledger.create_budget(check_name(name), limits)
    _shown(ledger, name, as_json=as_json)


@budget.command("raise")
def raise_(name: Name, amounts: Amounts, as_json: Json = False, debug: Debug = False) -> None:
    """Set a budget's cap to AMOUNT, which must be more than it is; denied jobs may try again.

    Several amounts raise the caps in several units, all or none.
    """
    from qsgd_core.schedule.money import parse_budget

    limits = parse_budget(",".join(amounts))
    ledger = open_ledger()
    ledger.raise_budget(name, limits)
    _shown(ledger, name, as_json=as_json)


def _shown(ledger: Ledger, name: str, *, as_json: bool) -> None:
    """Print the budget that was made or raised."""
    (print_json if as_json else _print)(_records(ledger, name))


def _records(ledger: Ledger, name: str | None) -> list[dict[str, Any]]:
    """Caps in the ledger's own integers: shots, micro-dollars, microseconds of QPU time.

    Of what is spent, ``provisional`` is booked at the hold: the vendor has not said yet.
    """
    from qsgd_core.schedule.money import Amount

    late = ledger.unstated()

    def provisional(cap: Cap) -> int | None:
        return Amount.total(j.provisional for j in late if j.budget == cap.budget).of(cap.unit)

    return [
        asdict(cap) | {"provisional": provisional(cap), "left": cap.left}
        for cap in ledger.caps(name)
    ]


def _print(records: list[dict[str, Any]]) -> None:
    from qsgd_core.schedule.money import say

    columns = ("cap", "reserved", "spent", "provisional", "overrun", "left")
    rows = [(r["budget"], *(say(r["unit"], r[column]) for column in columns)) for r in records]
    print_table(("budget", *columns), rows)
    if any(r["provisional"] for r in records):
        typer.echo(
            "provisional: of what is spent, booked at the hold until the vendor says. To ask: "
            "qsgd jobs resume",
            err=True,
        )
