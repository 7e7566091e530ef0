"""What became of a run, as data: from its folder, its record and the ledger.

Rendering is elsewhere (:mod:`qsgd_core.cli.show.report`): a :class:`Report` holds plain
records only.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import make_url

from qsgd_core.errors import ConfigError
from qsgd_core.files import not_finite
from qsgd_core.schedule.ledger.audit import Audit, Sum, audit, overrun
from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_core.schedule.ledger.rows import Job
from qsgd_core.schedule.money import UNITS, Amount
from qsgd_core.schedule.record import history
from qsgd_core.schedule.record.history import Ages, Point, Prediction, Refreshes, Spread
from qsgd_core.schedule.record.reader import RecordReader
from qsgd_core.schedule.record.worth import Skill
from qsgd_core.training.folder.folder import RunFolder, read_record
from qsgd_core.training.folder.summary import effect_size_of, shares


@dataclass(frozen=True)
class Money:
    """What the run's jobs cost and hold, by the ledger.

    Attributes:
        jobs: each job for scripts; amounts in dollars, seconds and executions.
        by_state: how many there are in each state.
        open: how many may still cost or bring something.
        cost_usd, qpu_s, shots: settled; None means that nobody knows, as below.
        provisional_usd, provisional_qpu_s: what of that is booked at the hold, because the vendor
            has not said yet.
        held_usd, held_qpu_s, held_shots: reserved for jobs that are not over.
        usd_per_step: settled, over the steps taken.
        usd_per_refresh: settled, over the refreshes whose result came into force.
        qpu_s_per_step, qpu_s_per_refresh: the same of QPU time.
        budgets: the budgets that pay, each unit, in the ledger's integers, beside the sums over
            the jobs of this run and of others.
        balanced: whether those sums are the budgets' own figures, to the last micro-unit.
    """

    jobs: tuple[dict[str, Any], ...]
    by_state: dict[str, int]
    open: int
    cost_usd: float | None
    qpu_s: float | None
    shots: int | None
    provisional_usd: float | None
    provisional_qpu_s: float | None
    held_usd: float | None
    held_qpu_s: float | None
    held_shots: int | None
    usd_per_step: float | None
    usd_per_refresh: float | None
    qpu_s_per_step: float | None
    qpu_s_per_refresh: float | None
    budgets: tuple[dict[str, Any], ...]
    balanced: bool


@dataclass(frozen=True)
class Hardware:
    """What a run on a backend asked for and got, by its record.

    Attributes:
        refreshes: by what came of them.
        ages: staleness of what the steps used.
        prediction: the noise model's errors, predicted and realised.
        queue_s: from submission to result.
        burn_down: each capped unit of the budget over the steps.
        skill: V, E² and E²_twin.
        e_rms, twin_rms: roots of those; 0 where shot noise exceeds the error.
        verdict: ``worth it``, ``not worth it`` or ``cannot tell``.
    """

    refreshes: Refreshes
    ages: Ages
    prediction: Prediction
    queue_s: Spread
    burn_down: dict[str, tuple[Point, ...]]
    skill: Skill
    e_rms: float | None
    twin_rms: float | None
    verdict: str


@dataclass(frozen=True)
class Report:
    """A run.

    Attributes:
        run: its id on the ledger.
        run_dir: its folder.
        task, backend, device, perturbation, policy, wait, every, seed: what was asked for; the
            device is what the backend's name came to mean.
        status: finished or interrupted; ``unfinished`` for one that is going on or was killed.
        steps: taken so far.
        total_steps: of the whole run; None if unknown.
        wall_s: seconds spent training; None before a session has ended.
        ended_at: when the last session did, in seconds since the epoch, UTC; None before.
        metrics: of the last epoch.
        effect_size: mean and max, each None if unknown, NaN if not finite; None before a
            session has ended.
        sources: share of the steps by where s came from.
        replay_of: id of the run that it repeats from its record; None for most.
        hardware: None for a run on a simulator.
        money: None for a run on a simulator.
        events: step, wall, kind and message of everything the user was told.
        event_counts: how many of each kind.
        notes: what is missing from this report, and why.
    """

    run: str
    run_dir: str
    task: str
    backend: str
    device: str
    perturbation: str
    policy: str | None
    wait: str | None
    every: int | None
    seed: int
    status: str
    steps: int
    total_steps: int | None
    wall_s: float | None
    ended_at: float | None
    metrics: dict[str, Any]
    effect_size: dict[str, float | None] | None
    sources: dict[str, float]
    replay_of: str | None
    hardware: Hardware | None
    money: Money | None
    events: tuple[dict[str, Any], ...]
    event_counts: dict[str, int]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        found = asdict(self)
        lost = not_finite(found)
        return found | ({"not_finite": lost} if lost else {})


def report(folder: RunFolder, open_ledger: Callable[[], Ledger]) -> Report:
    """Gather what there is to say of a run, also while it is going on.

    Args:
        folder: the run's.
        open_ledger: called for a run on a backend.

    Raises:
        ConfigError: the folder holds no run with a record, or one that cannot be read.
        TransientError: the ledger is locked.
    """
    config = read_record(folder)
    asked, notes = config.config, []
    reader = RecordReader(folder.record)
    try:
        header = reader.header
        summary = _read(folder.summary)
        metrics = _last_line(folder)
        paid = header.get("kind") == "backend"
        steps = max(reader.n_steps, int(metrics.get("step", 0)))
        if not summary:
            notes.append("No session of this run has ended yet: it is going on, or was killed.")
        counts: Counter[str] = Counter()
        for stretch in reader.sources():
            counts[stretch.source] += stretch.last - stretch.first + 1
        events = tuple(asdict(event) for event in reader.events())
        hardware = money = None
        if paid:
            hardware = _hardware(reader, steps)
            ledger = open_ledger()
            money = _money(audit(ledger, asked.term.run or ""), steps, hardware.refreshes.applied)
            notes += _notes_on(hardware, money, ledger)
        said = asked.to_dict()
        return Report(
            run=str(header.get("run_id") or asked.term.run or folder.path.name),
            run_dir=str(folder.path),
            task=config.task,
            backend=said["backend"] or "exact",
            device=_device(money) or said["backend"] or "exact",
            perturbation=said["perturbation"],
            policy=header.get("policy") if paid else None,
            wait=header.get("wait") if paid else None,
            every=said["every"],
            seed=asked.seed,
            status=str(summary.get("status", "unfinished")),
            steps=steps,
            total_steps=header.get("total_steps"),
            wall_s=summary.get("wall_s"),
            ended_at=summary.get("ended_at"),
            metrics=metrics,
            effect_size=effect_size_of(summary),
            sources=shares(counts),
            replay_of=header.get("replay_of"),
            hardware=hardware,
            money=money,
            events=events,
            event_counts=dict(Counter(event["kind"] for event in events)),
            notes=tuple(notes),
        )
    finally:
        reader.close()


def _hardware(reader: RecordReader, steps: int) -> Hardware:
    asked, outcomes, applied = reader.refreshes(), reader.results(), reader.applied()
    skill = history.worth(outcomes, applied)
    return Hardware(
        refreshes=history.count(asked, outcomes, applied),
        ages=history.ages(steps, applied, asked, outcomes),
        prediction=history.prediction(outcomes),
        queue_s=Spread.of([o.queue_s for o in outcomes if o.queue_s is not None]),
        burn_down=history.burn_down(reader.accounts()),
        skill=skill,
        e_rms=_root(skill.e_sq),
        twin_rms=_root(skill.twin_sq),
        verdict=skill.verdict,
    )


def _money(found: Audit, steps: int, applied: int) -> Money:
    paid = Amount(**{u: _known(found.totals[u], "paid") for u in UNITS}).to_cost()
    held = Amount(**{u: _known(found.totals[u], "held") for u in UNITS}).to_cost()
    provisional = Amount(**{u: found.totals[u].provisional for u in UNITS}).to_cost()
    return Money(
        jobs=tuple(_job(job) for job in found.jobs),
        by_state=dict(Counter(job.state for job in found.jobs)),
        open=sum(job.state.is_open for job in found.jobs),
        cost_usd=paid.usd,
        qpu_s=paid.qpu_s,
        shots=paid.shots,
        provisional_usd=provisional.usd,
        provisional_qpu_s=provisional.qpu_s,
        held_usd=held.usd,
        held_qpu_s=held.qpu_s,
        held_shots=held.shots,
        usd_per_step=_per(paid.usd, steps),
        usd_per_refresh=_per(paid.usd, applied),
        qpu_s_per_step=_per(paid.qpu_s, steps),
        qpu_s_per_refresh=_per(paid.qpu_s, applied),
        budgets=tuple(asdict(s) | {"balanced": s.balanced} for s in found.shares),
        balanced=found.balanced,
    )


def _job(job: Job) -> dict[str, Any]:
    """One job for scripts; what it cost and what is held for it, apart."""
    over = job.settled_at is not None
    cost = (job.spent if over else Amount(0, 0, 0)).to_cost()
    held = (Amount(0, 0, 0) if over else job.hold).to_cost()
    above = Amount(**{unit: overrun(job, unit) for unit in UNITS}).to_cost()
    return {
        "tag": job.tag,
        "step": job.step,
        "part": job.part,
        "attempt": job.attempt,
        "state": job.state,
        "backend": job.backend,
        "job_id": None if job.handle is None else job.handle.job_id,
        "budget": job.budget,
        "cost": asdict(cost),
        "held": asdict(held),
        "overrun": asdict(above),
        "submitted_at": job.submitted_at,
        "settled_at": job.settled_at,
        "applied_at_step": job.consumed_step,
        "error": None if job.error is None else str(job.error),
    }


def _notes_on(hardware: Hardware, money: Money, ledger: Ledger) -> list[str]:
    notes = []
    if hardware.refreshes.asked and not money.jobs:
        notes.append(
            f"The ledger {_without_password(ledger.url)} has no job of this run; it was another "
            "one. Set QSGD_LEDGER (or QSGD_HOME) as it was when the run was trained, to see its "
            "jobs and their cost."
        )
    if money.open:
        notes.append(
            f"{money.open} of {len(money.jobs)} jobs are not over: what they bring and cost is "
            "collected by the run itself, or by qsgd jobs resume."
        )
    if not money.balanced:
        notes.append(
            "A budget's figures are not the sum of its jobs: the ledger was changed by hand, or by "
            "something that is not QSGD."
        )
    return notes


def _without_password(url: str) -> str:
    return make_url(url).render_as_string(hide_password=True)


def _device(money: Money | None) -> str | None:
    return str(money.jobs[-1]["backend"]) if money is not None and money.jobs else None


def _known(total: Sum, name: str) -> int | None:
    """A sum; None if a part of it is unknown."""
    return None if total.unknown else int(getattr(total, name))


def _per(amount: float | None, count: int) -> float | None:
    return None if amount is None or not count else amount / count


def _root(square: float | None) -> float | None:
    return None if square is None else max(square, 0.0) ** 0.5


def _read(path: Any) -> Mapping[str, Any]:
    """A JSON file of the run folder; empty if it is not there yet."""
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Restore it from a copy."
        ) from error
    return found


def _last_line(folder: RunFolder) -> dict[str, Any]:
    """The last line of metrics.jsonl; empty before the first epoch has ended."""
    try:
        lines = folder.metrics.read_text(encoding="utf-8").splitlines()
        return dict(json.loads(lines[-1])) if lines else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder.metrics} cannot be read ({type(error).__name__}: {error}). Restore it from "
            "a copy."
        ) from error
