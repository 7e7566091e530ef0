"""``qsgd train``: from the line to the library and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsgd_core.cli.options import (
    TERM,
    TRAINING,
    Backend,
    BackendOptions,
    Budget,
    Data,
    Debug,
    Depth,
    Epochs,
    Every,
    Json,
    MaxSteps,
    PerturbationName,
    PerturbationOptions,
    PolicyName,
    Qubits,
    SchedulerOptions,
    Scope,
    Shots,
    Yes,
)
from qsgd_core.cli.show.output import print_json, quiet_stdout
from qsgd_core.errors import BackendError, BudgetError, ConfigError, QSGDError
from qsgd_core.plugins.options import parse_options
from qsgd_core.settings import load_settings

if TYPE_CHECKING:
    from qsgd_core.policy import Policy
    from qsgd_core.schedule.ledger.rows import Job
    from qsgd_core.settings import Settings
    from qsgd_core.task import Task
    from qsgd_core.training.folder.summary import Summary

INTERRUPTED = 130

RUN = "Run folder"


def train(
    context: typer.Context,
    task: Annotated[
        str | None,
        typer.Argument(help="A task by name, or script.py:make_task. Not needed with --resume."),
    ] = None,
    backend: Backend = None,
    option: BackendOptions = None,
    perturbation: PerturbationName = None,
    perturbation_option: PerturbationOptions = None,
    quantum_weight: Annotated[
        float | None,
        typer.Option(help="Strength λ of the term. Default: 0.5.", rich_help_panel=TERM),
    ] = None,
    n_qubits: Qubits = None,
    depth: Depth = None,
    scope: Scope = None,
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
    every: Every = None,
    budget: Budget = None,
    yes: Yes = False,
    policy: PolicyName = None,
    wait: Annotated[
        str | None,
        typer.Option(
            help="Results that training waits for: never, first, always. Default: first.",
            rich_help_panel=TERM,
        ),
    ] = None,
    schedule: SchedulerOptions = None,
    shots: Shots = None,
    seed: Annotated[
        int | None, typer.Option(help="Of everything random. Default: 0.", rich_help_panel=TRAINING)
    ] = None,
    epochs: Epochs = None,
    max_steps: MaxSteps = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate. Default: the task's.", rich_help_panel=TRAINING),
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Default: the task's.", rich_help_panel=TRAINING)
    ] = None,
    data: Data = None,
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
    replay: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Repeat this run from its record, in a new folder: no backend, no cost.",
            rich_help_panel=RUN,
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
    """Train a task with the quantum term, go on with a run, or repeat one."""
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
        "policy": policy,
        "wait": wait,
        "schedule": parse_options(schedule or ()) or None,
        "budget": budget,
    }  # fmt: skip
    asked = {name: value for name, value in given.items() if value is not None}
    _check_together(task, resume, replay, run_dir, data, dry_run=dry_run)
    if dry_run:
        _plan(task or "", data, asked, as_json=as_json)
        return
    with quiet_stdout(as_json):
        agree = partial(_agree, asked, yes=yes, line=context.find_root().obj)
        summary = _run(task, data, asked, resume, replay, run_dir, checkpoint_every, observe, agree)
    _conclude(summary, as_json=as_json)


def _check_together(
    task: str | None,
    resume: str | None,
    replay: str | None,
    run_dir: Path | None,
    data: Path | None,
    *,
    dry_run: bool,
) -> None:
    """Raise ConfigError for arguments that contradict each other, or for none at all."""
    if task is None and resume is None and replay is None:
        raise ConfigError(
            "No task was named. Try: qsgd train digits, or qsgd train script.py:make_task, or "
            "qsgd train --resume RUN"
        )
    if task is None and data is not None:
        raise ConfigError(
            f"--data {data} belongs to a task: name that too. Or leave --data out: a run knows the "
            "folder that it was started with."
        )
    if resume is not None and replay is not None:
        raise ConfigError(
            "--resume goes on with a run and --replay repeats one in a new folder: give one of "
            "them. A replay that was interrupted is resumed like any run."
        )
    if replay is not None and dry_run:
        raise ConfigError("--dry-run shows the plan of a new run; leave --replay out.")
    if resume is not None and run_dir is not None:
        raise ConfigError(
            f"--resume goes on in the run's own folder; leave --run-dir {run_dir} out."
        )
    if resume is not None and dry_run:
        raise ConfigError("--dry-run shows the plan of a new run; leave --resume out.")


def _run(
    name: str | None,
    data: Path | None,
    asked: Mapping[str, Any],
    resume: str | None,
    replay: str | None,
    run_dir: Path | None,
    checkpoint_every: int | None,
    observe: list[str] | None,
    agree: Callable[[Task], None],
) -> Summary:
    from rich.console import Console

    from qsgd_core import training
    from qsgd_core.cli.show.progress import ProgressBar

    settings = load_settings()
    task, source = None, None
    if name is not None:
        data = data or _data_of(resume or replay, settings)
        task, source = training.open_task(name, data, settings)
    if task is not None and resume is None and replay is None:
        for sentence in task.check():
            typer.echo(sentence, err=True)
        agree(task)
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
        if replay is not None:
            return training.replay(
                replay,
                task,
                asked=asked,
                run_dir=run_dir,
                observers=observers,
                checkpoint_every=checkpoint_every,
            )
        assert task is not None  # noqa: S101 - _check_together saw to it
        return training.train(
            task,
            training.TrainConfig(**asked),
            source=source,
            data=data,
            run_dir=run_dir,
            observers=observers,
            checkpoint_every=checkpoint_every,
        )


def _data_of(run: str | None, settings: Settings) -> Path | None:
    """The folder that a recorded run had its data in."""
    from qsgd_core.training.folder.folder import find_run, read_record

    if run is None:
        return None
    data = read_record(find_run(run, settings.runs)).data
    return None if data is None else Path(data)


def _agree(asked: Mapping[str, Any], task: Task, *, yes: bool, line: Sequence[str]) -> None:
    """See to it that the run may cost what it may cost, if it buys anything."""
    from qsgd_core.cli import consent
    from qsgd_core.plugins.registry import default_registry

    settings = load_settings()
    registry = default_registry(settings)
    name = asked.get("backend") or settings.backend
    spec = registry.resolve_backend(name).spec
    policy = registry.make_policy(asked.get("policy") or settings.policy)
    if not spec.paid or not policy.measures or asked.get("quantum_weight") == 0:
        return
    from qsgd_core.schedule.ledger.ledger import Ledger

    consent.require_consent(
        consent.Purchase(name, asked.get("budget"), price=lambda: _price_of_a_refresh(task, asked)),
        Ledger(settings.ledger_url()),
        yes=yes,
        line=line,
        ask=consent.at_terminal(),
    )


def _price_of_a_refresh(task: Task, asked: Mapping[str, Any]) -> str | None:
    """In words; None where nobody can say so now."""
    from qsgd_core.cli.commands.estimate import foresee, price_of_one

    known = ("backend", "backend_options", "budget", "shots")
    typer.echo("Asking what one refresh costs …", err=True)
    try:
        found = foresee(
            task,
            {name: value for name, value in asked.items() if name not in known},
            asked.get("backend"),
            asked.get("backend_options"),
            steps=1,
            budget=asked.get("budget"),
            shots=asked.get("shots"),
        )
    except QSGDError:  # the run itself will say what is wrong
        return None
    return price_of_one(found)


def _conclude(summary: Summary, *, as_json: bool) -> None:
    """Print how the run ended."""
    from qsgd_core.cli.show.summary import print_summary

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
    if summary.spending is not None:
        _require_in_order(summary)


def _require_in_order(summary: Summary) -> None:
    """Raise for what nobody should overlook at the end of a paid run.

    Raises:
        BudgetError: a vendor has billed above what was held for the run's budget.
        BackendError: a run that was to use hardware results used none.
    """
    from qsgd_core.schedule.ledger.accounts import say_overrun
    from qsgd_core.schedule.ledger.ledger import Ledger
    from qsgd_core.training.folder.folder import RunFolder, read_record

    config = read_record(RunFolder(Path(summary.run_dir))).config
    ledger = Ledger(load_settings().ledger_url())
    frozen = ledger.frozen(config.term.run or "")
    said = [say_overrun(cap) for cap in frozen]
    if _lacks_a_result(summary, config.term.policy):
        said.append(_say_no_result(summary, ledger.jobs(run=config.term.run or "")))
    if said:
        raise (BudgetError if frozen else BackendError)(" ".join(said))


def _lacks_a_result(summary: Summary, policy: str | Policy | None) -> bool:
    """Whether hardware was to have a part in s, and had none."""
    from qsgd_core.plugins.registry import default_registry

    settings = load_settings()
    wanted = default_registry(settings).make_policy(policy or settings.policy).measures
    used = any(summary.sources[name] for name in ("measured", "held", "tracked"))
    return wanted and summary.quantum_weight != 0 and not used


def _say_no_result(summary: Summary, jobs: Sequence[Job]) -> str:
    states = Counter(job.state for job in jobs)
    became = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"
    why = next((f" The last error: {job.error}" for job in reversed(jobs) if job.error), "")
    return (
        f"No step of this run used a hardware result. Its jobs: {became}.{why} See qsgd report "
        f"{summary.run_dir}. Next time, --wait first waits for the first result, and --policy twin "
        "does without hardware."
    )


def _plan(name: str, data: Path | None, asked: Mapping[str, Any], *, as_json: bool) -> None:
    from qsgd_core import training
    from qsgd_core.cli.show.summary import print_plan

    with quiet_stdout(as_json):
        task, _ = training.open_task(name, data, load_settings())
        for sentence in task.check():
            typer.echo(sentence, err=True)
        plan = training.plan(task, training.TrainConfig(**asked))
    if as_json:
        print_json(plan.to_dict())
    else:
        print_plan(plan)
