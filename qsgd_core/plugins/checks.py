"""Whether what a plugin hands over keeps the contract: its hooks, its specs, its names.

Each function raises with one sentence that says what was found and what to do.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pluggy
from pydantic import TypeAdapter, ValidationError

from qsgd_core.errors import PluginApiError, PluginHookError, nearest
from qsgd_core.hookspecs import HOOK_API, PerturbationProvider
from qsgd_core.specs import BackendSpec, Spec

if TYPE_CHECKING:
    from collections.abc import Iterable

HOOKS: dict[str, type[Spec]] = {kind.hook: kind for kind in Spec.__subclasses__()}
"""Hook name -> what it registers."""

_ADAPTERS: dict[type[Spec], TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in HOOKS.values()}


def check_api(plugin: object, module: str) -> None:
    """Raise PluginApiError if the plugin states a newer hook API, or is a class."""
    if inspect.isclass(plugin):
        raise PluginApiError(
            f"{module} is a class. Let the entry point name a module or an instance, such as "
            f"provider = {plugin.__name__}()."
        )
    needs = getattr(plugin, "QSGD_HOOK_API", HOOK_API)
    if not isinstance(needs, int):
        raise PluginApiError(f"QSGD_HOOK_API of {module} is {needs!r}. Give an integer.")
    if needs > HOOK_API:
        raise PluginApiError(
            f"{module} needs hook API {needs}, and this qsgd-core has {HOOK_API}. Upgrade with "
            "pip install --upgrade qsgd-core, or install an older version of the plugin."
        )


def check_hooks(manager: pluggy.PluginManager, plugin: object, module: str) -> tuple[str, ...]:
    """The hooks that the registered ``plugin`` implements.

    Raises:
        PluginApiError: one that does not exist and is not marked optional, or a function that has
            a hook's name and no ``@hookimpl``: pluggy passes over it, and its author looks long.
    """
    callers = manager.get_hookcallers(plugin) or []
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        unknown = next(caller.name for caller in callers if not caller.has_spec())
        close = nearest(unknown, HOOKS)
        meant = f"Did you mean {close[0]}?" if close else f"The hooks are {', '.join(HOOKS)}."
        raise PluginApiError(
            f"{module} implements {unknown}, which is not a hook of API {HOOK_API}. {meant}"
        ) from error
    implemented = {caller.name for caller in callers}
    for name in HOOKS:
        own = getattr(type(plugin), name, None)
        derived = own is not None and own is getattr(PerturbationProvider, name)
        if hasattr(plugin, name) and name not in implemented and not derived:
            raise PluginApiError(
                f"{name} of {module} is not marked as a hook. Put @hookimpl above it "
                "(from qsgd_core.hookspecs import hookimpl)."
            )
    return tuple(name for name in HOOKS if name in implemented)


def check_spec(value: object, kind: type[Spec]) -> Spec:
    """``value`` as a sound ``kind``: fields of the declared types, lists made tuples.

    Raises:
        TypeError: it is something else.
        ValueError: a field has a value of the wrong form.
    """
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, found {value!r}")
    try:
        spec: Spec = _ADAPTERS[kind].validate_python(
            {f.name: getattr(value, f.name) for f in fields(kind)}  # type: ignore[arg-type]
        )
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{kind.__name__}.{field}={first['input']!r}: {first['msg']}") from None
    for reference in (spec.factory, getattr(spec, "options", None)):
        if reference is not None and not re.fullmatch(r"[\w.]+:[\w.]+", reference):
            raise ValueError(f"{reference!r} does not have the form 'package.module:Attribute'")
    for name in spec.claims:
        if name.split() != [name]:
            raise ValueError(f"{name!r} cannot be a name: it is empty or has blanks in it")
    if isinstance(spec, BackendSpec):
        _check_backend(spec)
    return spec


def _check_backend(spec: BackendSpec) -> None:
    if ":" in spec.prefix:
        raise ValueError(f"the prefix {spec.prefix!r} must not have a colon in it")
    if not (spec.names or spec.patterns or spec.devices):
        raise ValueError(f"the spec with prefix {spec.prefix!r} has no names, patterns or devices")


def check_claims(distribution: str, specs: Iterable[Spec], core: Iterable[Spec]) -> None:
    """Raise PluginHookError if ``specs`` claim what the core registered as the same kind.

    A pattern that covers a core name claims it, and so does ``prefix:…`` under a core prefix.
    """
    owned = [(type(mine), name) for mine in core for name in mine.claims]
    for spec in specs:
        for claim in spec.claims:
            for kind, name in owned:
                covers = fnmatchcase(name, claim) or claim.startswith(f"{name}:")
                if kind is type(spec) and covers:
                    raise PluginHookError(
                        f"{distribution} claims {claim!r}, and {name!r} belongs to qsgd-core: "
                        "installing a plugin must not change what a run does. Choose another name "
                        "or a narrower pattern."
                    )
