"""Asking a service for an estimate without a child process, which would import the SDK anew."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from qsgd_core.children.survey import answer
from qsgd_core.schedule.forecast import survey


def ask_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, :func:`survey.survey` has its question answered right here."""

    def run(words: list[str], **options: Any) -> SimpleNamespace:
        assert survey.SURVEY_MODULE in words
        return SimpleNamespace(stdout=answer(options["input"]), stderr="", returncode=0)

    child = SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(survey, "subprocess", child)
