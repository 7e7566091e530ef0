"""From names to a source of s: asks the registry, refuses what cannot work, spends nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from qsgd_core.backend import Backend, Simulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.errors import CapabilityError, ConfigError
from qsgd_core.isolate import is_core, name_of
from qsgd_core.measure.counts import Count
from qsgd_core.measure.paid import ScheduledRunner, new_run_id
from qsgd_core.measure.ranks import Ranks
from qsgd_core.measure.recording import RecordedRunner, Recording
from qsgd_core.measure.replay import Replay
from qsgd_core.measure.runner import SimulatorRunner
from qsgd_core.optim.config import SourceSettings, TermConfig, read_options, require_circuit
from qsgd_core.optim.source.answers import Answers
from qsgd_core.optim.source.life import Life, Lives, PaidLife, RecordedLife, ReplayedLife
from qsgd_core.optim.source.modulation import Circuits, Classical, ClosedForm, Source
from qsgd_core.perturbation import ClassicalPerturbation, Perturbation
from qsgd_core.plugins.registry import Registry
from qsgd_core.schedule.money import BudgetAsked
from qsgd_core.schedule.options import ScheduleOptions
from qsgd_core.schedule.paid_run import PaidRun
from qsgd_core.seeds import RunSeed


@dataclass(frozen=True)
class Origin:
    """The choice that was made, as recorded in logs and checkpoints."""

    backend: str
    distribution: str
    version: str
    perturbation: str
    depth: int


def build_source(
    config: TermConfig, registry: Registry, *, seed: RunSeed | None = None
) -> tuple[Source, Origin, Life]:
    """The source of s that ``config`` asks for; where a run is repeated, no backend is looked for.

    Args:
        config: what was asked for.
        registry: knows the names.
        seed: what it draws from; None for the one that was given.

    Returns:
        The source, the choice that was made, and what it goes through with its run.

    Raises:
        ConfigError: a name nobody serves, options that do not validate, shots where there are
            none, or a combination that would measure nothing at a price.
    """
    seed = seed or RunSeed(config.seed or 0)
    replay = None if config.replay is None else Replay(Path(config.replay))
    recording = None
    if config.record is not None and Ranks().is_lead:
        recording = Recording(Path(config.record))
    if replay is not None:
        source, origin = _repeated(config, registry, seed, recording, replay)
    else:
        check_choices(config, registry)
        source, origin = _chosen(config, registry, seed, recording)
    lives: list[Life] = [] if source.paid is None else [PaidLife(source.paid)]
    if recording is not None:
        recording.header |= _header(config, origin, seed, source)
        if replay is not None:
            recording.header["replay_of"] = replay.header.get("run_id")
        lives.append(RecordedLife(recording))
    if replay is not None:
        lives.append(ReplayedLife(replay))
    return source, origin, Lives(lives)


def check_choices(config: TermConfig, registry: Registry) -> None:
    """Raise for what only a paid backend reads and no paid backend could use.

    Not on the day the backend is paid: a misspelt budget is a misspelt budget on a simulator too.

    Raises:
        ConfigError: a policy that nobody serves, an option that the scheduler does not have, a
            budget that is neither an amount nor on the ledger.
    """
    registry.make_policy(config.source_settings(registry.settings).policy)
    read_options(config.schedule)
    asked = BudgetAsked.parse(config.budget)
    if asked.name is not None and Ranks().is_lead:  # others may have no ledger
        from qsgd_core.optim.foresee import check_budget  # brings the ledger along

        check_budget(asked.name, registry.settings)


def _chosen(
    config: TermConfig, registry: Registry, seed: RunSeed, recording: Recording | None
) -> tuple[Source, Origin]:
    chosen = config.source_settings(registry.settings)
    asked, options, shots = chosen.backend, chosen.backend_options, chosen.shots
    choice = registry.resolve_backend(asked)
    perturbation = _perturbation(config, registry)
    names = (name_of(asked), choice.distribution, choice.version)
    origin = Origin(*names, name_of(config.perturbation), config.depth)
    if choice.spec.kind == "backend":
        return _paid(config, registry, seed, origin, chosen, perturbation), origin
    simulator = registry.make_backend(asked, options)
    if not isinstance(simulator, Simulator):
        raise ConfigError(f"{asked!r} is registered as a simulator and is not one.")
    provider = f"{choice.distribution} {choice.version}".strip()
    runner = SimulatorRunner(simulator, seed=seed, provider=provider)

    def simulated(quantum: Perturbation, answers: Answers) -> Source:
        return _simulated(quantum, answers, runner, shots, config, recording)

    return _matched(config, registry, seed, perturbation, simulated), origin


def _perturbation(config: TermConfig, registry: Registry) -> Perturbation | ClassicalPerturbation:
    return registry.make_perturbation(
        config.perturbation, depth=config.depth, options=config.perturbation_options
    )


def _repeated(
    config: TermConfig,
    registry: Registry,
    seed: RunSeed,
    recording: Recording | None,
    replay: Replay,
) -> tuple[Source, Origin]:
    """What the recorded run had, whether or not anybody here serves its backend."""
    of = replay.header
    names = (of["backend"], of["distribution"], of["version"])
    origin = Origin(*names, name_of(config.perturbation), config.depth)
    if of["kind"] == "recomputed":  # from formulas of the perturbation's
        plain = dataclasses.replace(config, backend="exact", backend_options=None, shots=None)
        return _chosen(plain, registry, seed, None)[0], origin
    perturbation = _perturbation(config, registry)
    runner = replay if recording is None else RecordedRunner(replay, recording)
    every = config.every
    if of["kind"] == "backend":
        every = _period(config.every, read_options(config.schedule))

    def repeated(quantum: Perturbation, answers: Answers) -> Source:
        return Circuits(quantum, runner, answers=answers, shots=None, every=every)

    return _matched(config, registry, seed, perturbation, repeated), origin


def _header(config: TermConfig, origin: Origin, seed: RunSeed, source: Source) -> dict[str, Any]:
    """What a record says of a run; ``kind`` is what a replay needs, see :class:`.Replay`.

    Args:
        config: what was asked for.
        origin: what was chosen.
        seed: what is drawn from.
        source: what came of it.
    """
    kind = "backend"
    if source.paid is None:
        kind = "recomputed" if source.cheap else "simulator"
    return {
        "kind": kind,
        **dataclasses.asdict(origin),
        "total_steps": config.total_steps,
        "seed": seed.value,
    }


def _matched(
    config: TermConfig,
    registry: Registry,
    seed: RunSeed,
    perturbation: Perturbation | ClassicalPerturbation,
    make: Callable[[Perturbation, Answers], Source],
) -> Source:
    """The source of a quantum perturbation, or a classical one beside that of its match."""
    answers = _answers(config.perturbation, perturbation, registry)
    if isinstance(perturbation, Perturbation):
        return make(perturbation, answers)
    matched = perturbation.match
    reference = None
    if matched is not None:
        quantum = registry.make_perturbation(matched, depth=config.depth)
        if not isinstance(quantum, Perturbation):
            raise ConfigError(
                f"{name_of(config.perturbation)!r} is matched to {name_of(matched)!r}, which is "
                "itself classical. Match it to a quantum perturbation such as 'sine'."
            )
        reference = make(quantum, _answers(matched, quantum, registry))
    return Classical(perturbation, reference, answers=answers, seed=seed, every=config.every)


def _answers(
    asked: str | Perturbation | ClassicalPerturbation,
    made: Perturbation | ClassicalPerturbation,
    registry: Registry,
) -> Answers:
    who = f"Perturbation {name_of(asked)!r} of {registry.provider_of(asked)}"
    return Answers(who, trusted=is_core(made))


def _simulated(
    perturbation: Perturbation,
    answers: Answers,
    runner: SimulatorRunner,
    shots: Count | None,
    config: TermConfig,
    recording: Recording | None,
) -> Source:
    has = runner.simulator.capabilities
    shots = _resolve_shots(runner.name, has, shots)
    if has.closed_form and shots is None and _has_closed_form(perturbation):
        return ClosedForm(perturbation, runner, answers=answers, every=config.every)
    through = runner if recording is None else RecordedRunner(runner, recording)
    return Circuits(perturbation, through, answers=answers, shots=shots, every=config.every)


def _paid(
    config: TermConfig,
    registry: Registry,
    seed: RunSeed,
    origin: Origin,
    chosen: SourceSettings,
    perturbation: Perturbation | ClassicalPerturbation,
) -> Source:
    """A queued service: refuse what would waste money; open nothing yet."""
    name = origin.backend
    if isinstance(config.backend, Backend):
        raise ConfigError(
            f"A queued backend works in a process of its own, which finds it by name, and {name} "
            "is an object. Register it in a distribution (qsgd new writes one) and name it."
        )
    perturbation = require_circuit(perturbation, origin.perturbation, name)
    settings, shots = registry.settings, chosen.shots
    policy = registry.make_policy(chosen.policy)
    if policy.measures and config.every is None and config.total_steps is None:
        raise ConfigError(
            f"Backend {name!r} is a queued service: every refresh is a job that takes minutes and "
            "may cost money. Say how many steps the run will take, so that its refreshes are "
            "spread over it (total_steps=2000), or how many steps lie between two (every=50, or "
            "--every 50)."
        )
    schedule = read_options(config.schedule)
    run = PaidRun(
        run_id=config.run or new_run_id(),
        backend=name,
        backend_options=dict(registry.backend_options(name, chosen.backend_options)),
        policy=name_of(chosen.policy),
        wait=chosen.wait,
        every=None if callable(config.every) else config.every,
        shots=None if callable(shots) else shots,
        total_steps=config.total_steps,
        seed=seed.value,
        record=config.record,
        origin=dataclasses.asdict(origin),
        schedule=schedule,
    )
    runner = ScheduledRunner(
        run,
        policy=policy,
        budget=BudgetAsked.parse(config.budget),
        every=config.every,
        ledger_url=settings.ledger_url(),
        home=settings.home_folder(),
        goes_on=config.run is not None,
    )
    answers = _answers(config.perturbation, perturbation, registry)
    every = _period(config.every, schedule)
    return Circuits(perturbation, runner, answers=answers, shots=shots, every=every)


def _period(every: Count | None, schedule: ScheduleOptions) -> int:
    """Steps between two looks at the scheduler: no refresh that is due may fall in between."""
    if callable(every):
        return 1
    most = schedule.twin_every
    return most if every is None else max(k for k in range(1, most + 1) if every % k == 0)


def _has_closed_form(perturbation: Perturbation) -> bool:
    zero = torch.zeros(1, 1, dtype=torch.float64, device="cpu")
    return perturbation.closed_form(zero, zero, step=0) is not None


def _resolve_shots(name: str, has: Capabilities, shots: Count | None) -> Count | None:
    if shots is None:
        if has.default_shots is None and not has.exact:
            raise CapabilityError(
                f"Backend {name!r} needs a number of shots.", ["Give shots=1024, say."]
            )
        return has.default_shots
    if not has.sampled:
        raise CapabilityError(
            f"Backend {name!r} computes expectation values exactly and takes no shots.",
            ["Leave shots (and QSGD_SHOTS) out, or use a backend that samples, such as 'sampled'."],
        )
    return shots
