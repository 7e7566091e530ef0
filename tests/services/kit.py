"""What the tests of the conformance kit look at a suite with."""

from __future__ import annotations

from collections.abc import Callable


def standard_tests(suite: type) -> dict[str, Callable[..., object]]:
    """The tests of a suite by name."""
    return {name: getattr(suite, name) for name in dir(suite) if name.startswith("test_")}
