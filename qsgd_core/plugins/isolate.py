"""Calling third-party code so that whatever it raises is blamed on it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qsgd_core.errors import PluginError


@contextmanager
def blame(
    kind: type[PluginError], what: str, *, passing: tuple[type[BaseException], ...] = ()
) -> Iterator[None]:
    """Turn whatever a plugin's code raises inside the block into ``kind``, chained.

    Not only ``Exception``: a module that ends in ``sys.exit(main())`` would stop a training run
    with exit code 0, and a panic in a Rust extension (``pyo3_runtime.PanicException``) derives
    from BaseException too. Ctrl-C is the user's and goes through.

    Args:
        kind: the exception raised instead.
        what: start of its message; the cause in one line follows.
        passing: exceptions left as they are.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, passing):
            raise
        raise kind(f"{what}: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())
