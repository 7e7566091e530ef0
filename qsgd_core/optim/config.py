"""What the user asked of the term, validated once; which parts of it live in ``param_groups``."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from qsgd_core.backend import Backend, Simulator
from qsgd_core.errors import ConfigError
from qsgd_core.events import Observer
from qsgd_core.isolate import name_of
from qsgd_core.measure.counts import Count, as_integer
from qsgd_core.optim.arguments import checked, count, of_type, options, path, text
from qsgd_core.perturbation import ClassicalPerturbation, Perturbation
from qsgd_core.plugins.options import check_options
from qsgd_core.policy import Policy
from qsgd_core.schedule.options import ScheduleOptions, Wait
from qsgd_core.settings import Settings

Scope: TypeAlias = Literal["tensor", "model", "all"]
Inject: TypeAlias = Literal["update", "gradient"]
Normalize: TypeAlias = Literal["update"] | None
Options: TypeAlias = Mapping[str, Any] | None
Weight: TypeAlias = float | Callable[[int], float]

GROUP_KEYS = ("quantum_weight", "n_qubits", "scope", "inject", "normalize")
"""Settings that each parameter group may override; they travel in ``state_dict()``."""

logger = logging.getLogger("qsgd_core")


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


def _weight(value: object) -> object:
    return value if callable(value) else check_weight(value)


def _budget(value: object) -> object:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ConfigError(f"budget must be an amount such as 600s, $25 or 1e6shots, not {value!r}.")
    return value


def _observers(value: object) -> object:
    if isinstance(value, str) or callable(value):
        raise ConfigError(f"observers must be a list of names or functions: observers=[{value!r}].")
    return value


class TermSettings(TypedDict, total=False):
    """The arguments of the term that a run's configuration keeps.

    Wherever the name of a plugin's is taken, an object is too: a perturbation, a simulator or a
    policy of one's own needs no distribution.

    Attributes:
        quantum_weight: λ ≥ 0, a number or a function of the step.
        n_qubits: coordinates, and qubits, of a block.
        depth: layers of the circuit, for perturbations that have layers.
        perturbation: what s is: a name, see ``qsgd perturbations``, or a
            :class:`~qsgd_core.Perturbation` or :class:`~qsgd_core.ClassicalPerturbation`, which
            then has its depth and options in itself.
        perturbation_options: its options.
        backend: where circuits run: a name, see ``qsgd backends``, or a
            :class:`~qsgd_core.Simulator`. None: QSGD_BACKEND, else ``exact``.
        backend_options: its options. None: QSGD_BACKEND_OPTIONS if the backend is not named.
        shots: per circuit, a number or a function of the step. None: QSGD_SHOTS, else the
            backend's own default.
        scope: ``tensor`` (first n coordinates of each tensor), ``model`` (first n of the named
            parameters), ``all`` (every tensor in blocks of n).
        inject: ``update`` adds the term to the step, ``gradient`` to what the optimizer reads.
        normalize: ``update`` rescales the term, per tensor, so that λ is its RMS relative to the
            base step.
        every: on a simulator, measure every k-th step and hold s in between; None: every step. On
            a paid backend, refresh every k-th step; None: as often as ``budget`` allows, evenly
            over ``total_steps``.
        policy: when a paid backend is asked, and what s is in between: ``tracked`` (a model of the
            device that every result corrects), ``hold`` (the last result), ``twin`` (the model
            alone, free of charge), ``sync`` (hold, and wait for each), a plugin's, or a
            :class:`~qsgd_core.Policy`. None: QSGD_POLICY, else ``tracked``.
        wait: for no result (``never``), for the first (``first``) or for each (``always``). None:
            QSGD_WAIT, else ``first``.
        budget: what a paid backend may cost: ``600s`` of QPU time, ``$25``, ``1e6shots``, or the
            name of a budget on the ledger. None: the ledger's default budget.
        run: id of the run on the ledger; the same id finds what was measured before. None: a new
            one, kept in the optimizer's state.
        schedule: further options of the scheduler: see
            :class:`~qsgd_core.schedule.options.ScheduleOptions`.
        replay: the record of a run to repeat, step by step, without its backend.
        seed: of everything random in the term. None: 0; where several optimizers are made before
            one of them steps (generator and critic), each further one gets a seed of its own, by
            the order in which they are made.
    """

    quantum_weight: Annotated[Weight, BeforeValidator(_weight)]
    n_qubits: Annotated[int, count("n_qubits")]
    depth: Annotated[int, count("depth")]
    perturbation: Annotated[
        str | Perturbation | ClassicalPerturbation,
        of_type("perturbation", str, Perturbation, ClassicalPerturbation),
    ]
    perturbation_options: Annotated[Options, options("perturbation_options")]
    backend: Annotated[
        str | Simulator | Backend | None, of_type("backend", str, Simulator, Backend)
    ]
    backend_options: Annotated[Options, options("backend_options")]
    shots: Annotated[Count | None, count("shots")]
    scope: Scope
    inject: Inject
    normalize: Normalize
    every: Annotated[Count | None, count("every")]
    policy: Annotated[str | Policy | None, of_type("policy", str, Policy)]
    wait: Wait | None
    budget: Annotated[str | None, BeforeValidator(_budget)]
    run: Annotated[str | None, text("run")]
    schedule: Annotated[Options, options("schedule")]
    replay: Annotated[str | None, path("replay")]
    seed: Annotated[
        int | None, BeforeValidator(lambda v: v if v is None else as_integer("seed", v))
    ]


class TermArguments(TermSettings, total=False):
    """The arguments of :class:`~qsgd_core.QSGD` and :func:`~qsgd_core.attach` about the term.

    Those of :class:`TermSettings`, and what only a loop of one's own has to say.

    Attributes:
        total_steps: optimizer steps of the whole run; a paid backend's refreshes are spread over
            them, and none is asked for that could not arrive before the last.
        record: the run's record, a SQLite file, written by a paid run as it goes and by any other
            at ``state_dict()`` and ``close()``. None: under QSGD_HOME for a paid run, else none.
        observers: names or functions that are told of events. None: QSGD_OBSERVERS.
    """

    total_steps: Annotated[int | None, count("total_steps")]
    record: Annotated[str | None, path("record")]
    observers: Annotated[Sequence[str | Observer] | None, BeforeValidator(_observers)]


@dataclass(frozen=True)
class TermConfig:
    """The arguments of the term, checked: see :class:`TermArguments`, with their defaults.

    Raises:
        ConfigError: a value out of range, with the value and what to give instead.
    """

    quantum_weight: Weight = 0.5
    n_qubits: int = 4
    depth: int = 2
    perturbation: str | Perturbation | ClassicalPerturbation = "sine"
    perturbation_options: Options = None
    backend: str | Simulator | Backend | None = None
    backend_options: Options = None
    shots: Count | None = None
    scope: Scope = "tensor"
    inject: Inject = "update"
    normalize: Normalize = None
    every: Count | None = None
    policy: str | Policy | None = None
    wait: Wait | None = None
    budget: str | None = None
    total_steps: int | None = None
    run: str | None = None
    schedule: Options = None
    record: str | None = None
    replay: str | None = None
    seed: int | None = None
    observers: Sequence[str | Observer] | None = None

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in checked(TermArguments, given).items():
            object.__setattr__(self, name, value)
        check_group(self.group_defaults(step=0))

    def source_settings(self, settings: Settings) -> SourceSettings:
        """How s is measured: what the arguments say, else what the environment says.

        The environment's options are those of the environment's backend: they are left out as
        soon as an argument names a backend or gives options.
        """
        from_environment = self.backend is None and self.backend_options is None
        given = settings.backend_options if from_environment else self.backend_options
        return SourceSettings(
            backend=self.backend or settings.backend,
            backend_options=dict(given) if given else None,
            shots=settings.shots if self.shots is None else self.shots,
            policy=self.policy or settings.policy,
            wait=self.wait or settings.wait,
        )

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


@dataclass(frozen=True)
class SourceSettings:
    """How s is measured, with the environment's settings filled in: fields of `TermConfig`."""

    backend: str | Simulator | Backend
    backend_options: dict[str, Any] | None
    shots: Count | None
    policy: str | Policy
    wait: Wait


def require_circuit(
    perturbation: Perturbation | ClassicalPerturbation, name: str, backend: str
) -> Perturbation:
    """``perturbation``, if a paid backend has something to run for it.

    Raises:
        ConfigError: it uses no circuit.
    """
    if isinstance(perturbation, ClassicalPerturbation):
        raise ConfigError(
            f"Perturbation {name!r} uses no circuit, so backend {backend!r} would be "
            "paid for nothing. Leave the backend out, or use "
            f"perturbation={name_of(perturbation.match or 'sine')!r}."
        )
    return perturbation


def read_options(given: Options) -> ScheduleOptions:
    """The options of the scheduler, validated.

    Raises:
        ConfigError: an option that does not exist or a value it cannot have.
    """
    options = check_options("The schedule", ScheduleOptions, given)
    assert isinstance(options, ScheduleOptions)  # noqa: S101 - it is made by that model
    if isinstance(options.tiles, int) and options.tiles < 1:
        raise ConfigError(f"tiles must be 'auto' or at least 1, not {options.tiles}.")
    return options


class _GroupSettings(TypedDict):
    quantum_weight: Any
    n_qubits: Annotated[int, count("n_qubits")]
    scope: Scope
    inject: Inject
    normalize: Normalize


def check_group(group: Mapping[str, Any]) -> dict[str, Any]:
    """The term's settings of one parameter group; raise unless they make sense together."""
    check_weight(group["quantum_weight"])  # a tensor may stay one
    settings = checked(_GroupSettings, {name: group[name] for name in GROUP_KEYS})
    if settings["inject"] == "gradient" and settings["normalize"] is not None:
        raise ConfigError(
            'normalize="update" rescales the term to the base step, which inject="gradient" does '
            'not know before it is taken. Use inject="update", or leave normalize out.'
        )
    return settings
