"""Whole numbers that may follow a schedule: shots, and how often to measure."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TypeAlias

from qsgd_core.errors import ConfigError

Count: TypeAlias = int | Callable[[int], int]


def at_step(value: Count, step: int, name: str) -> int:
    """A schedule's value at ``step``, checked; a plain number is returned as it is."""
    return check_count(name, value(step)) if callable(value) else value


def check_count(name: str, value: object) -> int:
    """An integer of at least 1; see :func:`as_integer`."""
    number = as_integer(name, value, "an integer of at least 1")
    if number < 1:
        raise ConfigError(f"{name} must be an integer of at least 1, not {number}.")
    return number


def as_integer(name: str, value: object, wanted: str = "an integer") -> int:
    """A whole number of any integer type: python's, numpy's, a 0-dim tensor's.

    Raises:
        ConfigError: of another type; a float too, even one without a fraction.
    """
    if not _is_truth_value(value):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise ConfigError(f"{name} must be {wanted}, not {value!r}.{_instead(name, value)}")


def _instead(name: str, value: object) -> str:
    """What to give for a float that is a whole number."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    whole = not isinstance(value, str) and number.is_integer() and not _is_truth_value(value)
    return f" Give {name}={number:.0f}." if whole else ""


def _is_truth_value(value: object) -> bool:
    """Whether it is a bool: python's, numpy's, or a tensor's."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")
