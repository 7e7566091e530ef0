"""What the user asked of the term, validated once; which parts of it live in ``param_groups``."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from qsgd_core.errors import ConfigError
from qsgd_core.events import Observer
from qsgd_core.measure.counts import Count, check_count
from qsgd_core.measure.options import Wait

Scope: TypeAlias = Literal["tensor", "model", "all"]
Inject: TypeAlias = Literal["update", "gradient"]
Normalize: TypeAlias = Literal["update"] | None
Weight: TypeAlias = float | Callable[[int], float]

GROUP_KEYS = ("quantum_weight", "n_qubits", "scope", "inject", "normalize")
"""Settings that each parameter group may override; they travel in ``state_dict()``."""

logger = logging.getLogger("qsgd_core")


@dataclass(frozen=True)
class TermConfig:
    """The arguments of :class:`~qsgd_core.QSGD` and :func:`~qsgd_core.attach` about the term.

    ``record`` is where the run's record goes; None: one under QSGD_HOME for a paid run. ``replay``
    is the record of a run that this one repeats.

    Raises:
        ConfigError: a value out of range, with the value and what to give instead.
    """

    quantum_weight: Weight = 0.5
    n_qubits: int = 4
    depth: int = 2
    perturbation: str = "sine"
    perturbation_options: Mapping[str, Any] | None = None
    backend: str | None = None
    backend_options: Mapping[str, Any] | None = None
    shots: Count | None = None
    scope: Scope = "tensor"
    inject: Inject = "update"
    normalize: Normalize = None
    every: Count | None = None
    policy: str | None = None
    wait: Wait | None = None
    budget: str | None = None
    total_steps: int | None = None
    run: str | None = None
    schedule: Mapping[str, Any] | None = None
    record: str | None = None
    replay: str | None = None
    seed: int = 0
    observers: Sequence[str | Observer] | None = None

    def __post_init__(self) -> None:
        if not callable(self.quantum_weight):
            check_weight(self.quantum_weight)
        if not callable(self.shots) and self.shots is not None:
            check_count("shots", self.shots)
        if not callable(self.every) and self.every is not None:
            check_count("every", self.every)
        if self.total_steps is not None:
            check_count("total_steps", self.total_steps)
        _one_of("wait", self.wait, (None, "never", "first", "always"))
        check_count("depth", self.depth)
        check_group(self.group_defaults(step=0))
        if not isinstance(self.seed, int):
            raise ConfigError(f"seed must be an integer, not {self.seed!r}.")

    def group_defaults(self, *, step: int) -> dict[str, Any]:
        """Values for the groups that do not bring their own."""
        weight = self.quantum_weight
        return {
            "quantum_weight": check_weight(weight(step) if callable(weight) else weight),
            "n_qubits": self.n_qubits,
            "scope": self.scope,
            "inject": self.inject,
            "normalize": self.normalize,
        }


def check_weight(value: object) -> float:
    """λ as a finite float ≥ 0."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ConfigError(f"quantum_weight must be a number, not {value!r}.") from None
    if not math.isfinite(number) or number < 0:
        raise ConfigError(
            f"quantum_weight must be finite and at least 0, not {number}. "
            "The paper uses 0.1 and 0.5; 0 turns the term off."
        )
    return number


def check_group(group: Mapping[str, Any]) -> None:
    """Raise unless the term's settings of one parameter group make sense together."""
    check_weight(group["quantum_weight"])
    check_count("n_qubits", group["n_qubits"])
    _one_of("scope", group["scope"], ("tensor", "model", "all"))
    _one_of("inject", group["inject"], ("update", "gradient"))
    _one_of("normalize", group["normalize"], (None, "update"))
    if group["inject"] == "gradient" and group["normalize"] is not None:
        raise ConfigError(
            'normalize="update" rescales the term to the base step, which inject="gradient" does '
            'not know before it is taken. Use inject="update", or leave normalize out.'
        )


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} must be {' or '.join(repr(a) for a in allowed)}, not {value!r}.")
