"""Every test starts from the same environment, and skips are counted where they are seen."""

from __future__ import annotations

import importlib.metadata
import os
import sys

import pytest


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No QSGD_* variable, no plugin loaded by an earlier test, one torch thread."""
    for name in [name for name in os.environ if name.startswith("QSGD_")]:
        monkeypatch.delenv(name)
    if registry := sys.modules.get("qsgd_core.registry"):
        registry.forget_registries()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


OWN_PLUGINS = {f"qsgd-{p}" for p in ("controls", "lab", "aer", "pennylane", "ibm", "braket")}


@pytest.fixture
def own_plugins_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process the repository's own plugins have no entry points."""
    found = importlib.metadata.entry_points

    def without(**kwargs: str) -> list[importlib.metadata.EntryPoint]:
        return [p for p in found(**kwargs) if p.dist is None or p.dist.name not in OWN_PLUGINS]

    monkeypatch.setattr("qsgd_core.plugins.entry_points", without)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the skips: a test that runs nowhere would otherwise look like one that passes."""
    skipped = terminalreporter.stats.get("skipped", [])
    terminalreporter.write_line(f"skipped tests: {len(skipped)}")
