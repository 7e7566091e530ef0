"""``qsgd compare``: from the line to a comparison and back."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qsgd_core.cli.commands.report import PAGES, write_page
from qsgd_core.cli.options import (
    Backend,
    BackendOptions,
    Data,
    Debug,
    Epochs,
    Every,
    Json,
    MaxSteps,
    Shots,
    Yes,
)
from qsgd_core.cli.show.output import print_json, print_table, quiet_stdout
from qsgd_core.errors import ConfigError, QSGDError
from qsgd_core.plugins.options import parse_options
from qsgd_core.plugins.registry import default_registry
from qsgd_core.settings import load_settings
from qsgd_lab.compare.arms import split
from qsgd_lab.compare.presets import preset_arms

if TYPE_CHECKING:
    from qsgd_lab.compare.plan import ComparisonPlan
    from qsgd_lab.compare.table import Comparison

INTERRUPTED = 130
REPORT = PAGES["html"]

ARMS = "Arms"
RUNS = "Runs"


def compare(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="A task by name, or script.py:make_task.")],
    arms: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Separated by commas: adamw is the baseline; sine@0.5 has a term of λ=0.5; "
            "sine@0.5:gradient, :normalized, :all, :depth=4 say more about it.",
            rich_help_panel=ARMS,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="paper: the paper's four arms, and a control for each with a term.",
            rich_help_panel=ARMS,
        ),
    ] = None,
    no_controls: Annotated[
        bool,
        typer.Option("--no-controls", help="The preset without controls.", rich_help_panel=ARMS),
    ] = False,
    backend: Backend = None,
    option: BackendOptions = None,
    shots: Shots = None,
    every: Every = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            help="What all runs together may cost on a paid backend, shared out equally: 600s, "
            "$25, 1e6shots.",
            rich_help_panel=ARMS,
        ),
    ] = None,
    yes: Yes = False,
    seeds: Annotated[
        int, typer.Option(help="Runs of each arm: seeds 0, 1, ….", rich_help_panel=RUNS)
    ] = 10,
    epochs: Epochs = None,
    max_steps: MaxSteps = None,
    data: Data = None,
    target: Annotated[
        float | None,
        typer.Option(
            help="Of the primary metric, for epochs to target. Default: 0.9 for an accuracy.",
            rich_help_panel=RUNS,
        ),
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Where runs run: local or ray.", rich_help_panel=RUNS)
    ] = "local",
    jobs: Annotated[
        int | None,
        typer.Option(help="Runs at once on this machine. Default: 1.", rich_help_panel=RUNS),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads of torch in each run. Default: torch's own, divided among --jobs.",
            rich_help_panel=RUNS,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--run-dir",
            help="Folder of the comparison. Default: one under QSGD_RUNS (runs), the same for the "
            "same comparison.",
            rich_help_panel=RUNS,
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train every arm on the same seeds and say what can be concluded.

    Asked again, it goes on where it stopped; finished runs are never repeated.
    """
    from qsgd_lab.compare.planning import Asked, make_plan

    registry = default_registry(load_settings())
    with quiet_stdout(as_json):
        asked = Asked(
            task=task,
            arms=_arms(arms, preset, controls=not no_controls),
            seeds=seeds,
            epochs=epochs,
            max_steps=max_steps,
            backend=backend,
            backend_options=parse_options(option or ()) or None,
            shots=shots,
            every=every,
            budget=budget,
            data=data,
            target=target,
            threads=_threads(threads, jobs),
        )
        plan = make_plan(asked, registry)
        line = tuple(context.find_root().obj or ())
        result = _run(plan, out, executor, jobs, yes=yes, line=line)
    _conclude(result, as_json=as_json)


def _run(
    plan: ComparisonPlan,
    out: Path | None,
    executor: str,
    jobs: int | None,
    *,
    yes: bool,
    line: Sequence[str],
) -> Comparison:
    from rich.console import Console

    from qsgd_core import files
    from qsgd_core.schedule.ledger.ledger import Ledger
    from qsgd_lab.compare import money
    from qsgd_lab.compare.drive import drive, held
    from qsgd_lab.compare.executors import make_executor
    from qsgd_lab.compare.plan import default_folder
    from qsgd_lab.compare.progress import ComparisonProgress
    from qsgd_lab.compare.table import read_comparison, to_json
    from qsgd_lab.report.render import comparison_page

    settings = load_settings()
    home = (out or default_folder(plan, settings.runs)).resolve()
    runner = make_executor(executor, jobs=jobs, threads=plan.threads)
    ledger = Ledger(settings.ledger_url()) if money.paid_runs(plan) else None
    if ledger is not None:
        money.agree(plan, ledger, yes=yes, line=line)
    with held(home, plan) as begun:
        if ledger is not None:
            money.reserve(begun, ledger)
        with ComparisonProgress(home, begun, Console(stderr=True)) as screen:
            try:
                finished = drive(home, begun, runner, screen)
            except KeyboardInterrupt:
                finished = False
        if not finished:
            typer.echo(
                f"Interrupted; what has run is kept in {home}. To go on, ask for the same again: "
                f"{shlex.join(['qsgd', *line])}",
                err=True,
            )
            raise typer.Exit(INTERRUPTED)
        found = read_comparison(home, begun)
        files.write_json(home / "comparison.json", to_json(found))
        for form in PAGES:
            write_page(comparison_page(found, form), home, form)
    return found


def _conclude(found: Comparison, *, as_json: bool) -> None:
    """Print the result.

    Raises:
        QSGDError: runs failed; the result of the others has been printed.
    """
    from qsgd_lab.compare import text

    report = found.folder / REPORT
    said = text.sentences(found)
    if as_json:
        print_json(found.to_dict(report))
        for sentence in said:
            typer.echo(sentence, err=True)
    else:
        print_table(*text.short(found))
        for sentence in said:
            typer.echo(f"* {sentence}")
        typer.echo(f"\n{report}")
    if found.failures:
        n, of = len(found.failures), len(found.plan.seeds) * len(found.plan.arms)
        raise QSGDError(
            f"{n} of {of} runs failed: see {report}. Asked for the same again, qsgd compare tries "
            "them again and repeats no other."
        )


def _arms(arms: str | None, preset: str | None, *, controls: bool) -> list[str]:
    """Names of the arms.

    Raises:
        ConfigError: neither arms nor a preset, or both.
    """
    if (arms is None) == (preset is None):
        raise ConfigError(
            "Say what to compare, in one way: --preset paper, or --arms adamw,sine@0.5,uniform@0.5"
        )
    if preset is not None:
        return preset_arms(preset, controls=controls)
    if not controls:
        raise ConfigError("--no-controls is for --preset; of --arms, leave out what is not wanted.")
    return split(arms or "")


def _threads(asked: int | None, jobs: int | None) -> int:
    """Threads of a run."""
    if asked is None:
        import torch

        return max(torch.get_num_threads() // max(jobs or 1, 1), 1)
    if asked < 1:
        raise ConfigError(f"--threads must be at least 1, not {asked}.")
    return asked
