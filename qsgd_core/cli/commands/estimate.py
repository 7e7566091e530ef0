"""``qsgd estimate``: what a run would cost, before it costs anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsgd_core.cli.options import (
    Backend,
    BackendOptions,
    Budget,
    Data,
    Debug,
    Depth,
    Every,
    Json,
    PerturbationName,
    PerturbationOptions,
    PolicyName,
    Qubits,
    SchedulerOptions,
    Scope,
    Shots,
)
from qsgd_core.cli.show.output import print_json, print_pairs, quiet_stdout
from qsgd_core.cli.show.words import duration
from qsgd_core.errors import ConfigError
from qsgd_core.jobs import dollars, qpu_seconds, say_cost
from qsgd_core.plugins.options import parse_options
from qsgd_core.schedule.money import BudgetAsked
from qsgd_core.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qsgd_core.schedule.forecast.forecast import Forecast
    from qsgd_core.task import Task


def estimate(
    task: Annotated[
        str | None, typer.Argument(help="A task by name, or script.py:make_task.")
    ] = None,
    backend: Backend = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps of the whole run.")] = None,
    budget: Budget = None,
    every: Every = None,
    shots: Shots = None,
    n_qubits: Qubits = None,
    depth: Depth = None,
    perturbation: PerturbationName = None,
    perturbation_option: PerturbationOptions = None,
    scope: Scope = None,
    policy: PolicyName = None,
    schedule: SchedulerOptions = None,
    option: BackendOptions = None,
    data: Data = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a run would cost, and what it would get for it. Sends and writes nothing."""
    if task is None:
        raise ConfigError(
            "No task was named. Try: qsgd estimate digits --backend ibm_fez --steps 2000, or qsgd "
            "estimate script.py:make_task …"
        )
    given = {
        "n_qubits": n_qubits,
        "depth": depth,
        "perturbation": perturbation,
        "perturbation_options": parse_options(perturbation_option or ()) or None,
        "scope": scope,
        "every": every,
        "policy": policy,
        "schedule": parse_options(schedule or ()) or None,
    }
    asked = {name: value for name, value in given.items() if value is not None}
    options = parse_options(option or ()) or None
    with quiet_stdout(as_json):
        from qsgd_core.plugins.registry import default_registry
        from qsgd_core.training import open_task

        settings = load_settings()
        default_registry().resolve_backend(backend or settings.backend)
        opened, _ = open_task(task, data, settings)
        found = foresee(opened, asked, backend, options, steps=steps, budget=budget, shots=shots)
    if as_json:
        print_json({"task": task, **found.to_dict()})
    else:
        _print(task, found)


def foresee(
    task: Task,
    asked: Mapping[str, Any],
    backend: str | None,
    options: Mapping[str, Any] | None,
    *,
    steps: int | None,
    budget: str | None,
    shots: int | None,
) -> Forecast:
    """Build task and term on the free simulator; only the question is about ``backend``."""
    from qsgd_core.measure.counts import check_count
    from qsgd_core.training.config import TrainConfig, resolve, total_steps
    from qsgd_core.training.setup import assemble

    settings = load_settings()
    if options is None and backend is None:
        options = settings.backend_options or None
    for count, value in (("steps", steps), ("shots", shots)):
        if value is not None:
            check_count(count, value)
    config = resolve(TrainConfig(**asked, backend="exact"), task.defaults, settings)
    parts = assemble(task, config.with_term(shots=None))  # QSGD_SHOTS is not for ``exact``
    try:
        if steps is None:
            own = total_steps(config, parts.built.train_loader)
            raise ConfigError(
                "Say how many optimizer steps the run has: --steps 2000."
                + (f" The task's own {config.epochs} epochs are --steps {own}." if own else "")
            )
        return parts.term.qsgd_estimate(
            steps,
            budget=budget,
            backend=backend or settings.backend,
            backend_options=options,
            shots=shots if shots is not None else settings.shots,
        )
    finally:
        parts.term.close()


def _print(task: str, found: Forecast) -> None:
    """About ten lines on stdout, notes below."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    print_pairs([("task", f"{task}, {found.steps:,} steps"), *_rows(found)], console)
    for note in found.notes:
        console.print(Text(note))
    console.print(Text("Nothing was sent and nothing was written."))


def _rows(found: Forecast) -> list[tuple[str, str]]:
    shots = found.shots_per_circuit
    rows = [
        ("backend", found.backend + _if(found.device != found.backend, f" ({found.device})")),
        (
            "one refresh",
            f"{_some(found.blocks, 'block')}"
            + _if(found.paid, f" in {_some(found.circuits_per_refresh, 'circuit')}")
            + (", exact" if shots is None else f" of {shots:,} shots")
            + _if(found.paid, f", {_some(found.jobs_per_refresh, 'job')}: {price_of_one(found)}"),
        ),
    ]
    if not found.paid:
        often = "at changing intervals" if found.every is None else _often(found.every)
        return [
            *rows,
            ("refreshes", f"{found.refreshes:,}, {often}"),
            ("cost", f"none: {found.price['source']}"),
        ]
    return rows + _paid_rows(found)


def _paid_rows(found: Forecast) -> list[tuple[str, str]]:
    from qsgd_core.schedule.money import say

    assert found.unit is not None and found.cap is not None  # noqa: S101, PT018
    taken = (found.reserved or 0) + (found.spent or 0)
    frozen = _if(found.overrun, f", frozen by an overrun of {say(found.unit, found.overrun or 0)}")
    cap = say(found.unit, found.cap) + _if(taken, f", {say(found.unit, taken)} of it taken")
    named = _if(not BudgetAsked.parse(found.budget).limits, f"{found.budget}: ")
    measured = f"{found.refreshes:,} of {found.steps:,} ({100 * found.share_measured:.3g} %)"
    money = "dollars unknown" if found.cost_usd is None else dollars(found.cost_usd)
    time = "" if found.qpu_s is None else f", {qpu_seconds(found.qpu_s)} of QPU time"
    return [
        ("budget", named + cap + frozen),
        ("interval", _often(found.every) if found.every else "less than one whole refresh"),
        ("steps measured", measured),
        (
            "in all",
            f"{_some(found.jobs, 'job')}, {_some(found.circuits, 'circuit')}, "
            f"{found.shots or 0:,} shots: {money}{time}",
        ),
        ("queue", _waiting(found)),
        ("free twin", _errors(found)),
        ("price", _source(found)),
    ]


def price_of_one(found: Forecast) -> str:
    """What one refresh is expected to cost, in words."""
    return say_cost(found.refresh_usd, found.refresh_qpu_s) or "price unknown"


def _waiting(found: Forecast) -> str:
    queue = found.queue
    if queue.median_s is None or queue.p90_s is None or found.wall_s is None:
        return "unknown: the ledger has no finished job of this backend"
    return (
        f"{duration(queue.median_s)} a job, one in ten over {duration(queue.p90_s)} (of "
        f"{queue.jobs} on the ledger); {duration(found.wall_s)} if each refresh waits for the last"
    )


def _errors(found: Forecast) -> str:
    if found.twin_error is None or found.shot_error is None:
        return "no simulation of circuits this wide"
    return (
        f"expected to be off by {found.twin_error:.3f} RMS, at no cost; the shot noise of one "
        f"refresh is {found.shot_error:.3f}"
    )


def _source(found: Forecast) -> str:
    date = found.price["effective_date"]
    return f"{found.price['source']}" + _if(date, f" (as of {date})")


def _often(every: int) -> str:
    return "every step" if every == 1 else f"every {every:,} steps"


def _some(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _if(condition: object, text: str) -> str:
    return text if condition else ""
