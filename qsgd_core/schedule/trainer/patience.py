"""What the training thread is waiting for, and whether it is to go on waiting.

Waits for a vendor's queue may take hours. Who handles Ctrl-C says so here; who waits looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qsgd_core.errors import WaitInterruptedError

_over: list[Callable[[], bool]] = []
_waits: list[str] = []


@contextmanager
def until(is_over: Callable[[], bool]) -> Iterator[None]:
    """While entered, waits end when ``is_over`` returns True."""
    _over.append(is_over)
    try:
        yield
    finally:
        _over.remove(is_over)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """While entered, this is what is waited for."""
    _waits.append(what)
    try:
        yield
    finally:
        _waits.remove(what)


def waited_for() -> str | None:
    """What is being waited for now; None if nothing is."""
    return _waits[-1] if _waits else None


def require() -> None:
    """Go on waiting, if nobody has had enough.

    Raises:
        WaitInterruptedError: somebody has.
    """
    if any(is_over() for is_over in _over):
        raise WaitInterruptedError(
            f"Training was interrupted while it waited for {waited_for()}. What was sent stays "
            "with the service, and is used when the run goes on."
        )
