"""From names to a source of s: asks the registry, refuses what cannot work, spends nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from qsgd_core.backend import Simulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.errors import CapabilityError, ConfigError
from qsgd_core.measure.counts import Count
from qsgd_core.measure.options import ScheduleOptions, read_options
from qsgd_core.measure.paid import PaidRun, ScheduledRunner
from qsgd_core.measure.recording import RecordedRunner, Recording
from qsgd_core.measure.replay import Replay
from qsgd_core.measure.runner import Runner, SimulatorRunner
from qsgd_core.optim.config import TermConfig
from qsgd_core.optim.source.modulation import Circuits, Classical, ClosedForm, Source
from qsgd_core.perturbation import ClassicalPerturbation, Perturbation
from qsgd_core.plugins.registry import Registry


@dataclass(frozen=True)
class Origin:
    """The choice that was made, as recorded in logs and checkpoints."""

    backend: str
    distribution: str
    version: str
    perturbation: str
    depth: int


def build_source(
    config: TermConfig,
    registry: Registry,
    *,
    recording: Recording | None = None,
    replay: Replay | None = None,
) -> tuple[Source, Origin]:
    """The source of s that ``config`` asks for.

    Args:
        config: what was asked for.
        registry: knows the names.
        recording: gets what a simulator gives, and what there is to say of the run.
        replay: what is repeated; then no backend is looked for.

    Raises:
        ConfigError: a name nobody serves, options that do not validate, shots where there are
            none, or a combination that would measure nothing at a price.
    """
    if replay is not None:
        source, origin = _repeated(config, registry, recording, replay)
    else:
        source, origin = _chosen(config, registry, recording)
    if recording is not None:
        recording.header |= _header(config, origin, source)
        if replay is not None:
            recording.header["replay_of"] = replay.header.get("run")
    return source, origin


def _chosen(
    config: TermConfig, registry: Registry, recording: Recording | None
) -> tuple[Source, Origin]:
    settings = registry.settings
    name = config.backend or settings.backend
    choice = registry.resolve_backend(name)
    perturbation = registry.make_perturbation(
        config.perturbation, depth=config.depth, options=config.perturbation_options
    )
    from_environment = config.backend is None and config.backend_options is None
    options = settings.backend_options if from_environment else config.backend_options
    origin = Origin(name, choice.distribution, choice.version, config.perturbation, config.depth)
    shots = config.shots if config.shots is not None else settings.shots
    if choice.spec.kind == "backend":
        return _paid(config, registry, origin, options, perturbation, shots), origin
    simulator = registry.make_backend(name, options)
    if not isinstance(simulator, Simulator):
        raise ConfigError(f"{name!r} is registered as a simulator and is not one.")

    def simulated(quantum: Perturbation) -> Source:
        return _simulated(quantum, simulator, shots, config, recording)

    return _matched(config, registry, perturbation, simulated), origin


def _repeated(
    config: TermConfig, registry: Registry, recording: Recording | None, replay: Replay
) -> tuple[Source, Origin]:
    """What the recorded run had, whether or not anybody here serves its backend."""
    of = replay.header
    names = (of["backend"], of["distribution"], of["version"])
    origin = Origin(*names, config.perturbation, config.depth)
    if of["kind"] == "recomputed":  # from formulas of the perturbation's
        plain = dataclasses.replace(config, backend="exact", backend_options=None, shots=None)
        return _chosen(plain, registry, None)[0], origin
    perturbation = registry.make_perturbation(
        config.perturbation, depth=config.depth, options=config.perturbation_options
    )
    runner = replay if recording is None else RecordedRunner(replay, recording)
    every = config.every
    if of["kind"] == "backend":
        every = _period(config.every, read_options(config.schedule))

    def repeated(quantum: Perturbation) -> Source:
        return Circuits(quantum, runner, shots=None, every=every)

    return _matched(config, registry, perturbation, repeated), origin


def _header(config: TermConfig, origin: Origin, source: Source | None = None) -> dict[str, Any]:
    """What a record says of a run; ``kind`` is what a replay needs, see :class:`.Replay`.

    Args:
        config: what was asked for.
        origin: what was chosen.
        source: what came of it; None: a paid run.
    """
    kind = "backend"
    if source is not None and source.paid is None:
        kind = "recomputed" if source.cheap else "simulator"
    return {
        "kind": kind,
        **dataclasses.asdict(origin),
        "total_steps": config.total_steps,
        "seed": config.seed,
    }


def _matched(
    config: TermConfig,
    registry: Registry,
    perturbation: Perturbation | ClassicalPerturbation,
    make: Callable[[Perturbation], Source],
) -> Source:
    """The source of a quantum perturbation, or a classical one beside that of its match."""
    if isinstance(perturbation, Perturbation):
        return make(perturbation)
    if perturbation.match is None:
        return Classical(perturbation, None, seed=config.seed, every=config.every)
    matched = registry.make_perturbation(perturbation.match, depth=config.depth)
    if not isinstance(matched, Perturbation):
        raise ConfigError(
            f"{config.perturbation!r} is matched to {perturbation.match!r}, which is itself "
            "classical. Match it to a quantum perturbation such as 'sine'."
        )
    return Classical(perturbation, make(matched), seed=config.seed, every=config.every)


def _simulated(
    perturbation: Perturbation,
    simulator: Simulator,
    shots: Count | None,
    config: TermConfig,
    recording: Recording | None,
) -> Source:
    shots = _resolve_shots(simulator.name, simulator.capabilities, shots)
    if simulator.capabilities.closed_form and shots is None and _has_closed_form(perturbation):
        return ClosedForm(perturbation, simulator, every=config.every)
    runner: Runner = SimulatorRunner(simulator, seed=config.seed)
    if recording is not None:
        runner = RecordedRunner(runner, recording)
    return Circuits(perturbation, runner, shots=shots, every=config.every)


def _paid(
    config: TermConfig,
    registry: Registry,
    origin: Origin,
    options: Mapping[str, Any] | None,
    perturbation: Perturbation | ClassicalPerturbation,
    shots: Count | None,
) -> Source:
    """A queued service: refuse what would waste money; open nothing yet."""
    name = origin.backend
    if isinstance(perturbation, ClassicalPerturbation):
        raise ConfigError(
            f"Perturbation {config.perturbation!r} uses no circuit, so backend {name!r} would be "
            "paid for nothing. Leave the backend out, or use "
            f"perturbation={perturbation.match or 'sine'!r}."
        )
    settings = registry.settings
    policy = registry.make_policy(config.policy or settings.policy)
    if policy.measures and config.every is None and config.total_steps is None:
        raise ConfigError(
            f"Backend {name!r} is a queued service: every refresh is a job that takes minutes and "
            "may cost money. Say how many steps the run will take, so that its refreshes are "
            "spread over it (total_steps=2000), or how many steps lie between two (every=50, or "
            "--every 50)."
        )
    if config.budget is not None and not config.budget.strip():
        raise ConfigError("budget must be an amount such as 600s, $25 or 1e6shots, not ''.")
    schedule = read_options(config.schedule)
    runner = ScheduledRunner(
        PaidRun(
            backend=name,
            backend_options=registry.backend_options(name, options),
            ledger_url=settings.ledger_url(),
            home=settings.home,
            policy=policy,
            wait=config.wait or settings.wait,
            budget=config.budget,
            every=config.every,
            total_steps=config.total_steps,
            run=config.run,
            record=config.record,
            seed=config.seed,
            options=schedule,
            header={
                **_header(config, origin),
                "policy": config.policy or settings.policy,
                "wait": config.wait or settings.wait,
                "shots": None if callable(shots) else shots,
                "every": None if callable(config.every) else config.every,
                **schedule.model_dump(),
            },
        )
    )
    return Circuits(perturbation, runner, shots=shots, every=_period(config.every, schedule))


def _period(every: Count | None, schedule: ScheduleOptions) -> int:
    """Steps between two looks at the scheduler: no refresh that is due may fall in between."""
    if callable(every):
        return 1
    most = schedule.twin_every
    return most if every is None else max(k for k in range(1, most + 1) if every % k == 0)


def _has_closed_form(perturbation: Perturbation) -> bool:
    zero = torch.zeros(1, 1, dtype=torch.float64)
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
