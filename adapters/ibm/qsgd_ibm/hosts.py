"""Which addresses an API key may be sent to."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from qsgd_core.errors import ConfigError


def is_safe(url: str) -> bool:
    """Whether ``url`` is encrypted or never leaves this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))


def require_safe(url: str, *, source: str) -> None:
    """Refuse an address that would send the API key in the clear.

    Args:
        url: where requests would go.
        source: the variable or file it comes from, for the message.

    Raises:
        ConfigError: plain http to another machine, or no http at all.
    """
    if not is_safe(url):
        raise ConfigError(
            f"{source} is {url!r}: your IBM API key would travel unencrypted. Use an https:// "
            "address; plain http is accepted for 127.0.0.1 only. To use IBM's own address, "
            f"unset {source}."
        )


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return host is not None and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
