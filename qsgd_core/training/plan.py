"""What a run would do, found out without doing any of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qsgd_core.errors import BackendError
from qsgd_core.settings import load_settings
from qsgd_core.task import Task
from qsgd_core.training.config import TrainConfig, resolve, total_steps
from qsgd_core.training.loop.session import Parts
from qsgd_core.training.setup import assemble


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        task: the task's name.
        provider: distribution and version that serve the backend.
        config: the full configuration.
        steps: optimizer steps of the whole run; None if the loader does not tell its length.
        tensors: parameters the term touches.
        coordinates: coordinates it touches in them.
        blocks: circuits of one refresh.
        block_sizes: number of blocks by number of qubits.
        shots_per_circuit: as asked, or a simulator's own default; None where no circuit is sampled,
            or where they are a queued backend's own default.
        refreshes: how often s is measured in the whole run, within its budget and by its policy,
            as ``qsgd estimate`` says; None if unknown.
        first_circuit: OpenQASM 3 of the largest block's circuit; None for a classical rule.
    """

    task: str
    provider: str
    config: TrainConfig
    steps: int | None
    tensors: int
    coordinates: int
    blocks: int
    block_sizes: dict[int, int]
    shots_per_circuit: int | None
    refreshes: int | None
    first_circuit: str | None

    def to_dict(self) -> dict[str, Any]:
        """One flat JSON object."""
        own = {name: value for name, value in vars(self).items() if name != "config"}
        return own | self.config.to_dict()


def plan(task: Task, config: TrainConfig) -> Plan:
    """Build task and optimizer, and describe the run. Sends nothing and writes nothing.

    Raises:
        ConfigError: whatever would stop the run at its start.
        BudgetError: the budget does not pay for one job.
    """
    parts = assemble(task, resolve(config, task.defaults, load_settings()))
    full = parts.config
    term = parts.term.qsgd_describe()
    steps = total_steps(full, parts.built.train_loader)
    circuit = term.first_circuit
    return Plan(
        task=task.name,
        provider=term.distribution,
        config=full,
        steps=steps,
        tensors=term.n_tensors,
        coordinates=term.n_coordinates,
        blocks=term.n_blocks,
        block_sizes=term.block_sizes,
        shots_per_circuit=term.shots,
        refreshes=_refreshes(parts, steps),
        first_circuit=None if circuit is None else circuit.to_qasm3(),
    )


def _refreshes(parts: Parts, steps: int | None) -> int | None:
    if steps is None or parts.config.term.quantum_weight == 0:
        return None if steps is None else 0
    try:
        return parts.term.qsgd_estimate(steps).refreshes
    except BackendError:  # a service that cannot be asked now: the rest of the plan holds
        return None
