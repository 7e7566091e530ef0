"""What a run may still buy, by the courier's last account of its budget."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from qsgd_core.jobs import Cost
from qsgd_core.schedule.messages import Account
from qsgd_core.schedule.money import Amount, Cap


@dataclass(frozen=True)
class Purse:
    """A budget and the price of a refresh, as of one moment.

    Attributes:
        caps: of each capped unit.
        expected: what a refresh is expected to cost.
        worst: what it may cost, and is held for it.
        shots: per circuit.
        tiles: blocks side by side in one circuit.
        queue_s: what the newest jobs on this backend took from submission to result.
        backend: its resolved name.
    """

    caps: tuple[Cap, ...]
    expected: Amount
    worst: Amount
    shots: int
    tiles: int
    queue_s: tuple[float, ...]
    backend: str

    @classmethod
    def of(cls, account: Account) -> Purse | None:
        """By what the courier has said; None as long as it does not know what a refresh costs."""
        quote = account.quote
        if quote is None or account.shots is None:
            return None
        return cls(
            caps=tuple(Cap(**cap) for cap in account.caps),
            expected=Amount.from_cost(Cost(**quote["expected"])),
            worst=Amount.from_cost(Cost(**quote["worst"])),
            shots=account.shots,
            tiles=account.tiles,
            queue_s=tuple(account.queue_s),
            backend=account.backend,
        )

    def affordable(self, asked: int) -> float | None:
        """Refreshes that it pays for beside ``asked`` unsettled ones; None if that is unknown."""
        counts = []
        for cap in self.caps:
            each = self.expected.of(cap.unit)
            if each is None:
                return None
            if each > 0:
                counts.append(max(cap.unbilled - each * asked, 0) / each)
        return min(counts, default=None)

    def holds(self, asked: int, *, keep: float = 0.0) -> bool:
        """Whether a refresh's worst case can be reserved beside ``asked`` unsettled ones.

        Args:
            asked: refreshes that are out.
            keep: share of every cap that must be left over.
        """
        for cap in self.caps:
            worst = self.worst.of(cap.unit)
            if worst is None or cap.overrun:
                return False
            taken = max(cap.reserved, worst * asked) + cap.spent
            if taken + worst > cap.cap * (1.0 - keep):
                return False
        return True

    def could_hold(self) -> bool:
        """Whether the caps allow a refresh's worst case at all, were nothing of them spent."""
        worsts = [(cap.cap, self.worst.of(cap.unit)) for cap in self.caps]
        return all(worst is not None and worst <= cap for cap, worst in worsts)

    def usual_queue_s(self) -> float | None:
        """The median time to a result; None before the first."""
        return statistics.median(self.queue_s) if self.queue_s else None
