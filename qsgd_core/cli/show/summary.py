"""What a run came to, and what one would do, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from qsgd_core.cli.show.output import print_pairs
from qsgd_core.cli.show.words import number, percent, provisional
from qsgd_core.jobs import dollars, qpu_seconds
from qsgd_core.sources import SOURCES, SourceName
from qsgd_core.training.folder.summary import Summary
from qsgd_core.training.loop.rate import describe
from qsgd_core.training.plan import Plan

MEANING: dict[SourceName, str] = {
    "measured": "measured on the backend",
    "held": "held from an earlier step",
    "tracked": "predicted by a model that measurements correct",
    "nominal": "predicted by a model that nothing has corrected",
    "random": "drawn at random",
    "zero": "zero",
    "exact": "computed exactly",
}
NAMES = {"adamw": "AdamW", "sgd": "SGD", "adam": "Adam", "rmsprop": "RMSprop", "adamax": "Adamax"}


def print_summary(summary: Summary) -> None:
    """The end of a run, on stdout."""
    rows = [("task", f"{summary.task}, seed {summary.seed}")]
    for name, value in summary.metrics.items():
        if name not in ("epoch", "step", "effect_size"):
            shown = percent(value) if name == "accuracy" else number(value)
            rows.append((name.replace("_", " "), shown))
    rows += [
        ("trained", f"{summary.epochs} epochs, {summary.steps} steps in {summary.wall_s:.1f} s"),
        ("optimizer", f"{NAMES.get(summary.optimizer, summary.optimizer)}, {summary.steps_are}"),
        ("quantum term", describe_term(summary)),
        ("modulation", describe_sources(summary)),
        ("run", summary.run_dir),
    ]
    if summary.spending is not None:
        rows.insert(-1, ("paid", describe_spending(summary.spending)))
    if summary.replayed is not None:
        rows.insert(-1, ("replayed", describe_replay(summary.replayed)))
    if summary.plot is not None:
        rows.append(("plot", str(summary.plot)))
    print_pairs(rows, Console())


def describe_term(summary: Summary) -> str:
    """How large the term was beside the base optimizer's step."""
    if summary.quantum_weight == 0:
        return "off (λ = 0)"
    if not any(summary.sources.values()):
        return "none was added"
    base = NAMES.get(summary.optimizer, summary.optimizer)
    mean, most = summary.effect_size["mean"], summary.effect_size["max"]
    if mean is None or most is None:
        return f"unknown: what {base} makes of an injected term cannot be told"
    if not math.isfinite(mean):
        return f"not finite beside the {base} step"
    return (
        f"{percent(mean)} of the {base} step on the "
        f"{summary.n_coordinates} coordinates it touches "
        f"(at most {percent(most)})"
    )


def describe_sources(summary: Summary) -> str:
    """Where s came from, in shares of the steps."""
    shares = {name: summary.sources[name] for name in SOURCES}
    where = [f"{MEANING[k]} in {100 * v:.3g} % of steps" for k, v in shares.items() if v]
    what = f"{summary.perturbation} on {summary.backend}"
    return f"{what}: {', '.join(where)}" if where else f"{what}: never asked for"


def describe_replay(replayed: Mapping[str, Any]) -> str:
    """Whether a replay was the recorded run."""
    if replayed["differs"]:
        return f"not bit-identical to the recorded run: other {'; '.join(replayed['differs'])}"
    if not replayed["bit_identical"]:
        return "nothing was recorded that it could be compared with"
    compared = replayed["compared"]
    return (
        f"bit-identical to the recorded run (weights compared at {compared['weights']} "
        f"checkpoints, angles at {compared['angles']} steps)"
    )


def describe_spending(spending: Mapping[str, Any]) -> str:
    """What the run's jobs have cost, with what the vendor does not say left unsaid."""
    usd, qpu_s = spending["cost_usd"], spending["qpu_s"]
    said = [f"{spending['jobs']} jobs", f"{spending['shots'] or 0:,} shots"]
    said.append("price unknown" if usd is None else dollars(usd))
    if qpu_s is not None:
        said.append(f"{qpu_seconds(qpu_s)} of QPU time")
    late = provisional(spending["provisional_usd"], spending["provisional_qpu_s"])
    return ", ".join(said) + late


def print_plan(plan: Plan) -> None:
    """What a run would do, on stdout."""
    config, said = plan.config, plan.to_dict()
    sizes = ", ".join(f"{count} of {size} qubits" for size, count in plan.block_sizes.items())
    shots = "backend's default" if plan.shots_per_circuit is None else str(plan.shots_per_circuit)
    rows = [
        ("task", f"{plan.task}, seed {config.seed}"),
        ("optimizer", f"{NAMES.get(config.optimizer, config.optimizer)}, {describe(config)}"),
        ("steps", "unknown" if plan.steps is None else f"{plan.steps} in {config.epochs} epochs"),
        (
            "quantum term",
            f"{said['perturbation']}, λ = {said['quantum_weight']:g}",
        ),
        ("backend", f"{plan.to_dict()['backend']} ({plan.provider})"),
        ("touches", f"{plan.coordinates} coordinates of {plan.tensors} tensors"),
        ("circuits per refresh", f"{plan.blocks} ({sizes})"),
        ("refreshes", "unknown" if plan.refreshes is None else str(plan.refreshes)),
        ("shots per circuit", shots),
    ]
    print_pairs(rows, Console())
    if plan.first_circuit is not None:
        title = "The first circuit; its angles p come from the weights at each refresh:"
        Console(soft_wrap=True).print(Text(f"\n{title}\n"))
        Console(soft_wrap=True).print(Text(plan.first_circuit))
    Console().print(Text("Nothing was sent and nothing was written."))
