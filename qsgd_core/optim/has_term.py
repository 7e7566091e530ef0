"""What users can ask of whatever carries the term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qsgd_core.optim.describe import Description
from qsgd_core.optim.engine import Engine
from qsgd_core.optim.source.build import Origin
from qsgd_core.optim.term.effect import Stats

if TYPE_CHECKING:
    from qsgd_core.schedule.forecast.forecast import Forecast


class HasTerm:
    """Readings, forecast and end of a term: of :class:`~qsgd_core.QSGD` and of an attachment."""

    _term: Engine

    @property
    def origin(self) -> Origin:
        """The backend and perturbation that were chosen, as logs and checkpoints have them."""
        return self._term.origin

    def qsgd_stats(self) -> Stats:
        """Steps, effect size and sources so far. Synchronises the device."""
        return self._term.stats()

    def qsgd_describe(self) -> Description:
        """What the term touches when every parameter has a gradient. Runs nothing."""
        return self._term.describe()

    def qsgd_estimate(
        self,
        total_steps: int | None = None,
        *,
        budget: str | None = None,
        backend: str | None = None,
        backend_options: Mapping[str, Any] | None = None,
        shots: int | None = None,
        every: int | None = None,
    ) -> Forecast:
        """What a run of ``total_steps`` steps would cost, and what it would get for it.

        Sends nothing that is paid for and writes nothing. Asks the service for its prices and its
        calibration, in a process of its own; where it cannot be reached, the price table.

        Args:
            total_steps: optimizer steps of the whole run, instead of the optimizer's own, as are
                the following.
            budget: an amount or a name on the ledger.
            backend: where circuits would run.
            backend_options: its options.
            shots: per circuit.
            every: steps between two refreshes. None in both: as often as the budget allows.

        Raises:
            ConfigError: something that cannot be done as asked.
            BudgetError: the budget does not pay for one job, or nobody knows whether it does.
            BackendError: the service cannot be asked, and the price table has no row for it.
        """
        given = {
            "total_steps": total_steps,
            "budget": budget,
            "backend": backend,
            "shots": shots,
            "every": every,
        }
        changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        if backend is not None or backend_options is not None:
            changes["backend_options"] = backend_options
        return self._term.estimate(changes)

    def close(self, *, finished: bool | None = None) -> None:
        """End what runs beside the loop; a step reopens it. Jobs that run stay on the ledger.

        Args:
            finished: whether this is the end of the run, at which jobs that still wait in a queue
                are cancelled. None: whether ``total_steps`` have been taken.
        """
        self._term.close(finished=finished)
