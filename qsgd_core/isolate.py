"""Calling third-party code so that what it raises is blamed on it, and what it draws is its own."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from qsgd_core.seeds import generators_put_back

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qsgd_core.errors import QSGDError


@contextmanager
def blame(
    kind: type[QSGDError],
    what: str,
    *,
    passing: tuple[type[BaseException], ...] = (),
    seed: int | None = None,
) -> Iterator[None]:
    """Turn whatever a plugin's code raises inside the block into ``kind``, chained.

    Not only ``Exception``: a module that ends in ``sys.exit(main())`` would stop a training run
    with exit code 0, and a panic in a Rust extension (``pyo3_runtime.PanicException``) derives
    from BaseException too. Ctrl-C is the user's and goes through. The global random generators are
    afterwards where they were: SDKs draw from them while they are imported.

    Args:
        kind: the exception raised instead.
        what: start of its message; the cause in one line follows.
        passing: exceptions left as they are.
        seed: of the global generators meanwhile; None leaves them running.
    """
    try:
        with generators_put_back(seed):
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


def name_of(asked: object) -> str:
    """The name that was asked for; of an object handed over instead, ``module.Class``."""
    if isinstance(asked, str):
        return asked
    return f"{type(asked).__module__}.{type(asked).__qualname__}"


def is_core(built: object) -> bool:
    """Whether the core made it, so that its answers need no check at every step."""
    return type(built).__module__.startswith("qsgd_core.")
