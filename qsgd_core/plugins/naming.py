"""From a name that somebody typed to the one spec that serves it.

The order of the rules (whole name, then pattern, then ``prefix:device``) chooses among the specs
of *one* distribution. Between distributions there is no order: if two serve a name, by whatever
rule, it is a tie, and only ``QSGD_PREFER`` breaks it. Otherwise installing a plugin with
``names=("ibm_fez",)`` would silently take ``ibm_fez`` from the provider whose pattern is
``ibm_*``. The core's names never tie: a plugin that claims one is refused on loading.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeVar

from qsgd_core.errors import AmbiguousBackendError, DuplicateNameError
from qsgd_core.installed import normalise
from qsgd_core.specs import BackendSpec, Spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qsgd_core.plugins.loading import Registered

S = TypeVar("S", bound=Spec)

WHOLE, PATTERN, PREFIX = range(3)


OBJECT = "an object of this program"
"""Stands for the distribution of what was handed over itself and not by name."""


def rule(spec: Spec, name: str) -> int | None:
    """By which rule ``spec`` serves ``name``: WHOLE, PATTERN or PREFIX; None if it does not."""
    if not isinstance(spec, BackendSpec):
        return WHOLE if name in spec.claims else None
    if name in spec.names:
        return WHOLE
    if any(fnmatchcase(name, pattern) for pattern in spec.patterns):
        return PATTERN
    prefix, colon, device = name.partition(":")
    if colon and prefix == spec.prefix and any(fnmatchcase(device, d) for d in spec.devices):
        return PREFIX
    return None


def choose_backend(
    name: str, registered: Sequence[Registered[BackendSpec]], prefer: Iterable[str]
) -> Registered[BackendSpec] | None:
    """The backend spec that serves ``name``, or None if there is none.

    Raises:
        AmbiguousBackendError: several distributions serve it and none is preferred.
        DuplicateNameError: several distributions claim its prefix and none is preferred.
    """
    best = _best(name, registered)
    if not best:
        return None
    by_prefix = all(rule(r.spec, name) == PREFIX for r in best.values())
    rivals = set(best) | (_claimants(name, registered) if by_prefix else set())
    preferred = [dist for dist in map(normalise, prefer) if dist in best]
    if len(rivals) > 1 and not preferred:
        how = _how_to_prefer(rivals, prefer)
        if by_prefix:
            raise DuplicateNameError(
                f"The prefix of {name!r} is claimed by {_listed(rivals)}. {how}"
            )
        pastes = [p for r in best.values() if (p := _unambiguous(name, r, registered))]
        paste = f" Or name one of {_listed(pastes)}." if pastes else ""
        raise AmbiguousBackendError(
            f"Backend {name!r} is served by {_listed(rivals)}. {how}{paste}"
        )
    return best[preferred[0]] if preferred else next(iter(best.values()))


def choose_named(
    what: str, name: str, registered: Iterable[Registered[S]], prefer: Iterable[str]
) -> Registered[S] | None:
    """The perturbation, task, policy or observer of this exact name, or None.

    Raises:
        DuplicateNameError: it is registered more than once and no distribution is preferred.
    """
    found = [r for r in registered if rule(r.spec, name) == WHOLE]
    for wanted in map(normalise, prefer):
        if mine := [r for r in found if r.distribution == wanted]:
            found = mine
            break
    if len(found) > 1:
        rivals = [r.distribution for r in found]
        raise DuplicateNameError(
            f"The {what} {name!r} is registered by {_listed(rivals)}. "
            f"{_how_to_prefer(rivals, prefer)}"
        )
    return found[0] if found else None


def _best(
    name: str, registered: Iterable[Registered[BackendSpec]]
) -> dict[str, Registered[BackendSpec]]:
    """Per distribution, its spec that serves ``name`` by the first rule."""
    best: dict[str, tuple[int, Registered[BackendSpec]]] = {}
    for r in registered:
        by = rule(r.spec, name)
        if by is not None and (r.distribution not in best or by < best[r.distribution][0]):
            best[r.distribution] = (by, r)
    return {distribution: r for distribution, (_, r) in best.items()}


def _claimants(name: str, registered: Iterable[Registered[BackendSpec]]) -> set[str]:
    """Distributions that serve any device under the prefix of ``name``."""
    prefix = name.partition(":")[0]
    return {r.distribution for r in registered if r.spec.prefix == prefix and r.spec.devices}


def _unambiguous(
    name: str, wanted: Registered[BackendSpec], registered: Sequence[Registered[BackendSpec]]
) -> str | None:
    """``prefix:name``, if it means ``wanted``'s distribution and no other."""
    full = f"{wanted.spec.prefix}:{name}"
    alone = set(_best(full, registered)) | _claimants(full, registered) == {wanted.distribution}
    return full if alone and _best(full, registered) else None


def _how_to_prefer(rivals: Iterable[str], prefer: Iterable[str]) -> str:
    names = sorted(set(rivals))
    if len(names) == 1:
        return f"That is an error in {names[0]}; QSGD_DISABLED_PLUGINS={names[0]} turns it off."
    said = ",".join(prefer)
    found = f" (QSGD_PREFER={said} names none of them)" if said else ""
    return f"Say which one you mean with QSGD_PREFER={names[0]}, or uninstall one{found}."


def _listed(names: Iterable[str]) -> str:
    return " and ".join(sorted(set(names)))
