"""Fixtures for a provider's own tests: ``pytest_plugins = ["qsgd_core.testing.fixtures"]``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qsgd_core.plugins.registry import forget_registries
from qsgd_core.settings import Settings
from qsgd_core.testing.guards import without_network


@pytest.fixture
def clean_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No ``QSGD_*`` setting of the caller's, and plugins loaded anew before and after the test."""
    for field in Settings.model_fields:
        monkeypatch.delenv(f"QSGD_{field.upper()}", raising=False)
    forget_registries()
    yield
    forget_registries()


@pytest.fixture
def no_network() -> Iterator[None]:
    """Every connection that the test tries to open is refused."""
    with without_network():
        yield
