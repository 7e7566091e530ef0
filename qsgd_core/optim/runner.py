"""Running a workload for the engine: at once on a simulator, or as paid jobs on a backend."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from qsgd_core.backend import Simulator
from qsgd_core.circuits import Workload
from qsgd_core.jobs import Result
from qsgd_core.seeds import derive_seed

if TYPE_CHECKING:
    from qsgd_core.schedule.measure import Measurements


class Runner(Protocol):
    """Runs circuits for a step."""

    def run(self, work: Workload, *, shots: int | None, step: int) -> Result:
        """The result of ``work``, fresh."""

    def check(self, work: Workload, *, shots: int | None) -> None:
        """Raise CapabilityError if it is known beforehand that ``work`` cannot run."""


class SimulatorRunner:
    """Here and now; the draws of a step come from (seed, step)."""

    def __init__(self, simulator: Simulator, *, seed: int) -> None:
        self.simulator = simulator
        self.seed = seed

    def run(self, work: Workload, *, shots: int | None, step: int) -> Result:
        """See :class:`Runner`."""
        self.check(work, shots=shots)
        return self.simulator.run(work, shots=shots, seed=derive_seed("shots", self.seed, step))

    def check(self, work: Workload, *, shots: int | None) -> None:
        """See :class:`Runner`."""
        self.simulator.capabilities.require(self.simulator.name, work, shots=shots)


class BackendRunner:
    """As jobs on the ledger, sent by a courier. Nothing is opened before the first workload.

    Args:
        backend: the full name.
        options: vendor options, plain JSON values.
        ledger_url: where budgets and jobs are kept.
        budget: name of the budget and its cap in one unit; None for the default budget.
        run_id: of a run that goes on; None for a new one.
        log_folder: where the courier's log goes, one file a run.
        seed: of whatever the service lets us seed.
    """

    def __init__(
        self,
        backend: str,
        *,
        options: Mapping[str, Any],
        ledger_url: str,
        budget: str | None,
        run_id: str | None,
        log_folder: Path,
        seed: int,
    ) -> None:
        self.backend = backend
        self.options = dict(options)
        self.ledger_url = ledger_url
        self.budget = budget
        self.run_id = run_id or _new_run_id()
        self.log_folder = log_folder
        self.seed = seed
        self._goes_on = run_id is not None
        self._measurements: Measurements | None = None

    def go_on_with(self, run_id: str) -> None:
        """Be the run of a checkpoint: what it has paid for is there to be read."""
        if run_id != self.run_id:
            self.close()
            self.run_id, self._goes_on, self._measurements = run_id, True, None

    def run(self, work: Workload, *, shots: int | None, step: int) -> Result:
        """See :class:`Runner`; waits for the job."""
        if shots is None:
            shots = self.measurements().capabilities().default_shots or 1024
        seed = derive_seed("shots", self.seed, step)
        return self.measurements().measure(work, shots=shots, seed=seed, step=step)

    def check(self, work: Workload, *, shots: int | None) -> None:
        """Nothing is known before the courier has looked."""

    def measurements(self) -> Measurements:
        """The run's measurements, opened now if need be."""
        if self._measurements is None:
            from qsgd_core.schedule.budgets import open_budget
            from qsgd_core.schedule.ledger import Ledger
            from qsgd_core.schedule.measure import Measurements

            ledger = Ledger(self.ledger_url)
            self._measurements = Measurements(
                ledger,
                run=self.run_id,
                backend=self.backend,
                options=self.options,
                budget=open_budget(ledger, self.budget, run=self.run_id),
                log=self.log_folder / f"{self.run_id}.log",
            )
        return self._measurements

    def spending(self) -> dict[str, Any]:
        """Jobs, shots, dollars and QPU seconds of this run so far; None means unknown."""
        if self._measurements is None and not self._goes_on:
            return {"jobs": 0, "shots": 0, "cost_usd": 0.0, "qpu_s": 0.0}
        from qsgd_core.schedule.ledger import Ledger
        from qsgd_core.schedule.measure import spending

        return asdict(spending(Ledger(self.ledger_url), self.run_id))

    def close(self) -> None:
        """End the courier."""
        if self._measurements is not None:
            self._measurements.close()


def _new_run_id() -> str:
    """Date and time, and enough chance to be the run's own."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"
