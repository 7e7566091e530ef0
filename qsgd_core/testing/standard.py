"""A suite that a subclass can feed and cannot quietly weaken (after langchain-tests).

A subclass defines the fixture that gives the object, and a few settings. Anything else of the
suite's that it defines again is an error as soon as the class is made, with one exception: a known
failure, named as such with its reason::

    class TestMine(SimulatorConformance):
        @pytest.mark.xfail(reason="vendor bug 123: rows come back reversed")
        def test_rows_keep_their_order(self):
            ...

Whatever the body says, the standard test is what runs, and it must fail: once the bug is gone, the
mark has to go too.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

KIT = __name__.rpartition(".")[0]
HINT = "If this fails"
"""Begins the last paragraph of a standard test's docstring; a colon ends the condition."""


class Standard:
    """Base of the suites.

    Attributes:
        GIVEN: names that a subclass defines or may define.
    """

    GIVEN: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if _of_the_kit(cls):
            return
        if any(mark.name in ("skip", "skipif", "xfail") for mark in _marks(cls)):
            raise TypeError(
                f"{cls.__qualname__} is marked as a whole: that would hide every test of the kit. "
                "Mark a single known failure with @pytest.mark.xfail(reason=...)."
            )
        for name in [name for name in vars(cls) if not name.startswith("__")]:
            standard = _standard(cls, name)
            if standard is not None and name not in cls.GIVEN:
                setattr(cls, name, _known_failure(cls, name, standard))


def hint(test: object) -> str:
    """What to do if a standard test fails, from the end of its docstring; empty for other tests."""
    text = inspect.getdoc(test) or ""
    return " ".join(text.partition(HINT)[2].partition(":")[2].split())


def _of_the_kit(cls: type) -> bool:
    return cls.__module__ == KIT or cls.__module__.startswith(f"{KIT}.")


def _marks(item: object) -> list[pytest.Mark]:
    marks = vars(item).get("pytestmark", []) if hasattr(item, "__dict__") else []
    listed = marks if isinstance(marks, list) else [marks]
    return [mark.mark if isinstance(mark, pytest.MarkDecorator) else mark for mark in listed]


def _standard(cls: type, name: str) -> Any:
    """What the kit defines under ``name``, if anything."""
    return next(
        (vars(base)[name] for base in cls.__mro__[1:] if _of_the_kit(base) and name in vars(base)),
        None,
    )


def _known_failure(cls: type, name: str, standard: Any) -> Callable[..., object]:
    """The standard test, expected to fail for the reason that the subclass gives."""
    excuses = [
        mark
        for mark in _marks(vars(cls)[name])
        if mark.name == "xfail" and str(mark.kwargs.get("reason") or "").strip()
    ]
    if not name.startswith("test_") or not excuses:
        raise TypeError(
            f"{cls.__qualname__} overrides {name}, which belongs to the conformance kit. Remove "
            f"it, or say that it fails and why: @pytest.mark.xfail(reason=...) above {name}. "
            f"A test of your own needs another name. A subclass gives: "
            f"{', '.join(sorted(cls.GIVEN))}."  # type: ignore[attr-defined]
        )

    @functools.wraps(standard)
    def test(*args: Any, **kwargs: Any) -> object:
        result: object = standard(*args, **kwargs)
        return result

    strict = [
        pytest.mark.xfail(*mark.args, **{**mark.kwargs, "strict": True}).mark for mark in excuses
    ]
    vars(test)["pytestmark"] = [*_marks(standard), *strict]
    return test
