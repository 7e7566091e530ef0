"""The lab's provider. Light; torch is imported when a task is made."""

from __future__ import annotations

from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import TaskSpec


@hookimpl
def qsgd_register_tasks() -> list[TaskSpec]:
    """``sequences``."""
    return [
        TaskSpec(
            name="sequences",
            factory="qsgd_lab.sequences:Sequences",
            summary="The paper's text task: a small transformer tells two synthetic texts apart.",
        )
    ]
