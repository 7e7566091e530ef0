"""Options of a backend or perturbation: read from ``key=value`` pairs, checked by a model."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from qsgd_core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SECRET = re.compile(r"token|secret|password|passwd|credential|key", re.IGNORECASE)


def parse_options(pairs: Iterable[str]) -> dict[str, Any]:
    """``["shots=100", "method=statevector"]`` as a dict: JSON values where they parse, else text.

    Raises:
        ConfigError: no ``=``, no name, or a name given twice.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ConfigError(f"--option {pair!r} is not of the form NAME=VALUE.")
        if name in options:
            raise ConfigError(f"--option {name} is given twice. Leave one out.")
        options[name] = _value(text)
    return options


def _value(text: str) -> Any:
    def not_json(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=not_json)
    except ValueError:
        return text


def check_options(
    what: str, model: type[BaseModel] | None, given: Mapping[str, Any] | None
) -> BaseModel | None:
    """``given`` as an instance of ``model``; None when there is no model.

    Args:
        what: whose options these are, for messages: ``"backend 'aer:statevector'"``.
        model: the options model that the spec names.
        given: option name -> value; None and empty mean the defaults.

    Raises:
        ConfigError: options for something that takes none, an unknown option, a value that the
            model refuses, or a required option that is missing.
    """
    given = {name: plain_value(value) for name, value in (given or {}).items()}
    if model is None:
        if given:
            raise ConfigError(f"{what} takes no options; found {_listed(given)}. Leave them out.")
        return None
    allowed = _names(model)
    unknown = [name for name in given if name not in allowed]
    if unknown and model.model_config.get("extra") != "allow":
        close = nearest(unknown[0], allowed)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"{what} has no option {unknown[0]!r}.{meant} Its options: {_listed(allowed)}."
        )
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"{what}: {_first(error)} Its options: {_listed(allowed)}.") from error


def plain_value(value: Any) -> Any:
    """Numbers of numpy's and 0-dim tensors as python's own, paths as text; in containers too."""
    if isinstance(value, dict):
        return {name: plain_value(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(plain_value(inner) for inner in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        return value.item()
    return value


def _names(model: type[BaseModel]) -> list[str]:
    """What may be given: the alias of a field where it has one, else its name."""
    return [
        field.validation_alias if isinstance(field.validation_alias, str) else name
        for name, field in model.model_fields.items()
    ]


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"option {name!r} must be given."
    if not name:
        return f"the options do not go together: {first['msg']}."
    found = "a value not shown here" if _SECRET.search(name) else repr(first["input"])
    return f"option {name!r} cannot be {found}: {first['msg']}."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
