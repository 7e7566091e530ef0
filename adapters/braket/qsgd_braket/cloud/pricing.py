"""What a task costs, as far as it is known. Ships one figure, and says where it is from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qsgd_core.jobs import Cost, Quote

if TYPE_CHECKING:
    from qsgd_braket.cloud.device import Device
    from qsgd_braket.options import DeviceOptions

TASK_FEE_USD = 0.30
TASK_FEE_SOURCE = "AWS's price list, where it is the same for every QPU"
TASK_FEE_DATE = "2026-06"
"""No API tells the fee of a task (``deviceCost`` of a QPU is its price of one shot)."""

MINIMUM_S = 3.0
"""An on-demand simulator bills at least this long."""
LONGEST_S = 60.0
"""A register of :data:`qsgd_braket.cloud.device.WIDTH` qubits is done well within a minute."""


@dataclass(frozen=True)
class Price:
    """US dollars per task, shot and minute; None where unknown."""

    task: float | None
    shot: float | None
    minute: float | None
    source: str
    date: str | None

    @classmethod
    def of(cls, device: Device, options: DeviceOptions) -> Price:
        """Options first, then what the device's properties say, then the listed task fee."""
        amount, unit = device.price or (None, "")
        listed = {u: amount if unit.rstrip("s") == u else None for u in ("task", "shot", "minute")}
        fee = TASK_FEE_USD if listed["task"] is None else listed["task"]
        own = (options.price_per_task_usd, options.price_per_shot_usd, options.price_per_minute_usd)
        said = [] if all(p is None for p in own) else ["options"]
        if amount is not None:
            said.append("properties of the device, not authoritative")
        if not device.simulator and own[0] is None and listed["task"] is None:
            said.append(f"task fee of ${TASK_FEE_USD:.2f} from {TASK_FEE_SOURCE} ({TASK_FEE_DATE})")
        return cls(
            task=None if device.simulator else (fee if own[0] is None else own[0]),
            shot=None if device.simulator else (listed["shot"] if own[1] is None else own[1]),
            minute=listed["minute"] if own[2] is None else own[2],
            source="; ".join(said) or "unknown: set price_per_shot_usd",
            date=device.updated_at,
        )

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
    price = Price.of(device, options)
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
    price = Price.of(device, options)
    if not device.simulator:
        return Cost(usd=price.qpu(shots), shots=shots)
    return Cost(usd=None if seconds is None else price.simulator(seconds), shots=shots)
