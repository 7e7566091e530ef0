"""``qsgd train``: from the line to the library and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsgd_core.cli.options import Debug, Json
from qsgd_core.cli.output import print_json, quiet_stdout
from qsgd_core.errors import ConfigError
from qsgd_core.options import parse_options
from qsgd_core.settings import load_settings

if TYPE_CHECKING:
    from qsgd_core.training.summary import Summary

INTERRUPTED = 130

TERM = "Quantum term"
TRAINING = "Training"
RUN = "Run folder"


def train(
    task: Annotated[
        str | None,
        typer.Argument(help="A task by name, or script.py:make_task. Not needed with --resume."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="Where circuits run. Default: QSGD_BACKEND, else exact.", rich_help_panel=TERM
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An option of the backend; may be repeated.",
            rich_help_panel=TERM,
        ),
    ] = None,
    perturbation: Annotated[
        str | None,
        typer.Option(
            help="What is computed; see qsgd perturbations. Default: sine.", rich_help_panel=TERM
        ),
    ] = None,
    perturbation_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="An option of the perturbation; may be repeated.",
            rich_help_panel=TERM,
        ),
    ] = None,
    quantum_weight: Annotated[
        float | None,
        typer.Option(help="Strength λ of the term. Default: 0.5.", rich_help_panel=TERM),
    ] = None,
    n_qubits: Annotated[
        int | None, typer.Option(help="Qubits of a block. Default: 4.", rich_help_panel=TERM)
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Layers of the circuit. Default: 2.", rich_help_panel=TERM)
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            help="Which coordinates: tensor, model or all. Default: tensor.", rich_help_panel=TERM
        ),
    ] = None,
    inject: Annotated[
        str | None,
        typer.Option(
            help="Add the term to the update or to the gradient. Default: update.",
            rich_help_panel=TERM,
        ),
    ] = None,
    normalize: Annotated[
        str | None,
        typer.Option(
            help="update: rescale the term to the base step. Default: no rescaling.",
            rich_help_panel=TERM,
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            help="Measure every k-th step and hold s in between. Default: every step.",
            rich_help_panel=TERM,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            help="What a paid backend may cost: 600s, $25, 1e6shots, or a budget's name.",
            rich_help_panel=TERM,
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            help="Shots per circuit. Default: QSGD_SHOTS, else the backend's.", rich_help_panel=TERM
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything random. Default: 0.", rich_help_panel=TRAINING)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Default: the task's.", rich_help_panel=TRAINING)
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(help="Stop after so many optimizer steps.", rich_help_panel=TRAINING),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate. Default: the task's.", rich_help_panel=TRAINING),
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Default: the task's.", rich_help_panel=TRAINING)
    ] = None,
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="adamw, or another of torch.optim in lower case, such as sgd.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Go on with this run: its folder, or its name.", rich_help_panel=RUN
        ),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run. Default: a fresh one under QSGD_RUNS (runs).",
            rich_help_panel=RUN,
        ),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(metavar="STEPS", help="Checkpoint within epochs too.", rich_help_panel=RUN),
    ] = None,
    observe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Run an observer, such as tensorboard; may be repeated.",
            rich_help_panel=RUN,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show the plan and the first circuit; send and write nothing.",
            rich_help_panel=RUN,
        ),
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a task with the quantum term, or go on with a run."""
    given = {
        "optimizer": optimizer,
        "lr": lr,
        "weight_decay": weight_decay,
        "epochs": epochs,
        "max_steps": max_steps,
        "seed": seed,
        "quantum_weight": quantum_weight,
        "n_qubits": n_qubits,
        "depth": depth,
        "perturbation": perturbation,
        "perturbation_options": parse_options(perturbation_option or ()) or None,
        "backend": backend,
        "backend_options": parse_options(option or ()) or None,
        "shots": shots,
        "scope": scope,
        "inject": inject,
        "normalize": normalize,
        "every": every,
        "budget": budget,
    }  # fmt: skip
    asked = {name: value for name, value in given.items() if value is not None}
    _check_together(task, resume, run_dir, dry_run=dry_run)
    if dry_run:
        _plan(task or "", asked, as_json=as_json)
        return
    with quiet_stdout(as_json):
        summary = _run(task, asked, resume, run_dir, checkpoint_every, observe)
    _conclude(summary, as_json=as_json)


def _check_together(
    task: str | None, resume: str | None, run_dir: Path | None, *, dry_run: bool
) -> None:
    """Raise ConfigError for arguments that contradict each other, or for none at all."""
    if task is None and resume is None:
        raise ConfigError(
            "No task was named. Try: qsgd train digits, or qsgd train script.py:make_task, or "
            "qsgd train --resume RUN"
        )
    if resume is not None and run_dir is not None:
        raise ConfigError(
            f"--resume goes on in the run's own folder; leave --run-dir {run_dir} out."
        )
    if resume is not None and dry_run:
        raise ConfigError("--dry-run shows the plan of a new run; leave --resume out.")


def _run(
    name: str | None,
    asked: Mapping[str, Any],
    resume: str | None,
    run_dir: Path | None,
    checkpoint_every: int | None,
    observe: list[str] | None,
) -> Summary:
    from rich.console import Console

    from qsgd_core import training
    from qsgd_core.cli.progress import ProgressBar

    settings = load_settings()
    task, source = training.load_task(name, settings) if name is not None else (None, None)
    with ProgressBar(Console(stderr=True)) as bar:
        observers = [*(settings.observers if observe is None else observe), bar]
        if resume is not None:
            return training.resume(
                resume,
                task,
                asked=asked,
                observers=observers,
                checkpoint_every=checkpoint_every,
            )
        assert task is not None  # noqa: S101 - _check_together saw to it
        return training.train(
            task,
            training.TrainConfig(**asked),
            source=source,
            run_dir=run_dir,
            observers=observers,
            checkpoint_every=checkpoint_every,
        )


def _conclude(summary: Summary, *, as_json: bool) -> None:
    """Print how the run ended."""
    from qsgd_core.cli.report import print_summary

    if summary.status == "interrupted":
        typer.echo(
            f"Interrupted after step {summary.steps}; everything is saved. "
            f"To go on: qsgd train --resume {summary.run_dir}",
            err=True,
        )
        raise typer.Exit(INTERRUPTED)
    if not summary.trained:
        typer.echo(
            f"This run is finished: {summary.epochs} epochs, {summary.steps} steps. "
            f"To train it longer: qsgd train --resume {summary.run_dir} "
            f"--epochs {summary.epochs + 5}",
            err=True,
        )
    if as_json:
        print_json(summary.to_dict())
    else:
        print_summary(summary)


def _plan(name: str, asked: Mapping[str, Any], *, as_json: bool) -> None:
    from qsgd_core import training
    from qsgd_core.cli.report import print_plan

    with quiet_stdout(as_json):
        task, _ = training.load_task(name, load_settings())
        plan = training.plan(task, training.TrainConfig(**asked))
    if as_json:
        print_json(plan.to_dict())
    else:
        print_plan(plan)
