"""``qsgd report RUN``: what a run measured, what that cost, and whether it was worth it."""

from __future__ import annotations

from typing import Annotated

import typer

from qsgd_core.cli.options import Debug, Json
from qsgd_core.cli.output import print_json


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a run measured, what that cost, and whether it was worth it. Changes nothing."""
    from rich.console import Console

    from qsgd_core.cli.budget import open_ledger
    from qsgd_core.cli.runreport_text import print_report
    from qsgd_core.settings import load_settings
    from qsgd_core.training.folder import find_run
    from qsgd_core.training.reporting import report as gather

    found = gather(find_run(run, load_settings().runs), open_ledger)
    if as_json:
        print_json(found.to_dict())
    else:
        print_report(found, Console())
