"""The examples in the docstrings of what users call say what happens."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "qsgd_core.optim.attach",
    "qsgd_core.optim.qsgd",
    "qsgd_core.training.config",
    "qsgd_core.training.run",
)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_hold(name, tmp_path, monkeypatch):
    monkeypatch.setenv("QSGD_RUNS", str(tmp_path / "runs"))
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted >= 2
    assert found.failed == 0
