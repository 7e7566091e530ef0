"""How a run ended, in the form that ``qsgd train --json`` prints and scripts rely on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qsgd_core.files import not_finite
from qsgd_core.sources import SOURCES
from qsgd_core.training.loop.rate import describe
from qsgd_core.training.loop.session import Parts, Session, Status

BESIDE = {"contract": False}
"""Marks fields of :class:`Summary` that are not printed as JSON."""


@dataclass(frozen=True)
class Summary:
    """What a run came to. :meth:`to_dict` has the keys of the contract and no others.

    Attributes:
        epochs: finished ones.
        loss: the task's ``loss`` metric after the last epoch; its training loss if it has none.
        accuracy: the task's ``accuracy`` metric; None if it has none.
        effect_size: mean and max over the steps that had a term; None where it is unknown.
        sources: share of those steps by where s came from; they sum to 1, or are all 0.
        wall_s: seconds spent training, over all sessions.
        status: ``finished`` or ``interrupted``.
        trained: whether this session trained anything.
        n_coordinates: coordinates the term touches.
        optimizer: name of the base optimizer.
        steps_are: learning rate, clipping and precision in words.
        metrics: the last line of metrics.jsonl.
        plot: the picture, when one was drawn.
        spending: on a paid backend jobs, shots, cost_usd and qpu_s, which join the contract.
        replayed: of a replay, whether it was the recorded run to the bit; joins the contract too.
    """

    task: str
    backend: str
    perturbation: str
    quantum_weight: float
    n_qubits: int
    depth: int
    scope: str
    inject: str
    seed: int
    epochs: int
    steps: int
    loss: float | None
    accuracy: float | None
    effect_size: dict[str, float | None]
    sources: dict[str, float]
    wall_s: float
    run_dir: str
    status: str = field(default="finished", metadata=BESIDE)
    trained: bool = field(default=True, metadata=BESIDE)
    n_coordinates: int = field(default=0, metadata=BESIDE)
    optimizer: str = field(default="adamw", metadata=BESIDE)
    steps_are: str = field(default="", metadata=BESIDE)
    metrics: Mapping[str, Any] = field(default_factory=dict, metadata=BESIDE)
    plot: Path | None = field(default=None, metadata=BESIDE)
    spending: dict[str, Any] | None = field(default=None, metadata=BESIDE)
    replayed: dict[str, Any] | None = field(default=None, metadata=BESIDE)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the contract.

        ``not_finite``, where there is any, lists what JSON can only have as null, such as
        ``effect_size.mean``; any other null is unknown.
        """
        data = asdict(self)
        contract = {
            name: data[name]
            for name, of in self.__dataclass_fields__.items()
            if of.metadata.get("contract", True)
        }
        replayed = {} if self.replayed is None else {"replayed": self.replayed}
        found = contract | (self.spending or {}) | replayed
        lost = not_finite(found)
        return found | ({"not_finite": lost} if lost else {})


def effect_size_of(summary: Mapping[str, Any]) -> dict[str, float | None] | None:
    """The effect size in a summary.json: None is unknown, NaN is not finite; None without one."""
    size = summary.get("effect_size")
    lost = summary.get("not_finite", ())
    return size and {
        name: math.nan if f"effect_size.{name}" in lost else value for name, value in size.items()
    }


def summarise(
    parts: Parts, session: Session, run_dir: Path, status: Status, *, trained: bool
) -> Summary:
    """The summary of a session that has ended."""
    config, position = parts.config, session.position
    said = config.to_dict()
    stats = parts.term.qsgd_stats()
    last = session.rows[-1] if session.rows else {}
    return Summary(
        task=parts.task.name,
        backend=said["backend"] or "exact",
        perturbation=said["perturbation"],
        quantum_weight=said["quantum_weight"],
        n_qubits=config.term.n_qubits,
        depth=config.term.depth,
        scope=config.term.scope,
        inject=config.term.inject,
        seed=config.seed,
        epochs=position.epoch,
        steps=position.step,
        loss=last.get("loss", last.get("train_loss")),
        accuracy=last.get("accuracy"),
        effect_size={"mean": stats.effect_size_mean, "max": stats.effect_size_max},
        sources=shares(stats.sources),
        wall_s=round(position.elapsed_s, 3),
        run_dir=str(run_dir),
        status=status,
        trained=trained,
        n_coordinates=parts.term.qsgd_describe().n_coordinates,
        optimizer=config.optimizer,
        steps_are=describe(config),
        metrics=last,
        spending=stats.spending,
        replayed=stats.replayed,
    )


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    """Counts by source as shares of 1; all 0 when nothing was counted."""
    total = sum(counts.values())
    return {name: counts.get(name, 0) / total if total else 0.0 for name in SOURCES}
