"""What a run on a paid backend is: one frozen record that trainer, courier and record share."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from qsgd_core.schedule.options import ScheduleOptions, Wait

DEFAULT_BUDGET = "default"
"""Stands for one of the ledger's default budgets until the first quote tells which."""


class PaidRun(BaseModel):
    """Made when the run begins; then sent to the courier and written into the run's record.

    Attributes:
        run_id: the run's id on the ledger.
        backend: full name.
        backend_options: vendor options, plain JSON values.
        budget_name: of the budget that pays.
        policy: name of what decides when to refresh.
        wait: for no result, for the first one, or for each.
        every: steps between refreshes; None: by budget and ``total_steps``, or by a function.
        shots: per circuit; None: the backend's default, or by a function.
        total_steps: of the whole run; None: unknown.
        seed: of the run.
        record: path of the run's record; None keeps none.
        origin: who serves backend and perturbation, plain JSON values.
        schedule: the scheduler's options.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_id: str
    backend: str = ""
    backend_options: dict[str, Any] = Field(default_factory=dict)
    budget_name: str = DEFAULT_BUDGET
    policy: str = ""
    wait: Wait = "first"
    every: int | None = None
    shots: int | None = None
    total_steps: int | None = None
    seed: int = 0
    record: str | None = None
    origin: dict[str, Any] = Field(default_factory=dict)
    schedule: ScheduleOptions = ScheduleOptions()

    def header(self) -> dict[str, Any]:
        """What the record says of the run: all but what is of use on this machine alone."""
        said = self.model_dump(exclude={"origin", "schedule", "record", "backend_options"})
        return {"kind": "backend", **self.origin, **said, **self.schedule.model_dump()}
