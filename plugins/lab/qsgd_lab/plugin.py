"""The lab's provider. Light; torch is imported when a task is made."""

from __future__ import annotations

from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import CommandSpec, ObserverSpec, ReportSpec, TaskSpec


@hookimpl
def qsgd_register_tasks() -> list[TaskSpec]:
    """``sequences``, ``sequences-quantum`` and ``gsm8k``."""
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
        TaskSpec(
            name="gsm8k",
            factory="qsgd_lab.gsm8k.task:Gsm8k",
            summary="The paper's fine-tuning: a Hugging Face language model learns school maths.",
        ),
    ]


@hookimpl
def qsgd_register_observers() -> list[ObserverSpec]:
    """``mlflow``."""
    return [
        ObserverSpec(
            name="mlflow",
            factory="qsgd_lab.mlflow:MLflowObserver",
            summary="Settings, loss, accuracy and effect size as a run of MLflow.",
        )
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


@hookimpl
def qsgd_register_reports() -> list[ReportSpec]:
    """``run`` and ``comparison``."""
    return [
        ReportSpec(
            name="run",
            factory="qsgd_lab.report.render:of_run",
            marker="config.json",
            summary="A run as a page.",
        ),
        ReportSpec(
            name="comparison",
            factory="qsgd_lab.report.render:of_comparison",
            marker="plan.json",
            summary="A comparison: in words, as JSON, as a page.",
        ),
    ]
