"""What the core itself provides. Imports no torch: specs name their code by strings."""

from __future__ import annotations

from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import (
    BackendSpec,
    CommandSpec,
    ObserverSpec,
    PerturbationSpec,
    PolicySpec,
    TaskSpec,
)


@hookimpl
def qsgd_register_backends() -> list[BackendSpec]:
    """``exact`` and ``sampled``."""
    return [
        BackendSpec(
            prefix="exact",
            kind="simulator",
            names=("exact",),
            factory="qsgd_core.builtin.simulators:ExactSimulator",
            summary="Expectation values without shot noise: closed form, else state vector.",
        ),
        BackendSpec(
            prefix="sampled",
            kind="simulator",
            names=("sampled",),
            factory="qsgd_core.builtin.simulators:SampledSimulator",
            summary="Shots drawn from the exact state vector, seeded; up to 20 qubits.",
        ),
    ]


@hookimpl
def qsgd_register_perturbations() -> list[PerturbationSpec]:
    """``sine`` and ``circuit``."""
    return [
        PerturbationSpec(
            name="sine",
            factory="qsgd_core.builtin.perturbations:Sine",
            summary="sin(πθ), the paper's Eq. 2: one layer without entangler, at any depth.",
        ),
        PerturbationSpec(
            name="circuit",
            factory="qsgd_core.builtin.perturbations:CircuitPerturbation",
            options="qsgd_core.builtin.options:CircuitOptions",
            summary="The paper's Eq. 5: layers of Ry(πθ), Rz(φ) and CNOTs. "
            "Options: entangler (none, chain, ring), phases (zero, gradient, a matrix).",
        ),
    ]


@hookimpl
def qsgd_register_policies() -> list[PolicySpec]:
    """``tracked``, ``hold``, ``twin`` and ``sync``."""
    return [
        PolicySpec(
            name="tracked",
            factory="qsgd_core.builtin.policies:Tracked",
            summary="Refreshes spread over the run; in between, a noise model that each corrects.",
        ),
        PolicySpec(
            name="hold",
            factory="qsgd_core.builtin.policies:Hold",
            summary="Refreshes spread over the run; in between, the last result as it was.",
        ),
        PolicySpec(
            name="twin",
            factory="qsgd_core.builtin.policies:TwinOnly",
            summary="No job at all: the vendor's own calibration figures in a noise model; free.",
        ),
        PolicySpec(
            name="sync",
            factory="qsgd_core.builtin.policies:Sync",
            summary="Like hold, and training stands still until each refresh has arrived.",
        ),
    ]


@hookimpl
def qsgd_register_tasks() -> list[TaskSpec]:
    """``digits``."""
    return [
        TaskSpec(
            name="digits",
            factory="qsgd_core.builtin.digits:Digits",
            summary="Handwritten digits (scikit-learn's 1,797 images), read row by row.",
        )
    ]


@hookimpl
def qsgd_register_observers() -> list[ObserverSpec]:
    """``tensorboard``."""
    return [
        ObserverSpec(
            name="tensorboard",
            factory="qsgd_core.builtin.tensorboard:TensorBoardObserver",
            summary="Writes loss, metrics and effect size as TensorBoard events.",
        )
    ]


@hookimpl
def qsgd_register_commands() -> list[CommandSpec]:
    """The subcommands of ``qsgd`` that come with the core; a plugin cannot claim their names."""
    return [
        CommandSpec(
            name="train",
            factory="qsgd_core.cli.commands.train:train",
            summary="Train a task with the quantum term, or go on with a run.",
        ),
        CommandSpec(
            name="backends",
            factory="qsgd_core.cli.commands.listing:backends",
            summary="List simulators and backends, and plugins that failed.",
        ),
        CommandSpec(
            name="perturbations",
            factory="qsgd_core.cli.commands.listing:perturbations",
            summary="List perturbations, and plugins that failed.",
        ),
        CommandSpec(
            name="plugins",
            factory="qsgd_core.cli.commands.listing:plugins",
            summary="List plugins, what they provide, and why those that failed did.",
        ),
        CommandSpec(
            name="estimate",
            factory="qsgd_core.cli.commands.estimate:estimate",
            summary="What a run would cost, and what it would get for it. Sends nothing.",
        ),
        CommandSpec(
            name="report",
            factory="qsgd_core.cli.commands.report:report",
            summary="What a run measured, what that cost, and whether it was worth it.",
        ),
        CommandSpec(
            name="jobs",
            factory="qsgd_core.cli.commands.jobs:jobs",
            summary="Hardware jobs: list, wait, resume, adopt, cancel, fetch, audit.",
        ),
        CommandSpec(
            name="budget",
            factory="qsgd_core.cli.commands.budget:budget",
            summary="What hardware jobs may cost: show, create, raise.",
        ),
        CommandSpec(
            name="doctor",
            factory="qsgd_core.cli.commands.doctor:doctor",
            summary="Check the installation; exits with 1 if something is wrong.",
        ),
        CommandSpec(
            name="conform",
            factory="qsgd_core.cli.commands.conform:conform",
            summary="Check that a simulator, backend, perturbation or provider keeps its contract.",
        ),
        CommandSpec(
            name="new",
            factory="qsgd_core.cli.commands.new:new",
            summary="Write a new provider: a distribution that works, with its tests.",
        ),
    ]
