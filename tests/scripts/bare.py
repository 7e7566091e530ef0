"""``qsgd`` in a process that has no SDK, no adapter, no database for a ledger, and no network."""

from __future__ import annotations

import importlib.abc
import socket
import sys
from typing import Any, NoReturn

ABSENT = {
    *("qsgd_aer", "qsgd_braket", "qsgd_filebox", "qsgd_ibm", "qsgd_pennylane"),
    *("boto3", "braket", "pennylane", "qiskit", "qiskit_aer", "qiskit_ibm_runtime"),
    *("alembic", "psycopg", "sqlalchemy"),
}


class Absent(importlib.abc.MetaPathFinder):
    """Finds nothing of what is not there, before anybody else can."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def refuse(*arguments: Any, **options: Any) -> NoReturn:
    raise OSError("There is no network here.")


if __name__ == "__main__":
    sys.meta_path.insert(0, Absent())
    socket.socket.connect = refuse  # type: ignore[method-assign]
    socket.create_connection = socket.getaddrinfo = refuse

    from qsgd_core.cli.app import main

    main()
