"""The AWS double, started once; each test gets it empty, and a clean AWS environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "double"))

from aws_double import VARIABLES, AwsDouble, environment


@pytest.fixture(scope="session")
def aws_process() -> Iterator[AwsDouble]:
    with AwsDouble() as double:
        yield double


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials, no configuration, no instance metadata: nothing of the machine's own."""
    for name in os.environ:
        if name.startswith(VARIABLES):
            monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def double(
    aws_process: AwsDouble, no_aws: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AwsDouble]:
    for name, value in environment(aws_process.port).items():
        monkeypatch.setenv(name, value)
    aws_process.reset()
    yield aws_process
    assert aws_process.ledger()["paid_twice"] == []
