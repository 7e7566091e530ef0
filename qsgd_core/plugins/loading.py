"""Find, load and isolate plugins: one ``try`` per plugin, and every failure kept.

Installing a plugin never changes what a run does, so loading lets no plugin reach another:

* A plugin is known by its distribution, never by its entry-point name: two distributions may use
  the same one, and pluggy's ``load_setuptools_entrypoints`` would drop the second silently and
  let the first that fails abort the host. Hence the loop here.
* Each plugin has a pluggy manager of its own, so that a wrapper, an unknown hook or one object
  registered by two distributions stays that plugin's business.
* A plugin is in as a whole or not at all: all its hooks are called at once, and the first that
  fails takes the plugin out. The records are final when :func:`load_plugins` returns.
* What the core registers is the core's: a plugin that claims one of its names is refused, so
  ``exact`` means the same on every machine. ``QSGD_PREFER`` does not change that.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

import pluggy

from qsgd_core.errors import (
    ConfigError,
    PluginApiError,
    PluginError,
    PluginHookError,
    PluginLoadError,
)
from qsgd_core.hookspecs import HOOK_API, PROJECT, PerturbationProvider
from qsgd_core.installed import (
    entry_points,
    name_of,
    normalise,
    unreadable,
    version,
    version_of,
)
from qsgd_core.isolate import blame
from qsgd_core.plugins.checks import HOOKS, check_api, check_claims, check_hooks, check_spec
from qsgd_core.specs import Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from qsgd_core.settings import Settings

CORE = "qsgd-core"
"""Distribution of the built-in provider, which can be neither blocked nor outbid."""

Status: TypeAlias = Literal["loaded", "failed", "disabled", "not allowed"]
S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class Registered(Generic[S]):
    """A spec and the distribution it came from."""

    spec: S
    distribution: str
    version: str


@dataclass(frozen=True)
class PluginRecord:
    """What became of one plugin.

    Attributes:
        name: its distribution, normalised; ``qsgd-core`` for the built-in provider.
        version: the distribution's version; empty when it is not installed.
        entry_point: the entry point's name; empty when there is none.
        module: what the entry point names.
        status: ``failed`` covers import, hook version and hooks.
        error: one paragraph with the real cause, when it failed.
        hooks: the hooks it implements, when it was loaded.
    """

    name: str
    version: str
    entry_point: str
    module: str
    status: Status
    error: str | None = None
    hooks: tuple[str, ...] = ()


@dataclass(frozen=True)
class PluginFailure:
    """A plugin that failed: its record, the exception, and the specs it gave before."""

    record: PluginRecord
    error: PluginError
    declared: tuple[Spec, ...] = ()


class Plugins:
    """The outcome of :func:`load_plugins`.

    Attributes:
        records: one per plugin, the core first, then by distribution.
        failures: those whose status is ``failed``, with their exceptions.
    """

    def __init__(self) -> None:
        self.records: list[PluginRecord] = []
        self.failures: list[PluginFailure] = []
        self._registered: list[Registered[Any]] = []

    def collect(self, kind: type[S]) -> list[Registered[S]]:
        """What the loaded plugins registered of this kind, the core's first."""
        return [r for r in self._registered if isinstance(r.spec, kind)]

    def _accept(self, source: _Source, given: _Given) -> None:
        self._registered += [Registered(spec, source.name, source.version) for spec in given.specs]
        self.records.append(source.record("loaded", hooks=given.hooks))

    def _refuse(self, source: _Source, error: PluginError, given: _Given) -> None:
        record = source.record("failed", error=str(error))
        self.records.append(record)
        self.failures.append(PluginFailure(record, error, tuple(given.specs)))


class _Source:
    """A plugin that was found and not loaded yet."""

    def __init__(
        self, name: str, version: str, load: Callable[[], object], *, point: str = "", module: str
    ) -> None:
        self.name = normalise(name)
        self.version = version
        self.load = load
        self.point = point
        self.module = module

    def record(
        self, status: Status, *, error: str | None = None, hooks: tuple[str, ...] = ()
    ) -> PluginRecord:
        return PluginRecord(self.name, self.version, self.point, self.module, status, error, hooks)


class _Given:
    """What a plugin has given so far: kept when it fails half-way."""

    def __init__(self) -> None:
        self.hooks: tuple[str, ...] = ()
        self.specs: list[Spec] = []


def load_plugins(settings: Settings, *, extra: Iterable[tuple[str, str, object]] = ()) -> Plugins:
    """Load the built-in provider and every plugin that the settings allow.

    Args:
        settings: ``load_plugins`` (allow-list), ``disabled_plugins`` and ``strict_plugins``.
        extra: providers in memory as (distribution, version, object). They go through the same
            hooks and checks; they need no place on the allow-list, since the caller named them.

    Raises:
        ConfigError: the settings block the built-in provider.
        PluginError: with ``strict_plugins``, the first plugin that failed, its cause chained.
    """
    disabled = {normalise(name) for name in settings.disabled_plugins}
    if CORE in disabled:
        raise ConfigError(
            f"QSGD_DISABLED_PLUGINS names {CORE}, which provides the default backend and "
            f"perturbation and cannot be disabled. Take {CORE} off the list."
        )
    found = _installed()
    missing: list[_Source] = []
    allowed = {source.name for source in found}
    if settings.load_plugins is not None:
        allowed = {normalise(name) for name in settings.load_plugins} - {CORE}
        missing = [_missing(name) for name in allowed - {source.name for source in found}]
    named = [_in_memory(*given) for given in extra]

    plugins = Plugins()
    _load_core(plugins, settings)
    for source in sorted(found + missing + named, key=lambda s: (s.name, s.point)):
        if source.name in disabled:
            plugins.records.append(source.record("disabled"))
        elif source.name not in allowed and source not in named:
            plugins.records.append(source.record("not allowed"))
        else:
            _load_third_party(plugins, source, settings)
    if settings.strict_plugins and plugins.failures:
        raise _strict(plugins.failures) from plugins.failures[0].error
    return plugins


def _installed() -> list[_Source]:
    """Every entry point of the group, and what would have some if it could be read."""
    sources = []
    for point in entry_points(group=PROJECT):
        dist = point.dist
        name, vers = (name_of(dist), version_of(dist)) if dist else (point.name, "")
        load = partial(_loaded, point)
        sources.append(_Source(name, vers, load, point=point.name, module=point.value))
    ours = (each for each in unreadable() if f"[{PROJECT}]" in (each.points or ""))
    return sources + [_unreadable(each.name, each.problem) for each in ours]


def _loaded(point: EntryPoint) -> object:
    if EntryPoint.pattern.match(point.value) is None:
        raise PluginLoadError(
            f"Its entry point {point.name!r} says {point.value!r}, which is no module:object, such "
            f"as qsgd_{point.name}.plugin. Install it anew, or tell its author."
        )
    return point.load()


def _unreadable(name: str, problem: str) -> _Source:
    def load() -> object:
        raise PluginLoadError(f"It cannot be found out what {name} registers: {problem}")

    return _Source(name, "", load, module="")


def _in_memory(name: str, vers: str, plugin: object) -> _Source:
    module = getattr(plugin, "__name__", None) or type(plugin).__qualname__
    return _Source(name, vers, lambda: plugin, module=str(module))


def _missing(name: str) -> _Source:
    def load() -> object:
        raise PluginLoadError(
            f"QSGD_LOAD_PLUGINS names {name}, and no installed distribution of that name has an "
            f"entry point in the group {PROJECT!r}. Install it with pip install {name}, or take "
            "it off the list."
        )

    return _Source(name, "", load, module="")


def _load_core(plugins: Plugins, settings: Settings) -> None:
    """Register the built-in provider. Nothing is caught: if it fails, QSGD itself is broken."""
    module = "qsgd_core.builtin.plugin"
    vers = version(CORE) or "0+unknown"  # a checkout on sys.path that was never installed
    source = _Source(CORE, vers, lambda: importlib.import_module(module), module=module)
    given = _Given()
    _load(source, settings, given)
    plugins._accept(source, given)


def _load_third_party(plugins: Plugins, source: _Source, settings: Settings) -> None:
    given = _Given()
    try:
        if source.name == CORE:
            raise PluginApiError(
                f"{source.module} says that it belongs to {CORE}, whose provider is built in. "
                "Rename the distribution."
            )
        _load(source, settings, given)
        core = [r.spec for r in plugins.collect(Spec) if r.distribution == CORE]
        check_claims(source.name, given.specs, core)
    except PluginError as error:
        plugins._refuse(source, error, given)
    else:
        plugins._accept(source, given)


def _load(source: _Source, settings: Settings, given: _Given) -> None:
    """Import, register, check and call one plugin; what it gives is put into ``given``.

    Raises:
        PluginLoadError: the import failed.
        PluginApiError: it needs another version of the hooks, or its hooks do not fit them.
        PluginHookError: a hook raised, or gave something that is not the right spec.
    """
    module = source.module
    with blame(PluginLoadError, f"{module} could not be imported", passing=(PluginLoadError,)):
        plugin = source.load()
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(PerturbationProvider)
    fit = f"{module} does not fit hook API {HOOK_API}"
    with blame(PluginApiError, fit, passing=(PluginApiError,)):
        check_api(plugin, module)
        manager.register(plugin, source.name)
        given.hooks = check_hooks(manager, plugin, module)
    for hook in given.hooks:
        with blame(PluginHookError, f"{hook} of {module} failed"):
            for value in _call(manager, hook, settings):
                given.specs.append(check_spec(value, HOOKS[hook]))


def _call(manager: pluggy.PluginManager, hook: str, settings: Settings) -> Iterator[object]:
    """What the plugin yields for one hook (pluggy gives one iterable per implementation)."""
    for values in getattr(manager.hook, hook)(settings=settings):
        if isinstance(values, HOOKS[hook]):
            raise TypeError("a hook returns a list of specs or yields them; found a single spec")
        yield from values


def _strict(failures: list[PluginFailure]) -> PluginError:
    reasons = " ".join(f"{f.record.name}: {f.error}" for f in failures)
    names = ",".join(dict.fromkeys(f.record.name for f in failures))
    return type(failures[0].error)(
        f"QSGD_STRICT_PLUGINS is set, and {len(failures)} plugin(s) failed. {reasons} "
        f"Repair or uninstall them, or set QSGD_DISABLED_PLUGINS={names}."
    )
