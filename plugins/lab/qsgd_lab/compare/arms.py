"""Arms by name: ``adamw``, ``sine@0.5``, ``circuit@0.5:gradient``, ``uniform@0.5:circuit``.

``NAME@λ[:WORD|:KEY=VALUE]…`` is an arm with a term: a perturbation and its strength λ. The words
are ``update`` (the default), ``gradient``, ``normalized`` (λ is the ratio of term and base step),
``all`` and ``model`` (the scope). Keys are those of :data:`KEYS`; any other is an option of the
perturbation. ``backend=`` comes last, as a backend's name may hold colons. A control takes the name
of the perturbation it is matched to as a word.

A name without ``@λ`` is an optimizer of torch.optim without a term: a baseline.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from qsgd_core.errors import ConfigError, nearest
from qsgd_core.isolate import name_of
from qsgd_core.perturbation import ClassicalPerturbation
from qsgd_core.plugins.options import parse_options
from qsgd_core.plugins.registry import Registry

WORDS: Mapping[str, Mapping[str, Any]] = {
    "update": {"inject": "update"},
    "gradient": {"inject": "gradient"},
    "normalized": {"normalize": "update"},
    "all": {"scope": "all"},
    "model": {"scope": "model"},
    "tensor": {"scope": "tensor"},
}
KEYS = ("optimizer", "n_qubits", "depth", "every", "shots", "scope", "backend")
"""What ``:KEY=VALUE`` may set beside the perturbation's own options: fields of TrainConfig."""


@dataclass(frozen=True)
class Arm:
    """One arm as its name says it.

    Attributes:
        name: as typed.
        perturbation: None for an optimizer without a term.
        quantum_weight: λ; 0 without a term.
        settings: what else its name sets, by the names of TrainConfig.
        options: of the perturbation.
        control: whether it is a classical rule that takes its strength from another perturbation.
        match: that perturbation's name; None for all but controls.
    """

    name: str
    perturbation: str | None = None
    quantum_weight: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    control: bool = False
    match: str | None = None

    @property
    def uses_backend(self) -> bool:
        """Whether circuits are run for it."""
        return self.perturbation is not None and (not self.control or self.match is not None)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What makes two arms the same, however they are written."""
        meant = {"optimizer": "adamw", "inject": "update", "scope": "tensor"} | dict(self.settings)
        parts = (self.perturbation, self.quantum_weight, self.match)
        return (*parts, _frozen(meant), _frozen(self.options))


def split(text: str) -> list[str]:
    """``adamw, sine@0.5`` as names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_arms(names: Sequence[str], registry: Registry) -> list[Arm]:
    """Arms by name; controls that do not say so are matched to a quantum arm beside them.

    Raises:
        ConfigError: a name that nobody serves or that cannot be read, λ missing, one arm twice, or
            nothing to compare.
    """
    arms = [parse_arm(name, registry) for name in names]
    arms = [_matched(arm, arms) for arm in arms]
    seen: dict[tuple[Any, ...], str] = {}
    for arm in arms:
        if (before := seen.get(arm.identity)) is not None:
            same = "twice" if before == arm.name else f"twice, as {before!r} too"
            raise ConfigError(f"Arm {arm.name!r} is there {same}. Leave one out.")
        seen[arm.identity] = arm.name
    baseline_of(arms)
    return arms


def baseline_of(arms: Sequence[Arm]) -> Arm:
    """The first arm without a term.

    Raises:
        ConfigError: there is none, or nothing to compare with it.
    """
    found = next((arm for arm in arms if arm.perturbation is None), None)
    listed = ",".join(arm.name for arm in arms)
    if found is None:
        raise ConfigError(
            f"The arms {listed!r} have no baseline: an optimizer without a term. "
            f"Add one: --arms adamw,{listed}"
        )
    if len(arms) < 2:
        raise ConfigError(
            f"There is only {found.name!r}, and nothing to compare with it. Add an arm: --arms "
            f"{found.name},sine@0.5,uniform@0.5"
        )
    return found


def parse_arm(name: str, registry: Registry) -> Arm:
    """One arm; a control without a word of its own has the match that its default options say.

    Raises:
        ConfigError: see :func:`parse_arms`.
    """
    from qsgd_core.training.optimizer import torch_optimizers  # brings torch along

    head, *tail = name.split(":")
    what, at, strength = head.partition("@")
    specs = {found.spec.name: found.spec for found in registry.perturbations()}
    optimizers = torch_optimizers()
    if what not in specs and what not in optimizers:
        raise _unknown(name, what, specs, optimizers)
    if what not in specs:
        if at or tail:
            raise ConfigError(
                f"Arm {name!r}: {what!r} is an optimizer, which has no λ and no options here. "
                f"Write {what!r} for a baseline; an arm with a term is a perturbation, such as "
                f"sine@0.5:optimizer={what}."
            )
        return Arm(what, settings={"optimizer": what})
    weight = _strength(name, what, at, strength, ":".join(["", *tail]))
    settings, options = _modifiers(name, tail, specs)
    control = not specs[what].uses_backend
    if "match" in options and not control:
        raise ConfigError(
            f"Arm {name!r}: {what!r} is no control, so there is nothing to match it to. "
            f"Write {what}@{strength}."
        )
    made = registry.make_perturbation(what, depth=int(settings.get("depth", 2)), options=options)
    match = made.match if isinstance(made, ClassicalPerturbation) else None
    if match is not None:
        match = name_of(match)
    return Arm(name, what, weight, settings, options, control=control, match=match)


def matching_arm(control: Arm, arms: Iterable[Arm]) -> Arm | None:
    """The quantum arm that a control stands beside: of its match, and the likest one in settings.

    Controls take a perturbation's default options only, so an arm with others is none.
    """
    candidates = [
        arm
        for arm in arms
        if arm.perturbation == control.match and not arm.control and not arm.options
    ]
    return max(candidates, key=lambda arm: _likeness(control, arm), default=None)


def _matched(arm: Arm, arms: Sequence[Arm]) -> Arm:
    """A control that names no match is matched to the likest quantum arm, where there is one."""
    if arm.match is None or "match" in arm.options:
        return arm
    quantum = [a for a in arms if a.perturbation is not None and not a.control and not a.options]
    likest = max(quantum, key=lambda a: _likeness(arm, a), default=None)
    if likest is None or likest.perturbation == arm.match:
        return arm
    return replace(
        arm, match=likest.perturbation, options=dict(arm.options) | {"match": likest.perturbation}
    )


def _likeness(control: Arm, arm: Arm) -> tuple[bool, int]:
    """Same settings count first, then the same λ; of equals :func:`max` takes the first."""
    same = sum(arm.settings.get(key) == value for key, value in control.settings.items())
    other = sum(key not in control.settings for key in arm.settings)
    return arm.quantum_weight == control.quantum_weight, same - other


def _strength(name: str, what: str, at: str, text: str, tail: str) -> float:
    if not at or not text:
        raise ConfigError(
            f"Arm {name!r} has no strength λ. Write {what}@0.5{tail}; the paper has 0.1 and 0.5."
        )
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ConfigError(
            f"Arm {name!r}: the strength λ must be a number above 0, not {text!r}. "
            f"Write {what}@0.5{tail}."
        )
    if value == 0:
        raise ConfigError(f"Arm {name!r} has λ = 0, which turns its term off. Write adamw.")
    return value


def _modifiers(
    name: str, tail: Sequence[str], specs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings and options that follow λ."""
    settings: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for i, part in enumerate(tail):
        key, equals, _ = part.partition("=")
        if equals and key == "backend":
            found: dict[str, Any] = {"backend": ":".join(tail[i:]).partition("=")[2]}
        elif equals:
            found = parse_options([part])
        elif part in WORDS:
            found = dict(WORDS[part])
        elif part in specs and specs[part].uses_backend:
            found = {"match": part}
        else:
            known = [*WORDS, *(n for n, spec in specs.items() if spec.uses_backend)]
            raise ConfigError(
                f"Arm {name!r}: {part!r} is not something an arm can have."
                f"{_did_you_mean(part, known)} There are {', '.join(WORDS)}, KEY=VALUE with "
                f"{', '.join(KEYS)} or an option of the perturbation, and for controls the name of "
                "the perturbation to match."
            )
        for key, value in found.items():
            into = settings if key in (*KEYS, "inject", "normalize") else options
            if into.get(key, value) != value:
                raise ConfigError(
                    f"Arm {name!r} says both {key}={into[key]} and {key}={value}. Leave one out."
                )
            into[key] = value
        if "backend" in found:
            break
    return settings, options


def _unknown(
    name: str, what: str, specs: Mapping[str, Any], optimizers: Mapping[str, Any]
) -> ConfigError:
    shown = "" if what == name else f" (in arm {name!r})"
    return ConfigError(
        f"There is no arm {what!r}{shown}: neither a perturbation nor an optimizer has that name."
        f"{_did_you_mean(what, [*specs, *optimizers])} Perturbations: {', '.join(sorted(specs))}; "
        "each takes a strength, as in sine@0.5. Optimizers: adamw and the others of torch.optim "
        "in lower case."
    )


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = nearest(word, known, 3)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def _frozen(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, repr(value)) for key, value in values.items()))
