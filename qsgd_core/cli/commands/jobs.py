"""``qsgd jobs list|wait|resume|cancel|fetch|audit``: what is at the vendors, what came of it."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsgd_core.cli.commands.budget import open_ledger
from qsgd_core.cli.options import Debug, Json
from qsgd_core.cli.show.output import print_json, print_table
from qsgd_core.errors import ConfigError, JobNotDoneError, QSGDError
from qsgd_core.settings import load_settings

if TYPE_CHECKING:
    from qsgd_core.schedule.audit.findings import Finding
    from qsgd_core.schedule.audit.statement import Statement
    from qsgd_core.schedule.ledger.ledger import Ledger
    from qsgd_core.schedule.ledger.rows import Job
    from qsgd_core.schedule.trainer.process import CourierProcess

jobs = typer.Typer(no_args_is_help=True)

Run = Annotated[str | None, typer.Argument(metavar="RUN", help="One run. Default: all.")]

POLL_S = 0.5
DAY_S = 86400.0
"""A service's clock may differ from ours; its times may be without a zone."""


@jobs.command("list")
def list_(
    run: Run = None,
    open_only: Annotated[
        bool, typer.Option("--open", help="Only jobs that are not over yet.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List jobs, oldest first."""
    from qsgd_core.schedule.ledger.states import OPEN

    _print(open_ledger().jobs(run=run, states=OPEN if open_only else None), as_json=as_json)


@jobs.command()
def wait(
    run: Run = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Default: as long as it takes.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Wait until no job is open; what was asked for and not yet sent is submitted, and paid for.

    Exits with 1 when the time is over before the jobs are.
    """
    ledger = open_ledger()
    waited_for = {job.tag for job in _open(ledger, run)}
    _serve(ledger, run, deadline=None if timeout is None else time.monotonic() + timeout)
    found = [job for job in ledger.jobs(run=run) if job.tag in waited_for]
    _print(found, as_json=as_json)
    left = [job for job in found if job.state.is_open]
    if left:
        raise JobNotDoneError(
            f"{len(left)} of {len(found)} jobs are still open after {timeout:g} s. Wait longer: "
            "qsgd jobs wait"
        )


@jobs.command()
def resume(run: Run = None, as_json: Json = False, debug: Debug = False) -> None:
    """Recover what dead runs left: adopt jobs in doubt, collect what is done, refund what is not.

    Looks once at every open job, and asks what those cost whose cost was not stated at their end.
    Submits nothing and waits for nothing. A run that is being trained is left to its own courier.
    Training itself goes on with qsgd train --resume.
    """
    ledger = open_ledger()
    found = _open(ledger, run) + ledger.unstated(run=run)
    late = ledger.never_found(run=run)
    error = _look_once(ledger, (job.run for job in found + late))
    _print([ledger.job(job.tag) for job in found], as_json=as_json)
    if error is not None:
        raise error


@jobs.command()
def adopt(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    backend: Annotated[str, typer.Option(metavar="NAME", help="The backend it was measured on.")],
    debug: Debug = False,
) -> None:
    """Let a run that another ledger has paid for go on with the budgets of this one.

    What it bought before stays on the other ledger: neither its jobs nor what they cost come along,
    and whatever is still in flight there is collected only there.
    """
    open_ledger().open_run(run, backend=backend, options={})
    typer.echo(f"Run {run} may go on with this ledger. Its budget here is a fresh one.")


@jobs.command()
def cancel(
    what: Annotated[str, typer.Argument(metavar="TAG|RUN", help="One job, or all of a run.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Cancel a job or a run's open jobs; what had begun to run may cost something all the same."""
    ledger = open_ledger()
    found = [job for job in ledger.jobs() if what in (job.tag, job.run)]
    if not found:
        raise ConfigError(f"The ledger has no job or run {what!r}. See qsgd jobs list.")
    asked = [ledger.cancel(job.tag) for job in found if job.state.is_open or job.state.is_unsent]
    error = _look_once(ledger, (job.run for job in asked if job.state.is_open))
    _print([ledger.job(job.tag) for job in asked], as_json=as_json)
    if error is not None:
        raise error


@jobs.command()
def fetch(
    tag: Annotated[str, typer.Argument(help="The job's tag.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write the result. Default: TAG.npz."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a job's result to a file and print each observable's mean over the rows.

    The file holds, for batch k, angles_k (B, slots), z_k (B, observables) and, where bits were
    measured, bits_k (B, shots, qubits).
    """
    import numpy as np

    from qsgd_core.jobs import Bits

    ledger = open_ledger()
    job = ledger.job(tag)
    error = None
    if job.state.is_open:
        error = _look_once(ledger, [job.run])
        job = ledger.job(tag)
    if not job.state.has_result:
        if (why := error or job.error) is not None:
            raise why
        raise JobNotDoneError(
            f"Job {tag} has no result yet; it is {job.state}. Wait for it: qsgd jobs wait {job.run}"
        )
    work, result = ledger.workload(tag), ledger.result(tag)
    values = result.expectations(work)
    arrays: dict[str, Any] = {}
    for k, (batch, part) in enumerate(zip(work.batches, result.parts, strict=True)):
        arrays |= {f"angles_{k}": batch.angles, f"z_{k}": values[k]}
        if isinstance(part, Bits):
            arrays[f"bits_{k}"] = part.values
    path = out or Path(f"{tag}.npz")
    try:
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}. Give another file with --out."
        ) from error
    batches = [
        {"rows": batch.n_rows, "observables": [list(o) for o in batch.observables],
         "mean_z": z.mean(axis=0).tolist()}
        for batch, z in zip(work.batches, values, strict=True)
    ]  # fmt: skip
    if as_json:
        print_json({"tag": tag, "path": str(path), "batches": batches})
        return
    rows = [
        (str(k), str(b["rows"]), " ".join(f"Z{q}" for q in o) or "1", f"{z:+.4f}")
        for k, b in enumerate(batches)
        for o, z in zip(b["observables"], b["mean_z"], strict=True)
    ]
    print_table(("batch", "rows", "observable", "mean"), rows)
    typer.echo(f"Written to {path}.")


@jobs.command()
def audit(
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="One backend. Default: all on the ledger.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
            metavar="DATE",
            help="Leave out what was submitted before. Default: the ledger's first job.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Book what is found without asking.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Ask the services what they have of ours, and bring the ledger to it.

    Names jobs that nobody waited for, duplicates, and costs that were stated late or otherwise than
    booked. Books them after a yes, and cancels what is still to run. Exits with 1 if something is
    left to be booked.
    """
    from qsgd_core.cli.consent import NO, at_terminal
    from qsgd_core.schedule.audit.findings import book, compare

    ledger = open_ledger()
    statements = _statements(ledger, backend, None if since is None else since.timestamp())
    findings = [finding for said in statements for finding in compare(ledger, said)]
    findings = list({finding.handle.job_id: finding for finding in findings}.values())
    to_book = [finding for finding in findings if finding.kind.is_booked]
    if not as_json:
        _print_findings(statements, findings)
    ask = None if as_json else at_terminal()
    agreed = bool(to_book) and (yes or (ask is not None and ask("Book this on the ledger?")))
    error = _look_once(ledger, book(ledger, to_book)) if agreed else None
    if as_json:
        print_json(
            {
                "jobs": len({job.handle.job_id for said in statements for job in said.jobs}),
                "complete": all(said.complete for said in statements),
                "findings": [_found(finding) for finding in findings],
                "booked": agreed,
            }
        )
    elif agreed:
        typer.echo(f"Booked: {len(to_book)}.")
    elif to_book:
        typer.echo("Nothing was booked. To book it: qsgd jobs audit --yes")
    if error is not None:
        raise error
    if to_book and not agreed:
        raise typer.Exit(NO)


def _statements(ledger: Ledger, backend: str | None, since: float | None) -> list[Statement]:
    """What every service that the ledger's jobs were sent to says of them, and of others."""
    from qsgd_core.schedule.audit.asking import ask_service

    groups: dict[tuple[str, str], list[Job]] = {}
    asked_for = functools.cache(lambda run: ledger.run(run).backend)
    for job in ledger.jobs():
        was_sent = job.submitted_at is not None or job.doubt_since is not None
        if was_sent and (backend is None or backend in (job.backend, asked_for(job.run))):
            groups.setdefault((job.backend, job.options), []).append(job)
    if not groups and backend is not None:
        groups[backend, "{}"] = []
    statements = []
    for (name, options), sent in groups.items():
        begun = min((job.created_at for job in sent), default=time.time()) - DAY_S
        asked = [job for job in sent if since is None or job.created_at >= since]
        statements.append(
            ask_service(
                name,
                json.loads(options),
                since=begun if since is None else since,
                tags=[job.tag for job in asked],
                known=[job.handle for job in asked if job.handle and job.state.has_cost],
                log=_log(f"audit of {name.replace('/', '-')}"),
            )
        )
    return statements


def _print_findings(statements: list[Statement], findings: list[Finding]) -> None:
    for said in statements:
        looked = "all that is ours" if said.complete else "the ledger's tags; it cannot list others"
        typer.echo(f"{said.backend}: {len(said.jobs)} jobs. Looked at: {looked}.")
    for finding in findings:
        typer.echo(f"{finding.kind}: {finding}")
    if statements and not findings:
        typer.echo("The ledger says what the services say.")
    if not statements:
        typer.echo("No job of this ledger has been sent anywhere.")


def _found(finding: Finding) -> dict[str, Any]:
    return {
        "kind": str(finding.kind),
        "backend": finding.backend,
        "run": finding.run,
        "tag": finding.handle.tag,
        "job_id": finding.handle.job_id,
        "booked": None if finding.booked is None else asdict(finding.booked),
        "billed": asdict(finding.billed),
        "to_book": finding.kind.is_booked,
        "problem": finding.problem,
    }


def _open(ledger: Ledger, run: str | None) -> list[Job]:
    """The open jobs of one run or of all.

    Raises:
        ConfigError: there is no such run.
    """
    from qsgd_core.schedule.ledger.states import OPEN

    if run is not None:
        ledger.run(run)
    return ledger.jobs(run=run, states=OPEN)


def _serve(ledger: Ledger, run: str | None, *, deadline: float | None) -> None:
    """Run a courier for each run with open jobs until there are none, or time is over.

    Raises:
        QSGDError: what the first courier stopped with that could not go on, after the others.
    """
    from qsgd_core.schedule.trainer.process import CourierProcess

    couriers: dict[str, CourierProcess] = {}
    stopped: dict[str, QSGDError] = {}
    said = ""
    with _interruptible(ledger, run, couriers):
        while pending := [job for job in _open(ledger, run) if job.run not in stopped]:
            if (places := _places(pending)) != said:
                said = places
                typer.echo(said, err=True)
            runs = sorted({job.run for job in pending})
            for name in runs:
                if name not in couriers:
                    _forget_error(ledger, name)
                    couriers[name] = CourierProcess(
                        ledger.url, name, ledger_id=ledger.id, log=_log(name)
                    )
                if (error := ledger.run(name).error) is not None:
                    stopped[name] = error
                    continue
                couriers[name].nudge()
                left = POLL_S if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return
                couriers[name].wait(min(left, POLL_S) / len(runs))
    for error in stopped.values():
        raise error


def _places(waited_for: list[Job]) -> str:
    """What is waited for, with the places in the vendor's queue that are known."""
    places = [j.queue_position for j in waited_for if j.queue_position is not None]
    where = f", the next at place {min(places)} of its queue" if places else ""
    return f"Waiting for {len(waited_for)} jobs{where}."


@contextmanager
def _interruptible(
    ledger: Ledger, run: str | None, couriers: dict[str, CourierProcess]
) -> Iterator[None]:
    """End the couriers however the wait for jobs ends; Ctrl-C is answered before that."""
    from qsgd_core.schedule.trainer.process import STOP_S

    try:
        yield
    except KeyboardInterrupt:
        names = ", ".join(f"{job.tag} ({job.state})" for job in _open(ledger, run)[:3])
        typer.echo(
            f"Interrupted while waiting for {names or 'jobs'}; they stay with the service. To "
            f"wait again: qsgd jobs wait{f' {run}' if run else ''}. A second Ctrl-C ends at once.",
            err=True,
        )
        raise
    finally:
        end = time.monotonic() + STOP_S
        for courier in couriers.values():
            courier.hang_up()
        for courier in couriers.values():
            courier.stop(within_s=max(end - time.monotonic(), 0.1))


def _look_once(ledger: Ledger, runs: Iterable[str]) -> QSGDError | None:
    """One look at each run's jobs; the first error that a courier stopped with."""
    from qsgd_core.schedule.trainer.process import look_once

    first = None
    for name in sorted(set(runs)):
        _forget_error(ledger, name)
        try:
            look_once(ledger.url, name, ledger_id=ledger.id, log=_log(name))
        except KeyboardInterrupt:
            typer.echo(
                f"Interrupted while the service was asked for the jobs of {name}; nothing is lost. "
                "To ask again: qsgd jobs resume",
                err=True,
            )
            raise
        first = first or ledger.run(name).error
    return first


def _forget_error(ledger: Ledger, name: str) -> None:
    row = ledger.run(name)
    ledger.open_run(name, backend=row.backend, options=json.loads(row.options))


def _log(run: str) -> Path:
    from qsgd_core.schedule.trainer.process import log_of

    return log_of(run, load_settings().home_folder())


def _print(found: list[Job], *, as_json: bool) -> None:
    records = [_record(job) for job in found]
    if as_json:
        print_json(records)
        return
    if not records:
        typer.echo("No jobs.")
        return
    columns = ("tag", "run", "step", "backend", "state", "shots", "cost_usd", "submitted_at")
    print_table(columns, [[_cell(record, column) for column in columns] for record in records])
    if any("micro_usd" in record["unstated"] for record in records):
        typer.echo("? the vendor has not said yet; booked at the hold until it does.", err=True)
    for record in records:
        if record["error"]:
            typer.echo(f"{record['tag']}: {record['error']}", err=True)


def _record(job: Job) -> dict[str, Any]:
    """One job for scripts; an open job's shots and cost are its hold."""
    from qsgd_core.schedule.ledger.states import LedgerState

    cost = (job.hold if job.settled_at is None else job.spent).to_cost()
    return {
        "tag": job.tag,
        "run": job.run,
        "step": job.step,
        "part": job.part,
        "attempt": job.attempt,
        "backend": job.backend,
        "job_id": None if job.handle is None else job.handle.job_id,
        "state": job.state,
        "queue_position": job.queue_position if job.state is LedgerState.SUBMITTED else None,
        "budget": job.budget,
        "shots": cost.shots,
        "cost_usd": cost.usd,
        "qpu_s": cost.qpu_s,
        "unstated": list(job.unstated),
        "created_at": job.created_at,
        "submitted_at": job.submitted_at,
        "error": None if job.error is None else str(job.error),
    }


def _cell(record: dict[str, Any], column: str) -> str:
    value = record[column]
    if value is None:
        return "-"
    if column == "submitted_at":
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if column == "state" and record["queue_position"] is not None:
        return f"{value}, {record['queue_position']} in the queue"
    if column == "cost_usd":
        return f"{value:.6g}" + ("?" if "micro_usd" in record["unstated"] else "")
    return str(value)
