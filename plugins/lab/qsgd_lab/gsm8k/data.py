"""The problems: from the Hugging Face hub, or from a folder with train.jsonl and test.jsonl."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qsgd_core.errors import ConfigError
from qsgd_lab.gsm8k.failures import in_a_line

HUB = "openai/gsm8k"
PARTS = ("train", "test")
FORM = '{"question": "…", "answer": "… #### 72"}'


class Problem(BaseModel):
    """A problem in words; the answer shows the working and ends with ``#### 72``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)


@dataclass(frozen=True)
class Problems:
    """Both parts of the data.

    Attributes:
        train: to train on.
        test: to judge by.
        where: they came from, as said to people.
    """

    train: tuple[Problem, ...]
    test: tuple[Problem, ...]
    where: str

    def digest(self) -> str:
        """16 hexadecimal digits that other problems, or another order, do not have."""
        sha = hashlib.sha256()
        for part in (self.train, self.test):
            sha.update(json.dumps([[p.question, p.answer] for p in part]).encode())
        return sha.hexdigest()[:16]


def read_folder(folder: Path) -> Problems:
    """Problems of ``train.jsonl`` and ``test.jsonl``, one JSON object a line.

    Raises:
        ConfigError: a file is missing, empty or unreadable, or a line is no problem; by its number.
    """
    train, test = (_read(folder / f"{part}.jsonl") for part in PARTS)
    return Problems(train, test, where=str(folder))


def fetch() -> Problems:
    """Problems of ``openai/gsm8k`` on the hub, or of its copy in the hub's cache.

    Raises:
        ConfigError: ``datasets`` is not installed, or the hub cannot be reached.
    """
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise ConfigError(
            f"Task 'gsm8k' takes its problems from the Hugging Face hub with the package datasets, "
            f"which cannot be imported ({error}). Install it: pip install 'qsgd-lab[gsm8k]'; or "
            f"give a folder with train.jsonl and test.jsonl: --data FOLDER"
        ) from error
    try:
        loaded: Any = datasets.load_dataset(HUB, "main")
    except Exception as error:
        raise ConfigError(
            f"{HUB} cannot be had from the Hugging Face hub ({in_a_line(error)}). Try again where "
            "it can be reached, or give a folder with train.jsonl and test.jsonl: --data FOLDER"
        ) from error
    train, test = (_checked(f"{HUB}, {part}", enumerate(loaded[part], 1)) for part in PARTS)
    return Problems(train, test, where=HUB)


def _read(path: Path) -> tuple[Problem, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise ConfigError(
            f"There is no {path.name} in {path.parent}. Task 'gsm8k' reads train.jsonl and "
            f"test.jsonl from --data, one problem a line: {FORM}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read as UTF-8 text ({in_a_line(error)}). It must have one problem "
            f"a line: {FORM}"
        ) from error
    return _checked(str(path), ((n, line) for n, line in enumerate(lines, 1) if line.strip()))


def _checked(where: str, numbered: Iterable[tuple[int, Any]]) -> tuple[Problem, ...]:
    """Problems from lines of JSON, or from rows of a data set."""
    found = []
    for n, row in numbered:
        try:
            text = isinstance(row, str)
            found.append(Problem.model_validate_json(row) if text else Problem.model_validate(row))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            what = f"{key!r}: {first['msg']}" if key else first["msg"]
            raise ConfigError(f"{where}, line {n}: {what}. Each line must be {FORM}") from error
    if not found:
        raise ConfigError(f"{where} has no problem in it. It must have one a line: {FORM}")
    return tuple(found)
