"""What a training run is asked to do, and the same with every default filled in."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, Unpack

from qsgd_core.errors import ConfigError
from qsgd_core.isolate import name_of
from qsgd_core.optim.arguments import checked, count, not_negative, text
from qsgd_core.optim.config import TermConfig, TermSettings
from qsgd_core.optim.source.build import check_choices
from qsgd_core.plugins.registry import default_registry
from qsgd_core.settings import Settings
from qsgd_core.task import TaskDefaults

MAX_SEED = 2**63 - 1
MAY_CHANGE = ("epochs", "max_steps")
"""What a resumed run may be asked for anew; everything else is the run's identity."""
SETTINGS = tuple(TermSettings.__annotations__)
"""Arguments of the term that a run's configuration keeps."""
OBJECTS = ("perturbation", "backend", "policy")
"""Those that may be an object; a configuration on disk has its class."""
CHOICES = ("policy", "budget", "schedule")
"""Those that are looked up before anything else happens: see :func:`.build.check_choices`."""


class TrainArguments(TermSettings, total=False):
    """The arguments of :class:`TrainConfig`: those of the term, and how to train.

    Attributes:
        optimizer: ``adamw`` trains with QSGD; any other name is a class of ``torch.optim`` in
            lower case, which gets the term by ``attach``.
        epochs: walks through the training data.
        max_steps: stop after so many optimizer steps, even in the middle of an epoch.
        lr_schedule, warmup, clip_norm, precision: see :class:`~qsgd_core.TaskDefaults`.
        lr_steps: steps that the learning rate is planned for; None for those of the whole run. A
            run keeps it when it is resumed or replayed with another end.
        lr, weight_decay: of the optimizer.
    """

    optimizer: Annotated[str, text("optimizer")]
    lr: Annotated[float | None, not_negative("lr")]
    weight_decay: Annotated[float | None, not_negative("weight_decay")]
    epochs: Annotated[int | None, count("epochs")]
    max_steps: Annotated[int | None, count("max_steps")]
    lr_schedule: Literal["constant", "linear"] | None
    warmup: Annotated[float | None, not_negative("warmup")]
    lr_steps: Annotated[int | None, count("lr_steps")]
    clip_norm: Annotated[float | None, not_negative("clip_norm")]
    precision: Literal["float32", "float16"] | None


@dataclass(frozen=True, init=False)
class TrainConfig:
    """How :func:`qsgd_core.training.train` trains; None means "the task's or QSGD's default".

    Made from keywords, :class:`TrainArguments`; those of the term are kept in ``term``, where the
    run's seed is too: it is the term's and the training's.

    Attributes:
        term: the term's arguments; ``run``, the run's id on the ledger, is set when the run folder
            is made.

    Raises:
        ConfigError: an argument that does not exist or a value it cannot have; of the term's, a
            function too, which a run's configuration could not keep.

    Example:
        >>> from qsgd_core.training import TrainConfig
        >>> config = TrainConfig(epochs=2, quantum_weight=0.1, backend="sampled", shots=100)
        >>> config.epochs, config.term.shots
        (2, 100)
    """

    term: TermConfig
    optimizer: str = "adamw"
    lr: float | None = None
    weight_decay: float | None = None
    epochs: int | None = None
    max_steps: int | None = None
    lr_schedule: str | None = None
    warmup: float | None = None
    lr_steps: int | None = None
    clip_norm: float | None = None
    precision: str | None = None

    def __init__(self, *, term: TermConfig | None = None, **given: Unpack[TrainArguments]) -> None:
        values = checked(TrainArguments, given)
        of_term = {name: values.pop(name) for name in SETTINGS if name in values}
        term = replace(term or TermConfig(), **of_term)
        if term.seed is None:
            term = replace(term, seed=0)
        if of_term:
            choices = {name: of_term[name] for name in CHOICES if name in of_term}
            check_choices(TermConfig(**choices), default_registry())
        for name in ("quantum_weight", "shots", "every"):
            if callable(getattr(term, name)):
                raise ConfigError(
                    f"{name} is a function, which the run's config.json cannot keep. Give a "
                    "number, or use attach() in a loop of your own."
                )
        for field in fields(self):
            object.__setattr__(self, field.name, values.get(field.name, field.default))
        object.__setattr__(self, "term", term)

    @property
    def seed(self) -> int:
        """Of everything random in the run."""
        return self.term.seed or 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, the term's among them; :meth:`from_dict` reads them back.

        Of an object that stands for a name, its class.
        """
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "term"}
        settings = {name: getattr(self.term, name) for name in SETTINGS}
        for name in OBJECTS:
            if settings[name] is not None:
                settings[name] = name_of(settings[name])
        return own | copy.deepcopy(settings)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainConfig:
        """Read the JSON form; a field that came with a later version has its default.

        Raises:
            ConfigError: fields that this version does not know.
        """
        if odd := sorted(set(data) - TrainArguments.__annotations__.keys()):
            raise ConfigError(
                f"The run's configuration has other fields than this version of qsgd-core: "
                f"{', '.join(odd)}. Resume it with the version named in its config.json."
            )
        # Policies and budgets of a run that was may be gone since, and it can be read all the same.
        term = TermConfig(**{name: data[name] for name in SETTINGS if name in data})
        return cls(term=term, **{k: v for k, v in data.items() if k not in SETTINGS})

    def with_term(self, **settings: Unpack[TermSettings]) -> TrainConfig:
        """The same with other settings of the term."""
        return replace(self, term=replace(self.term, **settings))


def resolve(config: TrainConfig, defaults: TaskDefaults, settings: Settings) -> TrainConfig:
    """``config`` with the task's defaults and the environment's settings filled in.

    Raises:
        ConfigError: a value out of range. The term's own arguments are checked where the
            optimizer is made.
    """
    full = replace(
        config,
        lr=defaults.lr if config.lr is None else config.lr,
        weight_decay=(
            defaults.weight_decay if config.weight_decay is None else config.weight_decay
        ),
        epochs=defaults.epochs if config.epochs is None else config.epochs,
        lr_schedule=config.lr_schedule or defaults.lr_schedule,
        warmup=defaults.warmup if config.warmup is None else config.warmup,
        clip_norm=defaults.clip_norm if config.clip_norm is None else config.clip_norm,
        precision=config.precision or defaults.precision,
        term=replace(config.term, **vars(config.term.source_settings(settings))),
    )
    if full.warmup is not None and full.warmup > 1:
        raise ConfigError(f"warmup is a share of the run's steps, 1 at most, not {full.warmup!r}.")
    if not 0 <= full.seed <= MAX_SEED:
        raise ConfigError(f"seed must be between 0 and 2**63 - 1, not {full.seed}.")
    return full


def total_steps(config: TrainConfig, loader: Iterable[Any]) -> int | None:
    """Optimizer steps of the whole run; None if the loader does not tell, or has no batch."""
    try:
        length = len(loader)  # type: ignore[arg-type]
    except TypeError:  # an iterable data set has no length
        return config.max_steps
    steps = length * (config.epochs or 0)
    return (steps if config.max_steps is None else min(steps, config.max_steps)) or None


def changes(recorded: TrainConfig, asked: Mapping[str, Any]) -> list[str]:
    """What of ``asked`` would make another run: ``lr=0.1 (the run has 0.001)``."""
    have = recorded.to_dict()
    return [
        f"{name}={value!r} (the run has {have[name]!r})"
        for name, value in asked.items()
        if name not in MAY_CHANGE and _plain(name, value) != have[name]
    ]


def check_same_run(recorded: TrainConfig, asked: Mapping[str, Any], where: str) -> None:
    """Raise unless every value of ``asked`` is what the run was started with.

    Args:
        recorded: the run's full configuration.
        asked: field -> value, only what was asked for explicitly.
        where: the run folder, for the message.

    Raises:
        ConfigError: naming each difference.
    """
    if different := changes(recorded, asked):
        raise ConfigError(
            f"The run in {where} cannot be resumed with {', '.join(different)}: it would be "
            "another run. Leave that out to go on as it was started, or start a new run without "
            "--resume. Nothing was changed."
        )


def with_objects(recorded: TrainConfig, asked: Mapping[str, Any]) -> TrainConfig:
    """The run's configuration with the objects that ``asked`` has for the classes it names."""
    objects = {name: asked[name] for name in OBJECTS if name in asked}
    return replace(recorded, term=replace(recorded.term, **objects))


def _plain(name: str, value: Any) -> Any:
    """What a run's configuration says of a value that is asked for."""
    return TrainConfig(**{name: value}).to_dict()[name]
