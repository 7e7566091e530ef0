"""What a training run is asked to do, and the same with every default filled in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from qsgd_core.errors import ConfigError
from qsgd_core.settings import Settings
from qsgd_core.task import TaskDefaults

MAX_SEED = 2**63 - 1
MAY_CHANGE = ("epochs", "max_steps")
"""What a resumed run may be asked for anew; everything else is the run's identity."""
LR_SCHEDULES = ("constant", "linear")
PRECISIONS = ("float32", "float16")


@dataclass(frozen=True)
class TrainConfig:
    """Arguments of :func:`qsgd_core.training.train`; None means "the task's or QSGD's default".

    What concerns the quantum term has the names, meaning and checks of
    :class:`qsgd_core.QSGD`'s arguments.

    Attributes:
        optimizer: ``adamw`` trains with QSGD; any other name is a class of ``torch.optim`` in
            lower case, which gets the term by ``attach``.
        epochs: walks through the training data.
        max_steps: stop after so many optimizer steps, even in the middle of an epoch.
        lr_schedule, warmup, clip_norm, precision: see :class:`~qsgd_core.TaskDefaults`.
        lr_steps: steps that the learning rate is planned for; None for those of the whole run. A
            run keeps it when it is resumed or replayed with another end.
        run: the run's id on the ledger; set when the run folder is made.
        replay: path of the record of the run that this one repeats; see
            :func:`qsgd_core.training.replay`.
    """

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
    seed: int = 0
    quantum_weight: float = 0.5
    n_qubits: int = 4
    depth: int = 2
    perturbation: str = "sine"
    perturbation_options: Mapping[str, Any] | None = None
    backend: str | None = None
    backend_options: Mapping[str, Any] | None = None
    shots: int | None = None
    scope: str = "tensor"
    inject: str = "update"
    normalize: str | None = None
    every: int | None = None
    policy: str | None = None
    wait: str | None = None
    budget: str | None = None
    run: str | None = None
    schedule: Mapping[str, Any] | None = None
    replay: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainConfig:
        """Read the JSON form; a field that came with a later version has its default.

        Raises:
            ConfigError: fields that this version does not know.
        """
        if odd := sorted(set(data) - {f.name for f in fields(cls)}):
            raise ConfigError(
                f"The run's configuration has other fields than this version of qsgd-core: "
                f"{', '.join(odd)}. Resume it with the version named in its config.json."
            )
        return cls(**data)


def resolve(config: TrainConfig, defaults: TaskDefaults, settings: Settings) -> TrainConfig:
    """``config`` with the task's defaults and the environment's settings filled in.

    Raises:
        ConfigError: a value out of range. The term's own arguments are checked where the
            optimizer is made.
    """
    from_environment = config.backend is None and config.backend_options is None
    options = settings.backend_options if from_environment else config.backend_options
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
        backend=config.backend or settings.backend,
        backend_options=dict(options) if options else None,
        shots=settings.shots if config.shots is None else config.shots,
        policy=config.policy or settings.policy,
        wait=config.wait or settings.wait,
    )
    _at_least_one("epochs", full.epochs)
    for name in ("max_steps", "lr_steps"):
        if getattr(full, name) is not None:
            _at_least_one(name, getattr(full, name))
    for name in ("lr", "weight_decay", "warmup", "clip_norm"):
        _finite(name, getattr(full, name))
    if full.warmup is not None and full.warmup > 1:
        raise ConfigError(f"warmup is a share of the run's steps, 1 at most, not {full.warmup!r}.")
    _one_of("lr_schedule", full.lr_schedule, LR_SCHEDULES)
    _one_of("precision", full.precision, PRECISIONS)
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
        if name not in MAY_CHANGE and value != have[name]
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


def _at_least_one(name: str, value: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} must be an integer of at least 1, not {value!r}.")


def _finite(name: str, value: float | None) -> None:
    if value is None or not math.isfinite(value) or value < 0:
        raise ConfigError(
            f"{name} must be finite and at least 0, not {value!r}. "
            f"Leave it out to use the task's own."
        )


def _one_of(name: str, value: str | None, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name} must be {' or '.join(known)}, not {value!r}.")
