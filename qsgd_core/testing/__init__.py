"""The conformance kit: one class per kind of thing that a provider can bring.

A provider's whole test file is one subclass and one fixture::

    import pytest
    from qsgd_core.testing import SimulatorConformance
    from my_package.simulator import MySimulator

    class TestMySimulator(SimulatorConformance):
        @pytest.fixture(scope="class")
        @classmethod
        def simulator(cls):
            return MySimulator("mine", None)

Declared capabilities decide what is tested: each is exercised, and what is not declared is skipped
with the reason. A standard test cannot be overridden; :mod:`qsgd_core.testing.standard` says how
to mark one as a known failure. ``qsgd conform NAME`` runs the same classes on anything installed.

Fixtures for tests of a provider's own, by ``pytest_plugins = ["qsgd_core.testing.fixtures"]`` in
its conftest.py: ``clean_plugins`` and ``no_network``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

_WITH_ASSERTIONS = (
    "agreement",
    "backend",
    "classical",
    "guards",
    "jobs",
    "measuring",
    "perturbation",
    "processes",
    "provider",
    "simulator",
)
# Before any of them is imported: failures then show both sides of an assertion.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _WITH_ASSERTIONS))

if TYPE_CHECKING:
    from qsgd_core.testing.backend import BackendConformance
    from qsgd_core.testing.classical import ClassicalPerturbationConformance
    from qsgd_core.testing.perturbation import PerturbationConformance
    from qsgd_core.testing.provider import ProviderConformance
    from qsgd_core.testing.simulator import SimulatorConformance

_LAZY = {
    "BackendConformance": "backend",
    "ClassicalPerturbationConformance": "classical",
    "PerturbationConformance": "perturbation",
    "ProviderConformance": "provider",
    "SimulatorConformance": "simulator",
}

__all__ = [
    "BackendConformance",
    "ClassicalPerturbationConformance",
    "PerturbationConformance",
    "ProviderConformance",
    "SimulatorConformance",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
