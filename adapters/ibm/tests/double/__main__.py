"""A stand-in for IBM on the loopback: login, instance search, catalogue and the Runtime REST API.

Run it as a process of its own (Aer's threads would starve a client in the same one)::

    python adapters/ibm/tests/double --devices ibm_brisbane,ibm_fez

It binds 127.0.0.1 only, prints one line of JSON when it is ready, and stops by itself after
``--max-seconds`` or ``--max-requests``::

    {"port": 40123, "environment": {"QISKIT_IBM_TOKEN": "...", ...}}

With exactly those variables an unmodified ``qsgd train … --backend ibm_brisbane``, or any other
program that uses IBM's client, talks to it (``wiring.environment(port)`` gives the same):

====================== ==================================================================
QISKIT_IBM_TOKEN       the key that the double accepts
QISKIT_IBM_INSTANCE    the CRN of its one instance
QISKIT_IBM_URL         ``http://127.0.0.1:PORT/experimental/api/v1``: the client leaves an address
                       alone that contains "experimental"; any other loses its port
IAM_URL                login (client 0.49 and later)
GLOBAL_SEARCH_URL      instance search
GLOBAL_CATALOG_URL     plans
NO_PROXY               127.0.0.1, so that no proxy of the machine gets in between
====================== ==================================================================

It is a reading of IBM's client, not a recording of IBM: what the real service answers to an error,
how long its list lags and what it validates are not known here.

Control, all JSON: ``GET /__qsgd__/jobs`` (what was asked, what was paid, what was served),
``POST /__qsgd__/faults`` (a list of faults, see ``faults.py``), ``POST /__qsgd__/settings``,
``POST /__qsgd__/release`` (let held jobs run), ``POST /__qsgd__/reset``, ``POST /__qsgd__/stop``.
"""

from __future__ import annotations

import argparse
import json
import sys

from server import serve
from wiring import environment


def main() -> None:
    """Serve until told to stop, or until a bound is reached."""
    parser = argparse.ArgumentParser(description="IBM on the loopback, for tests.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--devices", default="ibm_brisbane,ibm_fez")
    parser.add_argument("--noise", action="store_true", help="the devices' recorded noise; slow")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-seconds", type=float, default=900.0)
    parser.add_argument("--max-requests", type=int, default=100_000)
    given = parser.parse_args()

    def ready(port: int) -> None:
        sys.stdout.write(json.dumps({"port": port, "environment": environment(port)}) + "\n")
        sys.stdout.flush()

    serve(
        port=given.port,
        devices=given.devices.split(","),
        noise=given.noise,
        seed=given.seed,
        max_seconds=given.max_seconds,
        max_requests=given.max_requests,
        ready=ready,
    )


if __name__ == "__main__":
    main()
