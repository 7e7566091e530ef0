"""The loopback double as a fixture, and an environment that points nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S

from qsgd_ibm import transport
from qsgd_ibm.backend import IBMBackend, open_account
from qsgd_ibm.options import IBMOptions

DOUBLE = Path(__file__).parent / "double"
DEVICES = ("ibm_brisbane", "ibm_fez")
VARIABLES = ("QSGD_", "QISKIT_", "IAM_", "GLOBAL_SEARCH_", "GLOBAL_CATALOG_")


class Double:
    """A running double, from the outside."""

    def __init__(self, port: int, environment: dict[str, str]) -> None:
        self.port = port
        self.environment = environment

    def ledger(self) -> dict[str, Any]:
        return self._ask("jobs")

    def faults(self, *faults: dict[str, Any]) -> None:
        self._ask("faults", list(faults))

    def settings(self, **changes: Any) -> None:
        self._ask("settings", changes)

    def release(self) -> None:
        self._ask("release", {})

    def delete(self, job_id: str) -> None:
        self._ask("delete", {"id": job_id})

    def reset(self) -> None:
        self._ask("reset", {})

    def asked_paid(self) -> tuple[int, int]:
        """Jobs that were accepted, and jobs that were charged."""
        ledger = self.ledger()
        return ledger["asked"], ledger["paid"]

    def get(self, path: str, data: bytes | None = None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def _ask(self, what: str, body: Any = None) -> Any:
        return self.get(f"/__qsgd__/{what}", None if body is None else json.dumps(body).encode())


@pytest.fixture(scope="session")
def double_folder() -> Path:
    return DOUBLE


@pytest.fixture(scope="session")
def start_double() -> Callable[..., tuple[subprocess.Popen[str], Double]]:
    """Starts one more double; whoever asks stops it."""
    return _start


def _start(*arguments: str) -> tuple[subprocess.Popen[str], Double]:
    process = subprocess.Popen(
        [sys.executable, str(DOUBLE), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    hello = json.loads(process.stdout.readline())
    return process, Double(hello["port"], hello["environment"])


@pytest.fixture(scope="session")
def running_double() -> Iterator[Double]:
    process, double = _start("--max-seconds", "14400")
    yield double
    process.terminate()
    process.wait(PATIENCE_S)


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of the machine, whatever the test does; and no waits between retries."""
    # The client looks through the whole stack before each request otherwise: 50 ms under pytest.
    monkeypatch.setenv("USAGE_DATA_OPT_OUT", "True")
    monkeypatch.setattr(transport, "BACKOFF_S", 0.0)
    for name in [name for name in os.environ if name.startswith(VARIABLES)]:
        monkeypatch.delenv(name)
    from qiskit_ibm_runtime.accounts import management

    monkeypatch.setattr(
        management, "_DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(tmp_path / "qiskit-ibm.json")
    )


@pytest.fixture
def double(
    running_double: Double, no_account: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Double]:
    """The double as new, with the environment that points IBM's client at it."""
    running_double.reset()
    for name, value in running_double.environment.items():
        monkeypatch.setenv(name, value)
    yield running_double
    running_double.reset()


@pytest.fixture(scope="session")
def logins() -> dict[str, Any]:
    """The account and devices that were opened already: a login costs half a second."""
    return {}


@pytest.fixture
def backend(double: Double, logins: dict[str, Any]) -> Any:
    """Makes ``ibm_fez`` (or another name) with options, logged in already; nobody sleeps."""

    def make(name: str = "ibm_fez", **options: Any) -> Any:
        made = new_backend(name, **options)
        if "account" not in logins or logins["account"].stale:
            logins.clear()
            logins["account"] = open_account(None)
        made._open = logins["account"]
        if name in DEVICES:
            if name not in logins:
                made._current()
                logins[name] = made._device
            made._device, made._read_at = logins[name], made._clock()
        return made

    return make


@pytest.fixture
def fresh_backend(double: Double) -> Any:
    """Makes ``ibm_fez`` (or another name) with options; logs in by itself."""
    return new_backend


def new_backend(name: str = "ibm_fez", **options: Any) -> Any:
    return IBMBackend(name, IBMOptions(**options), sleep=lambda seconds: None)


@pytest.fixture
def collect() -> Any:
    """Asks for a job until it is final, then fetches it; at most 30 s."""

    def wait(backend: Any, handle: Any) -> Any:
        end = time.monotonic() + PATIENCE_S
        while not backend.status(handle).state.final:
            assert time.monotonic() < end, "the double did not finish the job"
        return backend.fetch(handle)

    return wait
