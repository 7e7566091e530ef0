"""A device as GetDevice describes it: status, windows, limits, price. Pure; nothing is assumed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any, Literal, TypeAlias

from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import GATES
from qsgd_core.errors import CapabilityError, ResultCorruptError

Route: TypeAlias = Literal["set", "one"]
"""How a workload travels: as a program set, or as one program with the rows side by side."""

OPENQASM = "braket.ir.openqasm.program"
PROGRAM_SET = "braket.ir.openqasm.program_set"

WIDTH = {"sv1": 20, "dm1": 10}
"""Qubits that rows may fill together in one task of an on-demand simulator.

A task costs at least three seconds, so several rows share one: they are independent, side by side
in one register. The run time doubles with every qubit (quadruples on dm1); a register of this size
takes a second or two on one ordinary core, so that the least that can be billed is what is billed.
Much wider ones would cost more than several of these.
"""

DEFAULT_SHOTS = 256

_DAYS = {
    "everyday": range(7),
    "weekdays": range(5),
    "weekend": range(5, 7),
    "weekends": range(5, 7),
} | {
    day: range(i, i + 1)
    for i, day in enumerate(
        ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    )
}


@dataclass(frozen=True)
class Window:
    """When a device executes tasks, in UTC; may run past midnight."""

    days: tuple[int, ...]
    start: time
    end: time

    def opening(self, midnight: datetime) -> tuple[datetime, datetime] | None:
        """(start, end) of the window that starts on this day, if there is one."""
        if midnight.weekday() not in self.days:
            return None
        start = datetime.combine(midnight, self.start, UTC)
        end = datetime.combine(midnight, self.end, UTC)
        return start, end if end > start else end + timedelta(days=1)


@dataclass(frozen=True)
class Device:
    """What is known of a device at one moment.

    Attributes:
        arn: its ARN.
        name: its name.
        status: ``ONLINE``, ``OFFLINE`` or ``RETIRED``.
        simulator: an on-demand simulator, as opposed to a QPU.
        n_qubits: None when it does not say.
        route: how workloads reach it.
        max_executables: of one program set; None when there are none.
        total_shots: (fewest, most) of one program set; None where there is no bound.
        gates: of the closed set.
        shots: (fewest, most) of one circuit.
        windows: when it executes.
        price: (US dollars, unit) as its properties say: ``shot``, ``task`` or ``minute``.
        updated_at: date of its properties.
    """

    arn: str
    name: str
    status: str
    simulator: bool
    n_qubits: int | None
    route: Route
    max_executables: int | None
    total_shots: tuple[int | None, int | None]
    gates: frozenset[str]
    shots: tuple[int, int]
    windows: tuple[Window, ...]
    price: tuple[float, str] | None
    updated_at: str | None

    @property
    def width(self) -> int | None:
        """Qubits that several rows may fill together in one task; None: they never share one."""
        width = WIDTH.get(self.arn.rpartition("/")[2]) if self.simulator else None
        if width is None or self.route == "set":
            return None
        return width if self.n_qubits is None else min(width, self.n_qubits)

    def capabilities(self) -> Capabilities:
        """Live limits of one task."""
        alone = self.route == "one" and self.width is None
        return Capabilities(
            noisy=not self.simulator,
            paid=True,
            gates=self.gates,
            max_qubits=self.n_qubits,
            max_rows=1 if alone else self.max_executables,
            max_total_qubits=self.width,
            min_shots=max(1, self.shots[0]),
            max_shots=self.shots[1],
            max_executions=self.total_shots[1] if self.route == "set" else None,
            default_shots=min(max(DEFAULT_SHOTS, self.shots[0]), self.shots[1]),
        )

    def opens_in(self, now: datetime) -> timedelta | None:
        """How long until it executes: zero when a window is open, None when there is no window."""
        midnight = datetime.combine(now.astimezone(UTC), time(), UTC)
        waits = []
        for offset in range(-1, 8):
            for window in self.windows:
                if (opening := window.opening(midnight + timedelta(days=offset))) is None:
                    continue
                start, end = opening
                if now < end:
                    waits.append(max(timedelta(), start - now))
        return min(waits, default=None)


def read_device(answer: Mapping[str, Any]) -> Device:
    """The answer of GetDevice.

    Raises:
        CapabilityError: the device runs no gate circuits.
        ResultCorruptError: the answer cannot be read.
    """
    try:
        properties = json.loads(answer["deviceCapabilities"])
        actions = properties["action"]
        service = properties["service"]
        if OPENQASM not in actions and PROGRAM_SET not in actions:
            raise CapabilityError(
                f"Braket device {answer['deviceName']!r} runs no gate circuits; it takes "
                f"{', '.join(actions) or 'nothing'}. Choose another, such as braket:sv1."
            )
        sets = actions.get(PROGRAM_SET)
        price = service.get("deviceCost")
        return Device(
            arn=answer["deviceArn"],
            name=answer["deviceName"],
            status=answer["deviceStatus"],
            simulator=answer["deviceType"] == "SIMULATOR",
            n_qubits=(properties.get("paradigm") or {}).get("qubitCount"),
            route="one" if sets is None else "set",
            max_executables=None if sets is None else int(sets["maximumExecutables"]),
            total_shots=(None, None)
            if sets is None
            else (sets.get("minimumTotalShots"), int(sets["maximumTotalShots"])),
            gates=_gates((actions.get(OPENQASM) or sets).get("supportedOperations")),
            shots=(int(service["shotsRange"][0]), int(service["shotsRange"][1])),
            windows=tuple(_window(w) for w in service.get("executionWindows") or ()),
            price=None if price is None else (float(price["price"]), str(price["unit"]).lower()),
            updated_at=service.get("updatedAt"),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultCorruptError(
            f"The description of Braket device {answer.get('deviceArn')!r} cannot be read "
            f"({type(error).__name__}: {error}). A newer SDK may know it: "
            "pip install --upgrade amazon-braket-sdk qsgd-braket"
        ) from error


def _gates(operations: list[str] | None) -> frozenset[str]:
    if not operations:
        return frozenset(GATES)
    names = {name.lower() for name in operations}
    return frozenset(g for g in GATES if ({"cx": "cnot"}.get(g, g)) in names)


def _window(data: Mapping[str, str]) -> Window:
    return Window(
        tuple(_DAYS[data["executionDay"].lower()]),
        time.fromisoformat(data["windowStartHour"]),
        time.fromisoformat(data["windowEndHour"]),
    )
