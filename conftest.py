"""For every distribution's tests: one environment, no deadlines, and skips that are counted."""

from __future__ import annotations

import gc
import os
import sys

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# In tests/services.
pytest.register_assert_rewrite("kills", "paid_service", "simulator_suite")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No QSGD_* variable, no plugin loaded by an earlier test, one torch thread."""
    for name in [name for name in os.environ if name.startswith("QSGD_")]:
        monkeypatch.delenv(name)
    if registry := sys.modules.get("qsgd_core.plugins.registry"):
        registry.forget_registries()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a suite that several classes inherit, a class may leave some tests to the long runs.

    They are a second way through the same code: another class does them for every push.
    """
    for item in items:
        if isinstance(item, pytest.Function) and item.originalname in getattr(item.cls, "LONG", ()):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """What collecting has imported stays, and need not be searched for garbage again and again.

    That was a quarter of the time: libraries, such as transformers after each training, collect
    garbage themselves, among the objects of every SDK.
    """
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the skips: a test that runs nowhere would otherwise look like one that passes."""
    skipped = terminalreporter.stats.get("skipped", [])
    terminalreporter.write_line(f"skipped tests: {len(skipped)}")
