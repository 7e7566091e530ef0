"""Starts the AWS double in a process of its own, wires clients to it, and gives it orders.

Standard library only, so that any test can use it: put this folder on ``sys.path`` and
``with AwsDouble() as double: subprocess.run(..., env=double.environment())``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.request import Request, urlopen

KEY_ID = "DOUBLE0KEY0ID"
SECRET = "double/secret/that/must/never/be/shown"
VARIABLES = ("AWS_", "AMZN_", "BRAKET_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


def environment(port: int) -> dict[str, str]:
    """What wires unmodified AWS clients to the double; nothing else of AWS may be set."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }


def clean(variables: dict[str, str]) -> dict[str, str]:
    """Variables without those that would lead a client elsewhere."""
    return {k: v for k, v in variables.items() if not k.startswith(VARIABLES)}


class AwsDouble:
    """A running double; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("aws_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean(dict(os.environ)) | {"OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdout is not None
        self.port = int(json.loads(self._process.stdout.readline())["port"])

    def __enter__(self) -> AwsDouble:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=1800)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def environment(self) -> dict[str, str]:
        """The whole environment for a subprocess."""
        return clean(dict(os.environ)) | environment(self.port)

    def order(self, what: str, **data: object) -> dict[str, Any]:
        """See ``Handler.order``."""
        request = Request(
            f"http://127.0.0.1:{self.port}/_double/{what}", data=json.dumps(data).encode()
        )
        with urlopen(request, timeout=1800) as answer:
            return dict(json.load(answer))

    def reset(self) -> None:
        """Forget everything."""
        self.order("reset")

    def fault(self, operation: str, kind: str, times: int = 1, **more: object) -> None:
        """Let the next ``times`` requests of an operation go wrong."""
        self.order("fault", operation=operation, kind=kind, times=times, **more)

    def outcome(self, status: str, **more: object) -> None:
        """How the next task that is created ends."""
        self.order("outcome", status=status, **more)

    def settings(self, **values: float | str | None) -> None:
        """``queued_polls``, ``search_lag``, ``search_lag_s``, ``page``, ``seed``, ``number``.

        ``duplicates``: so many creations are made into two tasks each. ``shots_pending``: how many
        shots of a task succeeded is not told yet.

        ``outage``: every connection is cut (``reset``) or every answer is ``503``; ``revoked``:
        the access key is refused. Both for the clients of AWS, until set to None and False.
        """
        self.order("settings", **values)

    def release(self) -> None:
        """Let the tasks that wait in the queue run."""
        self.order("release")

    def delete(self, arn: str) -> None:
        """Forget a task; it was paid for all the same."""
        self.order("delete", arn=arn)

    def device(self, arn: str, **changes: object) -> None:
        """Change a device."""
        self.order("device", arn=arn, **changes)

    def ledger(self) -> dict[str, Any]:
        """What was asked and paid."""
        return self.order("ledger")

    def result(self, path: str) -> dict[str, Any]:
        """A result as it lies in S3; paths are in the ledger."""
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=1800) as answer:
            return dict(json.load(answer))
