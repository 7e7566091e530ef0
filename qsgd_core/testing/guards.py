"""What a test run is kept from, and what it is watched for: sockets, secrets, stray logs."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

CANARIES = {
    "QISKIT_IBM_TOKEN": "canary-qsgd-ibm-3f1d9c",
    "QISKIT_IBM_INSTANCE": "canary-qsgd-instance-77ab02",
    "AWS_ACCESS_KEY_ID": "canary-qsgd-aws-id-5e8b10",
    "AWS_SECRET_ACCESS_KEY": "canary-qsgd-aws-secret-90c4de",
    "AWS_SESSION_TOKEN": "canary-qsgd-aws-session-1b6f3a",
}
"""Made-up credentials, unlike anything else that is printed."""


class NetworkUsedError(OSError):
    """Something that runs in this process wanted a connection."""


@contextlib.contextmanager
def without_network() -> Iterator[None]:
    """While entered, every connection but one to a socket file of this machine is refused."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise NetworkUsedError(
            "The conformance kit lets a simulator open no connection: it runs in this process. "
            "What needs a network is a Backend."
        )

    def connect(self: socket.socket, address: Any) -> Any:
        return original(self, address) if self.family == socket.AF_UNIX else refuse()

    original = socket.socket.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        patch.setattr(socket.socket, "connect_ex", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


class Heard(logging.Handler):
    """Keeps what is logged at INFO and above."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        self.lines.append(self.format(record))


@contextlib.contextmanager
def listening() -> Iterator[Heard]:
    """While entered, every logger is heard at INFO."""
    root, heard = logging.getLogger(), Heard()
    level = root.level
    root.addHandler(heard)
    root.setLevel(min(level, logging.INFO) if level else logging.INFO)
    try:
        yield heard
    finally:
        root.setLevel(level)
        root.removeHandler(heard)


def assert_no_secret(texts: Iterable[object], secrets: Iterable[str]) -> None:
    """Fail if one of ``secrets`` appears in one of ``texts``; the message does not repeat it."""
    for text in map(str, texts):
        for secret in secrets:
            if secret and secret in text:
                pytest.fail(f"A credential appears in: {text.replace(secret, '***')[:300]}")
