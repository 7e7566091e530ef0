"""What a run would do, found out without doing any of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from qsgd_core.settings import load_settings
from qsgd_core.task import Task
from qsgd_core.training.config import TrainConfig, resolve, total_steps
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
        refreshes: how often s is refreshed in the whole run; None if unknown.
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
    """
    parts = assemble(task, resolve(config, task.defaults, load_settings()))
    full = parts.config
    term = parts.term.qsgd_describe()
    steps = total_steps(full, parts.built.train_loader)
    idle = full.term.quantum_weight == 0
    every = full.to_dict()["every"] or 1
    refreshes = None if steps is None else 0 if idle else math.ceil(steps / every)
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
        refreshes=refreshes,
        first_circuit=None if circuit is None else circuit.to_qasm3(),
    )
