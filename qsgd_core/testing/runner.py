"""Runs a suite of the kit on something by its name: a generated test file, pytest in-process."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest

from qsgd_core.testing.report import Collector, ConformanceReport

Suite: TypeAlias = Literal["simulator", "backend", "perturbation", "classical", "provider"]

_HEAD = '''"""Written by the conformance kit."""
import pytest
from qsgd_core.errors import ConfigError
from qsgd_core.plugins.registry import default_registry
from qsgd_core.testing import {base}


class TestConformance({base}):
'''

_MEASURING = """    shots = {shots!r}
    options = {options!r}

    @pytest.fixture(scope="class")
    @classmethod
    def {fixture}(cls):
        return default_registry().make_backend({name!r}, cls.options)
"""

_BACKEND = "    allow_cost_usd = {allow_cost_usd!r}\n"

_PERTURBATION = """    @pytest.fixture(scope="class", params={depths!r}, ids="depth {{}}".format)
    @classmethod
    def perturbation(cls, request):
        try:
            return default_registry().make_perturbation(
                {name!r}, depth=request.param, options={options!r}
            )
        except ConfigError as error:
            pytest.skip(str(error))
"""

_PROVIDER = """    @pytest.fixture(scope="class")
    @classmethod
    def distribution(cls):
        return {name!r}
"""

_CLASSES: dict[Suite, str] = {
    "simulator": "SimulatorConformance",
    "backend": "BackendConformance",
    "perturbation": "PerturbationConformance",
    "classical": "ClassicalPerturbationConformance",
    "provider": "ProviderConformance",
}

DEPTHS = (1, 2, 3)
"""Numbers of layers that a perturbation is tried with."""


def suite_file(
    suite: Suite,
    name: str,
    *,
    options: Mapping[str, Any],
    shots: int | None = None,
    allow_cost_usd: float | None = None,
) -> str:
    """The text of a test file that runs ``suite`` on ``name``."""
    text = _HEAD.format(base=_CLASSES[suite])
    if suite == "backend":
        text += _BACKEND.format(allow_cost_usd=allow_cost_usd)
    if suite in ("simulator", "backend"):
        text += _MEASURING.format(shots=shots, options=dict(options), name=name, fixture=suite)
    elif suite == "provider":
        text += _PROVIDER.format(name=name)
    else:
        depths = DEPTHS if suite == "perturbation" else DEPTHS[:1]
        text += _PERTURBATION.format(depths=depths, name=name, options=dict(options))
    return text


def run(text: str, *, progress: Callable[[str], object] = lambda test: None) -> ConformanceReport:
    """Run a test file of the kit, away from any configuration of the caller's.

    Args:
        text: the file.
        progress: told the name of each test that begins.
    """
    collector = Collector(progress)
    with tempfile.TemporaryDirectory(prefix="qsgd-conform-") as folder:
        file = Path(folder) / "test_conformance.py"
        file.write_text(text, encoding="utf-8")
        ini = Path(folder) / "pytest.ini"
        ini.write_text("[pytest]\n", encoding="utf-8")
        arguments = [
            str(file),
            f"--config-file={ini}",
            f"--rootdir={folder}",
            "--noconftest",
            "--import-mode=importlib",
            "--capture=sys",
            "-pno:cacheprovider",
            "-pno:terminal",
            # Others' plugins would reorder tests, run failures again, or print.
            *(["--disable-plugin-autoload"] if pytest.version_tuple >= (8, 4) else []),
        ]
        with _leaving_nothing():
            pytest.main(arguments, plugins=[collector])
    return collector.report


@contextlib.contextmanager
def _leaving_nothing() -> Iterator[None]:
    """The generated file is not left in ``sys.modules``: the next one has the same name."""
    import sys

    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.rpartition(".")[2] == "test_conformance":
                del sys.modules[name]
