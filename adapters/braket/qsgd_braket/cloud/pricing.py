"""What a task costs, as far as it is known: options, then AWS's figure, then the price table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qsgd_braket.cloud import names
from qsgd_core.jobs import Cost, Quote
from qsgd_core.prices import Price as Row
from qsgd_core.prices import find_price

if TYPE_CHECKING:
    from qsgd_braket.cloud.device import Device
    from qsgd_braket.options import DeviceOptions

MINIMUM_S = 3.0
"""An on-demand simulator bills at least this long."""
LONGEST_S = 60.0
"""A register of :data:`qsgd_braket.cloud.device.WIDTH` qubits is done well within a minute."""


@dataclass(frozen=True)
class DevicePrice:
    """US dollars per task, shot and minute; None where unknown."""

    task: float | None
    shot: float | None
    minute: float | None
    source: str
    date: str | None

    @classmethod
    def of(cls, device: Device, options: DeviceOptions) -> DevicePrice:
        """Options first, then what the device's properties say, then the price table.

        No API tells the fee of a task: ``deviceCost`` of a QPU is its price of one shot.

        Raises:
            ConfigError: the user's own price table cannot be read.
        """
        amount, unit = device.price or (None, "")
        live = {u: amount if unit.rstrip("s") == u else None for u in ("task", "shot", "minute")}
        own = (options.price_per_task_usd, options.price_per_shot_usd, options.price_per_minute_usd)
        said = [] if all(p is None for p in own) else ["options"]
        if amount is not None:
            said.append("properties of the device, not authoritative")
        if device.simulator:
            minute = _first(own[2], live["minute"])
            source = "; ".join(said) or "unknown: set price_per_minute_usd"
            return cls(None, None, minute, source, device.updated_at)
        task, shot = _first(own[0], live["task"]), _first(own[1], live["shot"])
        date = device.updated_at
        if task is None or shot is None:
            row = find_price(device.arn, names.PREFIX + names.short(device.arn))
            if row is not None:
                said.append(f"{_missing(task, shot, row)} from: {row.source}, {row.effective_date}")
                task, shot = _first(task, row.per_job_usd), _first(shot, row.per_shot_usd)
                date = date if amount is not None else row.effective_date
        source = "; ".join(said) if shot is not None else "unknown: set price_per_shot_usd"
        return cls(task, shot, None, source, date)

    def qpu(self, shots: int) -> float | None:
        """One task of ``shots`` shots on a QPU."""
        if self.task is None or self.shot is None:
            return None
        return round(self.task + shots * self.shot, 9)

    def simulator(self, seconds: float) -> float | None:
        """One task of ``seconds`` on an on-demand simulator."""
        return None if self.minute is None else self.minute * max(MINIMUM_S, seconds) / 60


def quote(device: Device, options: DeviceOptions, *, total_shots: int, width: int) -> Quote:
    """Expected and worst cost of one task.

    Args:
        device: where it runs.
        options: prices of the user's own.
        total_shots: of the whole task.
        width: qubits of the register, for an on-demand simulator.
    """
    price = DevicePrice.of(device, options)
    if device.simulator:
        bounded = device.width is not None and width <= device.width
        expected = Cost(usd=price.simulator(0.0), shots=total_shots)
        # Above that width the run time doubles with every qubit; the worst case is not known.
        worst = Cost(usd=price.simulator(LONGEST_S) if bounded else None, shots=total_shots)
    else:
        expected = worst = Cost(usd=price.qpu(total_shots), shots=total_shots)
    return Quote(expected, worst, source=price.source, effective_date=price.date)


def billed(
    device: Device, options: DeviceOptions, *, shots: int, seconds: float | None = None
) -> Cost:
    """What a task that ran costs; AWS does not tell, this is the same arithmetic as the quote's."""
    price = DevicePrice.of(device, options)
    if not device.simulator:
        return Cost(usd=price.qpu(shots), shots=shots)
    return Cost(usd=None if seconds is None else price.simulator(seconds), shots=shots)


def _missing(task: float | None, shot: float | None, row: Row) -> str:
    """What the row of the price table is needed for."""
    fee = f"task fee of ${row.per_job_usd:.2f}" if task is None and row.per_job_usd else ""
    each = f"${row.per_shot_usd:g} a shot" if shot is None and row.per_shot_usd else ""
    return " and ".join(part for part in (fee, each) if part)


def _first(*prices: float | None) -> float | None:
    return next((price for price in prices if price is not None), None)
