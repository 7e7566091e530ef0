"""Conformance of a whole distribution: what it registers, and what it costs to have installed."""

from __future__ import annotations

import pkgutil
from importlib.metadata import requires
from typing import Any

import pytest
from pydantic import BaseModel

from qsgd_core.backend import Backend, Simulator
from qsgd_core.errors import ConfigError, QSGDError
from qsgd_core.installed import normalise
from qsgd_core.plugins.loading import Registered
from qsgd_core.plugins.naming import rule
from qsgd_core.plugins.registry import Registry, default_registry
from qsgd_core.specs import BackendSpec, PerturbationSpec, Spec
from qsgd_core.testing.guards import without_network
from qsgd_core.testing.measuring import assert_light
from qsgd_core.testing.standard import Standard


class ProviderConformance(Standard):
    """Tests of an installed distribution: give the fixture ``distribution``, its pip name."""

    GIVEN = frozenset({"distribution"})

    @pytest.fixture(scope="class")
    @classmethod
    def distribution(cls) -> str:
        """The distribution's name, as pip knows it."""
        raise NotImplementedError(
            "Define the fixture: "
            '@pytest.fixture(scope="class") @classmethod def distribution(cls): …'
        )

    @pytest.fixture(scope="class")
    @classmethod
    def registry(cls) -> Registry:
        """What is installed here."""
        return default_registry()

    @pytest.fixture(scope="class")
    @classmethod
    def registered(cls, registry: Registry, distribution: str) -> list[Registered[Any]]:
        """Every spec of the distribution."""
        name = normalise(distribution)
        return [r for r in registry.plugins.collect(Spec) if r.distribution == name]

    def test_its_plugin_loads(self, registry: Registry, distribution: str) -> None:
        """The plugin is found by its entry point and loads.

        If this fails: give pyproject.toml a line under ``[project.entry-points.qsgd]``, install
        again, and read what ``qsgd plugins`` says.
        """
        records = [r for r in registry.plugins.records if r.name == normalise(distribution)]
        assert records, f"no installed distribution {distribution} has an entry point 'qsgd'"
        for record in records:
            assert record.status == "loaded", f"{record.status}: {record.error}"

    def test_its_plugin_stays_light(self, distribution: str) -> None:
        """Listing it imports no torch and no SDK.

        If this fails: name code in specs by strings (``"package.module:Class"``), and import
        nothing but qsgd_core's hookspecs and specs in the plugin's module and its package's
        ``__init__``.
        """
        assert_light(normalise(distribution))

    def test_it_says_which_core_it_needs(self, distribution: str) -> None:
        """Its metadata require qsgd-core, so that pip keeps the two in step.

        If this fails: put ``"qsgd-core>=0.1,<0.2"`` under ``dependencies``.
        """
        if normalise(distribution) == "qsgd-core":
            pytest.skip("it is the core")
        needed = [normalise(line) for line in requires(distribution) or []]
        assert any(line.startswith("qsgd-core") for line in needed), "qsgd-core is not required"

    def test_everything_it_registers_says_what_it_is(
        self, registered: list[Registered[Any]]
    ) -> None:
        """Something is registered, and each spec has a summary for the listings.

        If this fails: implement a hook with ``@hookimpl``, and give each spec ``summary="…"``.
        """
        assert registered, "it registers nothing"
        for entry in registered:
            assert entry.spec.summary.strip(), f"{entry.spec} has no summary"

    def test_everything_it_names_can_be_imported(self, registered: list[Registered[Any]]) -> None:
        """Factories exist, and options are pydantic models.

        If this fails: correct the ``"package.module:Attribute"`` of the spec, and derive options
        from ``pydantic.BaseModel``.
        """
        for entry in registered:
            assert callable(pkgutil.resolve_name(entry.spec.factory)), entry.spec.factory
            reference = getattr(entry.spec, "options", None)
            if reference is not None:
                model = pkgutil.resolve_name(reference)
                assert isinstance(model, type), f"{reference} is not a class"
                assert issubclass(model, BaseModel), f"{reference} is no pydantic model"

    def test_no_other_provider_serves_its_names(
        self, registry: Registry, registered: list[Registered[Any]]
    ) -> None:
        """No name, pattern or prefix of any kind is another installed distribution's too.

        Whatever QSGD_PREFER says: it is set on this machine, and not on a user's.

        If this fails: two installed plugins claim the name; choose another, or a narrower pattern.
        """
        for entry in registered:
            for other in registry.plugins.collect(type(entry.spec)):
                if other.distribution == entry.distribution:
                    continue
                shared = _shared(entry.spec, other.spec) or _shared(other.spec, entry.spec)
                assert not shared, (
                    f"the {entry.spec.noun} {shared!r} is served by {other.distribution} too"
                )

    def test_what_it_names_can_be_made(
        self, registry: Registry, registered: list[Registered[Any]]
    ) -> None:
        """Simulators, backends and perturbations are made without options and without a network.

        If this fails: let the constructor only look at its arguments; a backend sees its service
        first in ``resolve()``. What cannot work here raises a ConfigError that says why.
        """
        with without_network():
            for entry in registered:
                for name in _names(entry.spec):
                    _assert_made(registry, entry.spec, name)
                if isinstance(entry.spec, PerturbationSpec):
                    registry.make_perturbation(entry.spec.name, depth=2)

    def test_an_unknown_option_is_refused(
        self, registry: Registry, registered: list[Registered[Any]]
    ) -> None:
        """An option that nobody knows is an error before anything runs.

        If this fails: set ``model_config = ConfigDict(extra="forbid")`` in the options model; only
        where options are handed on to others' code may it be ``"allow"``.
        """
        unknown = {"an_option_that_nobody_has": 1}
        for entry in registered:
            if _takes_anything(entry.spec):
                continue
            for name in _names(entry.spec):
                with pytest.raises(ConfigError):
                    registry.backend_options(name, unknown)
            if isinstance(entry.spec, PerturbationSpec):
                with pytest.raises(ConfigError):
                    registry.make_perturbation(entry.spec.name, depth=2, options=unknown)


def _names(spec: object) -> list[str]:
    """Backend names of a spec that stand for one thing, not a pattern."""
    if not isinstance(spec, BackendSpec):
        return []
    devices = [f"{spec.prefix}:{device}" for device in spec.devices]
    return [n for n in (*spec.names, *devices) if not set("*?[") & set(n)]


def _shared(one: Spec, other: Spec) -> str | None:
    """A name of ``one`` that ``other`` serves too."""
    if isinstance(one, BackendSpec) and isinstance(other, BackendSpec):
        if both := set(one.patterns) & set(other.patterns):
            return min(both)
        if one.prefix == other.prefix and one.devices and other.devices:
            return f"{one.prefix}:"
    names = _names(one) if isinstance(one, BackendSpec) else one.claims
    return next((name for name in names if rule(other, name) is not None), None)


def _takes_anything(spec: object) -> bool:
    reference = getattr(spec, "options", None)
    if reference is None:
        return False
    return bool(pkgutil.resolve_name(reference).model_config.get("extra") == "allow")


def _assert_made(registry: Registry, spec: BackendSpec, name: str) -> None:
    try:
        made = registry.make_backend(name)
    except ConfigError:
        return  # it says why it cannot work here
    except QSGDError as error:
        pytest.fail(f"{name}: {type(error).__name__}: {error}")
    assert isinstance(made, Simulator if spec.kind == "simulator" else Backend)
    assert made.name == name, f"asked for {name!r}, it calls itself {made.name!r}"
