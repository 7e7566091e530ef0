"""The queued service that a name means, in a process that may import its SDK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from qsgd_core.backend import Backend
from qsgd_core.errors import ConfigError
from qsgd_core.plugins.registry import default_registry


def make_service(name: str, options: Mapping[str, Any], *, simulator: str) -> Backend:
    """The backend of this name; nothing is asked of it yet.

    Args:
        name: of a backend.
        options: vendor options.
        simulator: what to say of one, such as "it costs nothing".

    Raises:
        ConfigError: the name is not a queued service.
    """
    backend = default_registry().make_backend(name, options or None)
    if not isinstance(backend, Backend):
        raise ConfigError(f"{name!r} is a simulator; {simulator}.")
    return backend


def pin(name: str, make: Callable[[str], Backend]) -> Backend:
    """The service on the device that the name means now: ``resolve`` makes capabilities live.

    Args:
        name: of a backend or of a device.
        make: a name to a backend that nothing has been asked of.
    """
    backend = make(name)
    pinned = backend.resolve()
    if pinned != backend.name:
        backend = make(pinned)
        backend.resolve()
    return backend
