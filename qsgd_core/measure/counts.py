"""Whole numbers that may follow a schedule: shots, and how often to measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from qsgd_core.errors import ConfigError

Count: TypeAlias = int | Callable[[int], int]


def at_step(value: Count, step: int, name: str) -> int:
    """A schedule's value at ``step``, checked; a plain number is returned as it is."""
    return check_count(name, value(step)) if callable(value) else value


def check_count(name: str, value: object) -> int:
    """An integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} must be an integer of at least 1, not {value!r}.")
    return value
