"""Name -> spec -> object: everything a run can be told to use, found by name.

Looking up and listing import neither torch nor an SDK; only :meth:`Registry.make_backend` and its
like import the one factory that was named.
"""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from qsgd_core.backend import Backend, Simulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.errors import ConfigError, PluginHookError, PluginLoadError, QSGDError
from qsgd_core.isolate import blame, describe, name_of
from qsgd_core.perturbation import ClassicalPerturbation, Perturbation
from qsgd_core.plugins.hints import unserved
from qsgd_core.plugins.loading import Plugins, Registered, load_plugins
from qsgd_core.plugins.naming import OBJECT, choose_backend, choose_named
from qsgd_core.plugins.options import check_options, parse_options
from qsgd_core.policy import Policy
from qsgd_core.settings import Settings, load_settings
from qsgd_core.specs import (
    BackendSpec,
    CommandSpec,
    ObserverSpec,
    PerturbationSpec,
    PolicySpec,
    ReportSpec,
    Spec,
    TaskSpec,
)
from qsgd_core.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qsgd_core.events import Observer

__all__ = ["Registry", "default_registry", "forget_registries", "parse_options"]

S = TypeVar("S", bound=Spec)


class Registry:
    """What the installed plugins offer, under one set of settings.

    Attributes:
        settings: decide which plugins are loaded and which distribution is preferred.
        plugins: what was loaded, and what failed and why.
    """

    def __init__(self, settings: Settings, plugins: Plugins | None = None) -> None:
        self.settings = settings
        self.plugins = load_plugins(settings) if plugins is None else plugins

    def backends(self) -> list[Registered[BackendSpec]]:
        """Every family of simulators and backends, the core's first."""
        return self.plugins.collect(BackendSpec)

    def perturbations(self) -> list[Registered[PerturbationSpec]]:
        """Every perturbation, the core's first."""
        return self.plugins.collect(PerturbationSpec)

    def policies(self) -> list[Registered[PolicySpec]]:
        """Every refresh policy, the core's first."""
        return self.plugins.collect(PolicySpec)

    def observers(self) -> list[Registered[ObserverSpec]]:
        """Every observer, the core's first."""
        return self.plugins.collect(ObserverSpec)

    def tasks(self) -> list[Registered[TaskSpec]]:
        """Every task, the core's first."""
        return self.plugins.collect(TaskSpec)

    def commands(self) -> list[Registered[CommandSpec]]:
        """Every further subcommand of ``qsgd``."""
        return self.plugins.collect(CommandSpec)

    def reports(self) -> list[Registered[ReportSpec]]:
        """Every kind of folder that a plugin can report on."""
        return self.plugins.collect(ReportSpec)

    def resolve_backend(self, asked: str | Simulator | Backend) -> Registered[BackendSpec]:
        """Which spec serves a name; imports nothing. Rules: :mod:`.naming`.

        Args:
            asked: a name; an object stands for itself, and its spec is made up.

        Raises:
            UnknownBackendError: no loaded plugin serves it.
            AmbiguousBackendError: several distributions serve it and none is preferred.
            DuplicateNameError: several distributions claim its prefix and none is preferred.
            PluginError: the plugin that would have served it failed; the real cause is chained.
        """
        if not isinstance(asked, str):
            return _own_backend(asked)
        backends = self.backends()
        choice = choose_backend(asked, backends, self.settings.prefer)
        if choice is None:
            raise unserved(BackendSpec, asked, (r.spec for r in backends), self.plugins)
        return choice

    def make_backend(
        self, asked: str | Simulator | Backend, options: Mapping[str, Any] | None = None
    ) -> Simulator | Backend:
        """The simulator or backend that was asked for.

        Args:
            asked: full name, e.g. ``exact`` or ``aer:statevector``; or the object itself.
            options: vendor options; those of the environment are the caller's to hand over.

        Raises:
            ConfigError: see :meth:`resolve_backend`, or options that do not validate.
            PluginLoadError: what the factory needs is not installed.
            PluginHookError: the factory raised, or returned something else than it should.
        """
        what = f"Backend {name_of(asked)!r}"
        if not isinstance(asked, str):
            _no_options(what, options)
            return _with_capabilities(asked, what)
        chosen = self.resolve_backend(asked)
        checked = self._options(chosen, what, options)
        kind = Simulator if chosen.spec.kind == "simulator" else Backend
        built: Simulator | Backend = self._build(chosen, what, kind, asked, checked)
        return _with_capabilities(built, f"{what} of {chosen.distribution}")

    def make_perturbation(
        self,
        asked: str | Perturbation | ClassicalPerturbation,
        *,
        depth: int,
        options: Mapping[str, Any] | None = None,
    ) -> Perturbation | ClassicalPerturbation:
        """The perturbation that was asked for.

        Args:
            asked: its name, or the object itself, which has depth and options in itself.
            depth: layers of its circuits.
            options: its options.

        Raises:
            ConfigError: unknown or claimed twice, options that do not validate, or a depth that
                the perturbation refuses.
            PluginLoadError: what the factory needs is not installed.
            PluginHookError: the factory raised, or returned something else than it should.
        """
        what = f"Perturbation {name_of(asked)!r}"
        if not isinstance(asked, str):
            _no_options(what, options)
            return asked
        chosen = self._named(PerturbationSpec, asked)
        checked = self._options(chosen, what, options)
        kind = Perturbation if chosen.spec.uses_backend else ClassicalPerturbation
        built: Perturbation | ClassicalPerturbation = self._build(
            chosen, what, kind, depth, checked
        )
        return built

    def provider_of(self, asked: str | Perturbation | ClassicalPerturbation) -> str:
        """Who serves a perturbation, with the version, for messages."""
        if not isinstance(asked, str):
            return OBJECT
        chosen = self._named(PerturbationSpec, asked)
        return f"{chosen.distribution} {chosen.version}"

    def make_task(self, name: str) -> Task:
        """The task called ``name``. Raises as :meth:`make_perturbation` does."""
        chosen = self._named(TaskSpec, name)
        task: Task = self._build(chosen, f"Task {name!r}", Task)
        return task

    def make_observer(self, name: str, run_dir: Path | None) -> Observer:
        """The observer called ``name``. Raises as :meth:`make_perturbation` does.

        Args:
            name: as registered.
            run_dir: folder it may write to; None when there is no run folder.
        """
        chosen = self._named(ObserverSpec, name)
        observer: Observer = self._build(chosen, f"Observer {name!r}", object, run_dir)
        if not callable(observer):
            raise PluginHookError(
                f"Observer {name!r}: {chosen.spec.factory} of {chosen.distribution} returned "
                f"{observer!r}, which cannot be called with an event."
            )
        return observer

    def make_policy(self, asked: str | Policy, options: Mapping[str, Any] | None = None) -> Policy:
        """The refresh policy of this name, or itself. Raises as :meth:`make_perturbation` does."""
        what = f"Policy {name_of(asked)!r}"
        if not isinstance(asked, str):
            _no_options(what, options)
            return asked
        chosen = self._named(PolicySpec, asked)
        checked = self._options(chosen, what, options)
        policy: Policy = self._build(chosen, what, Policy, checked)
        return policy

    def make_report(self, kind: str, folder: Path, form: str) -> str:
        """What a plugin says of a folder. Raises as :meth:`make_perturbation` does.

        Args:
            kind: of the folder, as registered.
            folder: the folder.
            form: ``text``, ``json``, ``markdown`` or ``html``.
        """
        chosen = self._named(ReportSpec, kind)
        text: str = self._build(chosen, f"Report {kind!r}", str, folder, form)
        return text

    def make_observers(
        self, asked: Sequence[str | Observer] | None, run_dir: Path | None
    ) -> list[Observer]:
        """Observers by name or as they are; None stands for those that QSGD_OBSERVERS names.

        Raises:
            ConfigError: one of them in place of a list.
        """
        if isinstance(asked, str) or callable(asked):
            raise ConfigError(
                f"observers must be a list of names or functions: observers=[{asked!r}]."
            )
        named = self.settings.observers if asked is None else asked
        return [o if callable(o) else self.make_observer(o, run_dir) for o in named]

    def _named(self, kind: type[S], name: str) -> Registered[S]:
        registered = self.plugins.collect(kind)
        found = choose_named(kind.noun, name, registered, self.settings.prefer)
        if found is None:
            raise unserved(kind, name, (r.spec for r in registered), self.plugins)
        return found

    def backend_options(
        self, name: str, options: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Vendor options, validated, as plain JSON values; imports no SDK.

        Raises:
            ConfigError: see :meth:`resolve_backend`, or options that do not validate.
        """
        checked = self._options(self.resolve_backend(name), f"Backend {name!r}", options)
        return {} if checked is None else checked.model_dump(mode="json", exclude_unset=True)

    def _options(
        self,
        chosen: Registered[BackendSpec] | Registered[PerturbationSpec] | Registered[PolicySpec],
        what: str,
        given: Mapping[str, Any] | None,
    ) -> BaseModel | None:
        reference = chosen.spec.options
        model = None if reference is None else _import(chosen, what, reference)
        if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise PluginHookError(
                f"{what}: {reference} of {chosen.distribution} {chosen.version} is not a pydantic "
                "model. Derive it from pydantic.BaseModel."
            )
        return check_options(what, model, given)

    def _build(self, chosen: Registered[Any], what: str, kind: type[Any], *args: object) -> Any:
        """Import the factory, call it, and see that it returned a ``kind``."""
        reference = chosen.spec.factory
        factory = _import(chosen, what, reference)
        failed = f"{what}: {reference} of {chosen.distribution} {chosen.version} failed"
        with blame(PluginHookError, failed, passing=(QSGDError,)):
            try:
                built = factory(*args)
            except ImportError as error:
                raise _not_installed(chosen, what, reference, error) from error
        if not isinstance(built, kind):
            raise PluginHookError(
                f"{what}: {reference} of {chosen.distribution} {chosen.version} returned "
                f"{type(built).__qualname__}, and the spec promises a {kind.__name__}."
            )
        return built


def _own_backend(asked: Simulator | Backend) -> Registered[BackendSpec]:
    """The spec of an object, as if somebody had registered it."""
    has = getattr(asked, "capabilities", None)
    spec = BackendSpec(
        prefix=name_of(asked),
        kind="simulator" if isinstance(asked, Simulator) else "backend",
        factory=name_of(asked),
        paid=bool(getattr(has, "paid", False)),
    )
    return Registered(spec, OBJECT, "")


def _no_options(what: str, given: Mapping[str, Any] | None) -> None:
    if given:
        raise ConfigError(
            f"{what} is an object and has its options in itself; found {', '.join(given)}. "
            "Give them to its constructor."
        )


def _with_capabilities(built: Simulator | Backend, what: str) -> Simulator | Backend:
    if not isinstance(getattr(built, "capabilities", None), Capabilities):
        raise PluginHookError(
            f"{what} has no capabilities. Set self.capabilities = Capabilities(...) in its "
            "constructor."
        )
    return built


def _import(chosen: Registered[Any], what: str, reference: str) -> Any:
    """What ``"package.module:Attribute"`` names.

    Raises:
        PluginLoadError: the import failed, with the line that installs what is missing.
    """
    failed = f"{what}: {reference} of {chosen.distribution} {chosen.version} cannot be imported"
    with blame(PluginLoadError, failed, passing=(PluginLoadError,)):
        try:
            return pkgutil.resolve_name(reference)
        except ImportError as error:
            raise _not_installed(chosen, what, reference, error) from error


def _not_installed(
    chosen: Registered[Any], what: str, reference: str, error: ImportError
) -> PluginLoadError:
    return PluginLoadError(
        f"{what}: {reference} of {chosen.distribution} {chosen.version} cannot be imported: "
        f"{describe(error)}. Install what it needs: pip install --upgrade {chosen.distribution}"
    )


_registries: dict[str, Registry] = {}


def default_registry(settings: Settings | None = None) -> Registry:
    """The registry of ``settings``, those of the environment by default.

    Plugins are loaded once per process and value of the settings.
    """
    settings = settings or load_settings()
    key = settings.model_dump_json()
    if key not in _registries:
        _registries[key] = Registry(settings)
    return _registries[key]


def forget_registries() -> None:
    """Let :func:`default_registry` load plugins anew: after an install, or between tests."""
    _registries.clear()
