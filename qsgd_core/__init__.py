"""Train PyTorch models with perturbations measured on quantum computers.

Importing this package imports neither torch nor a quantum SDK; the names below load what they
need when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qsgd_core.hookspecs import HOOK_API, PerturbationProvider, hookimpl
from qsgd_core.installed import tolerate_damage
from qsgd_core.specs import (
    BackendSpec,
    CommandSpec,
    ObserverSpec,
    PerturbationSpec,
    PolicySpec,
    ReportSpec,
    TaskSpec,
)

if TYPE_CHECKING:
    from qsgd_core.backend import Backend, Simulator
    from qsgd_core.capabilities import Capabilities
    from qsgd_core.circuits import Circuit, CircuitBatch, Gate, Slot, Workload, ansatz
    from qsgd_core.jobs import Bits, Expectations, JobHandle, JobState, JobStatus, Result
    from qsgd_core.optim.attach import Attachment, attach
    from qsgd_core.optim.describe import Description
    from qsgd_core.optim.qsgd import QSGD
    from qsgd_core.optim.term.effect import Stats
    from qsgd_core.perturbation import ClassicalPerturbation, Perturbation
    from qsgd_core.task import Built, Task, TaskDefaults

tolerate_damage()  # before pydantic or torch look for their plugins

_LAZY = {
    "Backend": "backend",
    "Simulator": "backend",
    "Capabilities": "capabilities",
    "Circuit": "circuits",
    "CircuitBatch": "circuits",
    "Gate": "circuits",
    "Slot": "circuits",
    "Workload": "circuits",
    "ansatz": "circuits",
    "Bits": "jobs",
    "Expectations": "jobs",
    "JobHandle": "jobs",
    "JobState": "jobs",
    "JobStatus": "jobs",
    "Result": "jobs",
    "attach": "optim.attach",
    "Stats": "optim.term.effect",
    "Attachment": "optim.attach",
    "Description": "optim.describe",
    "QSGD": "optim.qsgd",
    "ClassicalPerturbation": "perturbation",
    "Perturbation": "perturbation",
    "Built": "task",
    "Task": "task",
    "TaskDefaults": "task",
}

__all__ = [
    "HOOK_API",
    "QSGD",
    "Attachment",
    "Backend",
    "BackendSpec",
    "Bits",
    "Built",
    "Capabilities",
    "Circuit",
    "CircuitBatch",
    "ClassicalPerturbation",
    "CommandSpec",
    "Description",
    "Expectations",
    "Gate",
    "JobHandle",
    "JobState",
    "JobStatus",
    "ObserverSpec",
    "Perturbation",
    "PerturbationProvider",
    "PerturbationSpec",
    "PolicySpec",
    "ReportSpec",
    "Result",
    "Simulator",
    "Slot",
    "Stats",
    "Task",
    "TaskDefaults",
    "TaskSpec",
    "Workload",
    "ansatz",
    "attach",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
