"""Keyword arguments held to a typed dictionary: a wrong one is refused in the user's words."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError, with_config

from qsgd_core.errors import ConfigError, nearest
from qsgd_core.measure.counts import check_count
from qsgd_core.plugins.options import plain_value


def checked(
    arguments: type[Any], given: Mapping[str, Any], *, beside: Iterable[str] = ()
) -> dict[str, Any]:
    """``given`` as ``arguments`` wants them: numpy's integers as integers, paths as text.

    Args:
        arguments: a TypedDict; its annotations may hold validators that raise ConfigError.
        given: name -> value.
        beside: further arguments of whoever asks, which a misspelt name may mean.

    Raises:
        ConfigError: a name that does not exist, with the nearest that does, or a value that an
            argument cannot have.
    """
    known = arguments.__annotations__
    for name in given:
        if name not in known:
            there = (*beside, *known)
            close = nearest(name, there)
            meant = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(there)}."
            raise ConfigError(f"There is no argument {name!r}. {meant}")
    try:
        values: dict[str, Any] = _adapter(arguments).validate_python(dict(given))  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        found = repr(given[name])
        if first["type"] == "literal_error":
            expected = first["ctx"]["expected"].replace(",", " or")
            raise ConfigError(f"{name} must be {expected}, not {found}.") from None
        raise ConfigError(f"{name}={found} cannot be used: {first['msg']}.") from None
    return values


def of_type(name: str, *kinds: type) -> BeforeValidator:
    """A name or an object: raises for a class in its place, or for anything else."""

    def check(value: object) -> object:
        if value is None or isinstance(value, kinds):
            return value
        if inspect.isclass(value) and issubclass(value, kinds):
            raise ConfigError(
                f"{name} must be an object, and {value.__name__} is a class: give "
                f"{name}={value.__name__}()."
            )
        wanted = " or ".join(kind.__name__ for kind in kinds if kind is not str)
        raise ConfigError(
            f"{name} must be a name or an object derived from {wanted}, not the "
            f"{type(value).__name__} {value!r}."
        )

    return BeforeValidator(check)


def count(name: str) -> BeforeValidator:
    """An integer of at least 1, a function, or None; what it may be of these, the type says."""
    return BeforeValidator(lambda v: v if v is None or callable(v) else check_count(name, v))


def not_negative(name: str) -> BeforeValidator:
    """A finite number of at least 0, or None."""

    def check(value: object) -> object:
        if value is None:
            return None
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or number < 0:
            raise ConfigError(f"{name} must be finite and at least 0, not {value!r}.")
        return number

    return BeforeValidator(check)


def text(name: str) -> BeforeValidator:
    """A string with something in it, or None."""

    def check(value: object) -> object:
        if value is None or (isinstance(value, str) and value.strip()):
            return value
        wanted = "have something in it" if isinstance(value, str) else "be a string"
        raise ConfigError(f"{name} must {wanted}, not {value!r}.")

    return BeforeValidator(check)


def options(name: str) -> BeforeValidator:
    """Options by name, or None."""

    def check(value: object) -> object:
        if value is None or isinstance(value, Mapping):
            return value if value is None else plain_value(dict(value))
        raise ConfigError(f"{name} must be a dict of options, not {value!r}.")

    return BeforeValidator(check)


def path(name: str) -> BeforeValidator:
    """A path, as text; or None."""

    def check(value: object) -> object:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        raise ConfigError(f"{name} must be a path, not {value!r}.")

    return BeforeValidator(check)


@lru_cache
def _adapter(arguments: Any) -> TypeAdapter[Any]:
    return TypeAdapter(with_config(ConfigDict(arbitrary_types_allowed=True))(arguments))
