"""Finding the noise model that an option names: a JSON file, a script, a module, an object."""

from __future__ import annotations

import importlib
import json
import runpy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from qiskit_aer.noise import NoiseModel

from qsgd_core.errors import ConfigError

_FORMS = (
    "Give a NoiseModel, a file with its to_dict(serializable=True) as JSON, 'script.py:NAME' or "
    "'package.module:NAME'."
)


def load(given: object) -> NoiseModel | None:
    """The noise model that the option ``noise_model`` means; None without one or an ideal one.

    Raises:
        ConfigError: it cannot be found or read, or is something else; the cause is chained.
    """
    if given is None:
        return None
    if isinstance(given, str):
        model = _from_json(Path(given)) if given.endswith(".json") else _from_code(given)
    else:
        model = _from_dict(given, "the option") if isinstance(given, Mapping) else given
    if not isinstance(model, NoiseModel):
        raise ConfigError(
            f"noise_model={_shown(given)} is {type(model).__name__}, not a "
            f"qiskit_aer.noise.NoiseModel. For a device: NoiseModel.from_backend(…). {_FORMS}"
        )
    return None if model.is_ideal() else model


def _from_json(path: Path) -> NoiseModel:
    try:
        data = json.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"noise_model={str(path)!r} cannot be read: {error.strerror}. {_FORMS}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"noise_model={str(path)!r} is not JSON: {error}. {_FORMS}") from error
    return _from_dict(data, str(path))


def _from_dict(data: object, where: str) -> NoiseModel:
    try:
        with warnings.catch_warnings():
            # from_dict has been deprecated since 0.15, without a successor.
            warnings.simplefilter("ignore", DeprecationWarning)
            return NoiseModel.from_dict(_with_matrices(data))
    except Exception as error:  # Aer's reader trusts its input: anything may come
        raise ConfigError(
            f"The noise model in {where} is not what NoiseModel.to_dict() gives: "
            f"{type(error).__name__}: {error}. {_FORMS}"
        ) from error


def _with_matrices(data: Any) -> Any:
    """``data`` with matrices of [real, imaginary] pairs made complex: Aer writes, cannot read them.

    Only Kraus operators and unitaries are written as pairs.
    """
    if isinstance(data, list):
        return [_with_matrices(item) for item in data]
    if not isinstance(data, Mapping):
        return data
    if data.get("name") in ("kraus", "unitary"):
        return {**data, "params": [_matrix(matrix) for matrix in data["params"]]}
    return {key: _with_matrices(value) for key, value in data.items()}


def _matrix(matrix: Any) -> Any:
    array = np.asarray(matrix)
    return array[..., 0] + 1j * array[..., 1] if array.ndim == 3 else array


def _from_code(reference: str) -> object:
    source, _, name = reference.rpartition(":")
    try:
        if source.endswith(".py"):
            names = runpy.run_path(str(Path(source).expanduser()))
        else:
            names = vars(importlib.import_module(source))
        found = names.get(name)
        if callable(found) and not isinstance(found, NoiseModel):
            found = found()
    except Exception as error:  # the user's own code runs here
        raise ConfigError(
            f"noise_model={reference!r} failed: {type(error).__name__}: {error}. {_FORMS}"
        ) from error
    if found is None:
        raise ConfigError(f"noise_model={reference!r}: {source} has no {name!r}. {_FORMS}")
    return found


def _shown(given: object) -> str:
    return repr(given) if isinstance(given, str) else f"({type(given).__name__})"
