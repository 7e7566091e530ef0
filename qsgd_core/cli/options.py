"""Options that several commands have, under the same names and with the same words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

TERM, TRAINING = "Quantum term", "Training"
"""Panels of the help."""

Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print JSON on stdout and everything else on stderr.")
]
Debug: TypeAlias = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error. Or set QSGD_DEBUG=1.")
]
"""Read by :func:`qsgd_core.cli.app.main` from the arguments, so that it holds while parsing."""

Backend: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Where circuits run. Default: QSGD_BACKEND, else exact.", rich_help_panel=TERM
    ),
]
BackendOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="An option of the backend; may be repeated.",
        rich_help_panel=TERM,
    ),
]
PerturbationName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="What is computed; see qsgd perturbations. Default: sine.", rich_help_panel=TERM
    ),
]
PerturbationOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="An option of the perturbation; may be repeated.",
        rich_help_panel=TERM,
    ),
]
Qubits: TypeAlias = Annotated[
    int | None, typer.Option(help="Qubits of a block. Default: 4.", rich_help_panel=TERM)
]
Depth: TypeAlias = Annotated[
    int | None, typer.Option(help="Layers of the circuit. Default: 2.", rich_help_panel=TERM)
]
Scope: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Which coordinates: tensor, model or all. Default: tensor.", rich_help_panel=TERM
    ),
]
Every: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Measure every k-th step. Default: every step; on a paid backend, as often as "
        "the budget allows, spread over the run.",
        rich_help_panel=TERM,
    ),
]
Budget: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="AMOUNT",
        help="What a paid backend may cost: 600s, $25, 1e6shots, several as in $25,600s, or "
        "a budget's name. Default: $10, or 60 s on a free plan, once for each ledger.",
        rich_help_panel=TERM,
    ),
]
Yes: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--yes",
        help="Do not ask before the first paid run; scripts need it for a budget above the "
        "default.",
        rich_help_panel=TERM,
    ),
]
PolicyName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="On a paid backend, what s is between refreshes: tracked, hold, twin, sync. "
        "Default: QSGD_POLICY, else tracked.",
        rich_help_panel=TERM,
    ),
]
SchedulerOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="Further option of the scheduler, such as tiles=auto; may be repeated.",
        rich_help_panel=TERM,
    ),
]
Shots: TypeAlias = Annotated[
    int | None,
    typer.Option(
        help="Shots per circuit. Default: QSGD_SHOTS, else the backend's.", rich_help_panel=TERM
    ),
]
Epochs: TypeAlias = Annotated[
    int | None, typer.Option(help="Default: the task's.", rich_help_panel=TRAINING)
]
MaxSteps: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Stop after so many optimizer steps.", rich_help_panel=TRAINING),
]
Data: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="For a task that takes its data from a folder.",
        rich_help_panel=TRAINING,
    ),
]
