"""The double itself: bounded, on the loopback, wired by variables only."""

from __future__ import annotations

import importlib.util
import socket
import sys
import urllib.error
from typing import Any

import pytest
from patience import PATIENCE_S


@pytest.fixture(scope="module")
def short_lived(start_double: Any) -> Any:
    process, double = start_double("--max-requests", "2", "--devices", "ibm_fez")
    yield process, double
    process.kill()
    process.wait(PATIENCE_S)


def test_it_prints_the_variables_that_its_helper_gives(running_double, double_folder):
    spec = importlib.util.spec_from_file_location(
        "qsgd_ibm_double_wiring", double_folder / "wiring.py"
    )
    assert spec is not None
    assert spec.loader is not None
    wiring = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(wiring)
    assert wiring.environment(running_double.port) == running_double.environment


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is up on Linux only")
def test_it_listens_on_one_address_of_the_loopback_only(running_double):
    socket.create_connection(("127.0.0.1", running_double.port), timeout=PATIENCE_S).close()
    with pytest.raises(ConnectionRefusedError):  # a server on every address would answer
        socket.create_connection(("127.0.0.2", running_double.port), timeout=PATIENCE_S)


def test_it_stops_by_itself_after_its_last_request(short_lived):
    process, double = short_lived
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError):
            double.get("/experimental/api/v1/backends")  # no token: 401
    assert process.wait(PATIENCE_S) == 0


def test_what_is_not_a_real_payload_makes_no_job(double, backend):
    session = backend()._connect().service._active_api_client._session
    transport = backend()._connect().transport
    for body in ("{}", '{"program_id": "executor", "backend": "ibm_fez", "params": {}}'):
        with transport.one_post() as post, pytest.raises(Exception, match=r"40[04]"):
            session.post("/jobs", data=body)
        assert not post.may_have_spent
    assert double.asked_paid() == (0, 0)
