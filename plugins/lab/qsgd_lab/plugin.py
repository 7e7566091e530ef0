"""The lab's provider. Light; torch is imported when a task is made."""

from __future__ import annotations

from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import CommandSpec, TaskSpec


@hookimpl
def qsgd_register_tasks() -> list[TaskSpec]:
    """``sequences`` and ``sequences-quantum``."""
    return [
        TaskSpec(
            name="sequences",
            factory="qsgd_lab.sequences:Sequences",
            summary="The paper's text task: a small transformer tells two synthetic texts apart.",
        ),
        TaskSpec(
            name="sequences-quantum",
            factory="qsgd_lab.sequences:QuantumSequences",
            summary="The same text task, with the paper's quantum attention in the transformer.",
        ),
    ]


@hookimpl
def qsgd_register_commands() -> list[CommandSpec]:
    """``qsgd compare``."""
    return [
        CommandSpec(
            name="compare",
            factory="qsgd_lab.compare.cli:compare",
            summary="Train arms on the same seeds; say with intervals what can be concluded.",
        )
    ]
