"""When a paid backend is asked to measure again, and what stands in between two measurements."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
"""Its multiples fill the unit interval evenly, whichever of them are taken."""


@dataclass(frozen=True)
class View:
    """What a policy knows at a step boundary.

    Attributes:
        step: optimizer steps taken before this one.
        total_steps: of the whole run; None if nobody said.
        every: the interval that the user asked for; None leaves it to the budget.
        asked_at: the step of the last refresh; None before the first.
        affordable: refreshes that what is left of the budget still pays for, at the expected
            cost; None as long as the cost is unknown.
        last_useful: the last step at which a refresh can still arrive before the end, by the
            run's own queue times; None if unknown.
        stride: steps from one look of the scheduler to the next: a refresh can be asked for at
            every ``stride``-th step.
    """

    step: int
    total_steps: int | None
    every: int | None
    asked_at: int | None
    affordable: float | None
    last_useful: int | None
    stride: int = 1


class Policy(ABC):
    """When to refresh. Pure: the same view, the same answer.

    Attributes:
        between: what s is made of between refreshes: ``twin``, the prediction of a model that
            every result corrects, or ``hold``, the last result itself.
        measures: False for a policy that never asks.
        waits: True if training stands still until each refresh has arrived.
    """

    between: Literal["twin", "hold"] = "twin"
    measures: bool = True
    waits: bool = False

    @abstractmethod
    def due(self, view: View) -> bool:
        """Whether to ask for a refresh now. Asked only when one may be sent."""


def paced(view: View) -> bool:
    """Evenly over the run: as many refreshes as the budget pays for, or every k-th step.

    What is left of the budget is spread over what is left of the steps, or of those whose refresh
    still arrives in time: with n more refreshes affordable after the last one, the next is due an
    (n+1)-th of the way. That is rounded to a whole number of looks, now up and now down, so that
    spending neither leads nor lags.
    """
    if view.asked_at is None:
        return True
    if view.every is not None:
        return view.step >= view.asked_at + view.every
    if view.total_steps is None or view.affordable is None or view.affordable < 1:
        return False
    n = int(view.affordable)
    end = view.total_steps
    if view.last_useful is not None:
        end = min(end, view.last_useful + 1)
    looks = math.floor((end - view.asked_at) / (n + 1) / view.stride + GOLDEN * n % 1.0)
    return view.step >= view.asked_at + view.stride * max(looks, 1)
