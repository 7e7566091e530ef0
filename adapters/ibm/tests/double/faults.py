"""Faults the double can be told to show.

A fault is a JSON object::

    {"on": "submit", "kind": "status", "status": 504, "after": true, "times": 2}

``on`` names what is asked: token, search, catalog, backends, configuration, properties, status,
usage, submit, job, list, results, metrics, cancel. ``kind``:

* ``status``: answer ``status`` with ``headers`` and ``body``;
* ``reset``: close the connection without an answer;
* ``stall``: answer after ``seconds``;
* ``html``: a web page with status 200 in place of JSON;
* ``empty``: nothing, with status 200;
* ``cut``: the first half of the right answer.

``after``: do what was asked first (a job is accepted), then show the fault. ``times``: how often;
-1 for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock
from typing import Any

HTML = "<!DOCTYPE html><html><body><h1>Bad gateway</h1>Ray ID: 8c0ffee</body></html>"


@dataclass
class Fault:
    on: str
    kind: str
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    seconds: float = 0.0
    after: bool = False
    times: int = 1


class Faults:
    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = Lock()

    def set(self, faults: list[dict[str, Any]]) -> None:
        with self._lock:
            self._faults = [Fault(**fault) for fault in faults]

    def take(self, on: str) -> Fault | None:
        """The next fault for what is asked, counted as shown."""
        with self._lock:
            for fault in self._faults:
                if fault.on == on and fault.times != 0:
                    fault.times -= fault.times > 0
                    return fault
        return None
