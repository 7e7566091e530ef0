"""From names to a source of s: asks the registry, refuses what cannot work, spends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from qsgd_core.backend import Simulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.errors import CapabilityError, ConfigError
from qsgd_core.optim.config import Count, TermConfig
from qsgd_core.optim.modulation import Circuits, Classical, ClosedForm, Source
from qsgd_core.optim.runner import BackendRunner, SimulatorRunner
from qsgd_core.perturbation import ClassicalPerturbation, Perturbation
from qsgd_core.registry import Registry


@dataclass(frozen=True)
class Origin:
    """The choice that was made, as recorded in logs and checkpoints."""

    backend: str
    distribution: str
    version: str
    perturbation: str
    depth: int


def build_source(config: TermConfig, registry: Registry) -> tuple[Source, Origin]:
    """The source of s that ``config`` asks for.

    Raises:
        ConfigError: a name nobody serves, options that do not validate, shots where there are
            none, or a combination that would measure nothing at a price.
    """
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
        return _paid(config, registry, name, options, perturbation, shots), origin
    simulator = registry.make_backend(name, options)
    if not isinstance(simulator, Simulator):
        raise ConfigError(f"{name!r} is registered as a simulator and is not one.")
    if isinstance(perturbation, Perturbation):
        return _simulated(perturbation, simulator, shots, config.seed), origin
    if perturbation.match is None:
        return Classical(perturbation, None, seed=config.seed), origin
    matched = registry.make_perturbation(perturbation.match, depth=config.depth)
    if not isinstance(matched, Perturbation):
        raise ConfigError(
            f"{config.perturbation!r} is matched to {perturbation.match!r}, which is itself "
            "classical. Match it to a quantum perturbation such as 'sine'."
        )
    reference = _simulated(matched, simulator, shots, config.seed)
    return Classical(perturbation, reference, seed=config.seed), origin


def _simulated(
    perturbation: Perturbation, simulator: Simulator, shots: Count | None, seed: int
) -> Source:
    shots = _resolve_shots(simulator.name, simulator.capabilities, shots)
    if simulator.capabilities.closed_form and shots is None and _has_closed_form(perturbation):
        return ClosedForm(perturbation, simulator)
    return Circuits(perturbation, SimulatorRunner(simulator, seed=seed), shots=shots)


def _paid(
    config: TermConfig,
    registry: Registry,
    name: str,
    options: Mapping[str, Any] | None,
    perturbation: Perturbation | ClassicalPerturbation,
    shots: Count | None,
) -> Source:
    """A queued service: refuse what would waste money; open nothing yet."""
    if isinstance(perturbation, ClassicalPerturbation):
        raise ConfigError(
            f"Perturbation {config.perturbation!r} uses no circuit, so backend {name!r} would be "
            "paid for nothing. Leave the backend out, or use "
            f"perturbation={perturbation.match or 'sine'!r}."
        )
    if config.every is None:
        raise ConfigError(
            f"Backend {name!r} is a queued service: every refresh is a job that takes minutes and "
            "may cost money. Say how many steps a measurement is held for: every=50, or --every 50."
        )
    if config.budget is not None and not config.budget.strip():
        raise ConfigError("budget must be an amount such as 600s, $25 or 1e6shots, not ''.")
    runner = BackendRunner(
        name,
        options=registry.backend_options(name, options),
        ledger_url=registry.settings.ledger_url(),
        budget=config.budget,
        run_id=config.run,
        log_folder=registry.settings.home / "couriers",
        seed=config.seed,
    )
    return Circuits(perturbation, runner, shots=shots)


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
