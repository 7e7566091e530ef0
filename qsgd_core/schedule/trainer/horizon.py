"""How long the run still is, in steps and seconds, and what can still arrive in it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from qsgd_core.policy import View
from qsgd_core.schedule.trainer.purse import Purse


class Horizon:
    """A run's clock, from what its own steps and refreshes have taken.

    Args:
        total: steps of the whole run; None if nobody said.
        stands_still: whether training waits for each refresh, so that none comes too late.

    Attributes:
        delays: steps from each refresh to its answer, of those that training did not wait for.
    """

    def __init__(self, total: int | None, *, stands_still: bool = False) -> None:
        self.total = total
        self.delays: list[int] = []
        self._stands_still = stands_still
        self._began: tuple[int, float] | None = None
        self._stood_s = 0.0
        self._plan: _Leg | None = None

    def pass_step(self, step: int, now: float) -> None:
        """A step begins at ``now``, in seconds of a timer that is never set back."""
        if self._began is None:
            self._began = (step, now)

    def stood(self, seconds: float) -> None:
        """Training has waited for a result: time that steps do not take."""
        self._stood_s += seconds

    def timed(self, step: int) -> int:
        """Steps that have been timed."""
        return 0 if self._began is None else step - self._began[0]

    def step_s(self, step: int, now: float) -> float | None:
        """Seconds that a step takes, on average; None before the second one."""
        if self._began is None or step <= self._began[0]:
            return None
        return max(now - self._began[1] - self._stood_s, 1e-9) / (step - self._began[0])

    def last_useful(self, step: int, now: float, purse: Purse | None) -> int | None:
        """The last step whose refresh arrives before the end, in half of the cases; None: unknown.

        By the delays of this run; before there are any, by the backend's usual time to a result.
        """
        if self.total is None or self._stands_still:
            return None
        if self.delays:
            return self.total - 1 - int(statistics.median(self.delays))
        queue = None if purse is None else purse.usual_queue_s()
        step_s = self.step_s(step, now)
        if queue is None or step_s is None:
            return None
        return self.total - 1 - int(min(queue / step_s, self.total))

    def planned(self, step: int, now: float, purse: Purse | None) -> float | None:
        """The share of the budget that is to be spent by now; None without an end.

        A straight line to the last step whose refresh is of use. When that becomes known, or
        changes, the plan goes on from where it was: what should have been done is of the past.
        """
        if not self.total:
            return None
        last = self.last_useful(step, now, purse)
        end = self.total if last is None else min(self.total, max(last, 1))
        if self._plan is None:
            self._plan = _Leg(-1, 0.0, end)
        elif end != self._plan.end and step > self._plan.step:
            self._plan = _Leg(step - 1, self._plan.share(step - 1), end)
        return self._plan.share(step)


def refreshes_to_come(view: View, *, last: int | None) -> int | None:
    """Refreshes that both the budget and the steps that are left allow; None: neither is known.

    Args:
        view: before the first refresh.
        last: no refresh is asked for after this step; None for none but the run's last.
    """
    if view.total_steps is None:
        return None if view.affordable is None else int(view.affordable)
    end = view.total_steps if last is None else min(view.total_steps, last + 1)
    spacing = -(-(view.every or 1) // view.stride) * view.stride
    most = max(1, -(-(end - view.step) // spacing))
    return most if view.affordable is None else min(most, int(view.affordable))


@dataclass(frozen=True)
class _Leg:
    """Part of a plan: from a share of the budget at a step to all of it at the end."""

    step: int
    spent: float
    end: int

    def share(self, step: int) -> float:
        left = self.end - 1 - self.step
        done = 1.0 if left <= 0 else min(1.0, (step - self.step) / left)
        return self.spent + (1.0 - self.spent) * max(done, 0.0)
