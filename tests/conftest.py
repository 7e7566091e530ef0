"""Every test starts from the same environment, and skips are counted where they are seen."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.register_assert_rewrite("kills")  # tests/services/kills.py


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No QSGD_* variable, no plugin loaded by an earlier test, one torch thread."""
    for name in [name for name in os.environ if name.startswith("QSGD_")]:
        monkeypatch.delenv(name)
    if registry := sys.modules.get("qsgd_core.registry"):
        registry.forget_registries()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


OWN_PLUGINS = {
    f"qsgd-{p}" for p in ("controls", "lab", "example", "aer", "pennylane", "ibm", "braket")
}


@pytest.fixture
def own_plugins_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process the repository's own plugins have no entry points."""
    found = importlib.metadata.entry_points

    def without(**kwargs: str) -> list[importlib.metadata.EntryPoint]:
        return [p for p in found(**kwargs) if p.dist is None or p.dist.name not in OWN_PLUGINS]

    monkeypatch.setattr("qsgd_core.plugins.entry_points", without)


@pytest.fixture(scope="session")
def filebox_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed tests/services/filebox, a paid provider."""
    site = tmp_path_factory.mktemp("filebox-site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    how = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", site]
    package = Path(__file__).parent / "services" / "filebox"
    subprocess.run([*pip, *how, package], check=True, timeout=300)
    return site


@pytest.fixture
def filebox(filebox_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The paid provider is installed, here and in processes given this environment."""
    environment = {
        "HOME": str(tmp_path),
        "QSGD_HOME": str(tmp_path / "home"),
        "QSGD_LOAD_PLUGINS": "qsgd-filebox",
        "PYTHONPATH": f"{filebox_site}:{Path(__file__).parents[1]}",
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
    }
    monkeypatch.syspath_prepend(filebox_site)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the skips: a test that runs nowhere would otherwise look like one that passes."""
    skipped = terminalreporter.stats.get("skipped", [])
    terminalreporter.write_line(f"skipped tests: {len(skipped)}")
