"""The two contracts for running circuits: a synchronous simulator and a queued backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from qsgd_core.jobs import JobState, merged

if TYPE_CHECKING:
    from qsgd_core.capabilities import Capabilities
    from qsgd_core.circuits import Workload
    from qsgd_core.jobs import Cost, JobHandle, JobStatus, Limit, NoiseSnapshot, Quote, Result


class Simulator(ABC):
    """Runs circuits in this process and returns at once. Holds no state between calls.

    Attributes:
        name: the full name it was asked for by, e.g. ``aer:statevector``.
        capabilities: what may be asked of it.
    """

    name: str
    capabilities: Capabilities

    @abstractmethod
    def run(self, work: Workload, *, shots: int | None, seed: int) -> Result:
        """Run every row of every batch.

        Args:
            work: circuits and angles; fits :attr:`capabilities`.
            shots: per row; None asks for expectation values without shot noise.
            seed: 0 … 2**63 - 1. The caller derives a fresh one per call; rows and batches of one
                call must be independent of each other.

        Returns:
            One part per batch, rows in order: Bits when ``shots`` is given, else Expectations.

        Raises:
            CapabilityError: the workload does not fit.
            BackendError: the simulator failed.
        """


class Backend(ABC):
    """A queued service that costs time or money. Holds no state; its methods run in the courier.

    Attributes:
        name: the full name it was asked for by, e.g. ``ibm_fez``.
        capabilities: what may be asked of it.
    """

    name: str
    capabilities: Capabilities

    def resolve(self) -> str:
        """The full name of the device that :attr:`name` means now; called once, before a run.

        ``ibm:least_busy`` gives ``ibm_fez``, say; the run is pinned to it and a resume uses it
        again. Also the first look at the service, before anything is reserved.

        Raises:
            AuthError: credentials are missing or wrong.
            BackendGoneError: the device is retired, offline or not in this account; says which
                ones are there.
        """
        return self.name

    @abstractmethod
    def quote(self, work: Workload, *, shots: int) -> Quote:
        """What running ``work`` would cost. Sends nothing that is paid for."""

    def account(self) -> str | None:
        """Who is billed for what this backend submits; None if that cannot be told.

        Jobs without a budget of their own are charged to the account's default budget, so the label
        must stay the same from run to run and differ between accounts of all vendors; up to 60
        characters, shown to people, never a secret: ``aws-123456789012``.

        Raises:
            BackendError: the service could not be asked.
        """
        return None

    def calibration(self, work: Workload) -> NoiseSnapshot | None:
        """The vendor's own noise figures for the qubits ``work`` would run on; None if unknown."""
        return None

    def guard(self, usd: float, *, until: float) -> str | None:
        """Have the service itself refuse what would cost more than ``usd`` from now on.

        Called once a run, before its first job, when the budget is in dollars.

        Args:
            usd: what is left of the budget.
            until: when the guard may lapse, seconds since the epoch.

        Returns:
            A name for :meth:`unguard`; None if the service has no such limit for this device.

        Raises:
            BackendError: the service has one and did not set it.
        """
        return None

    def unguard(self, guard: str) -> None:  # noqa: B027  most services have nothing to lift
        """Lift what :meth:`guard` set. Idempotent."""

    @abstractmethod
    def submit(
        self, work: Workload, *, shots: int, tag: str, limit: Limit, seed: int | None = None
    ) -> JobHandle:
        """Send one job, once, findable under ``tag``.

        Raises:
            BackendError: there is no handle. The job is then looked for by its tag until the find
                horizon has passed, unless the error vouches with ``nothing_made=True`` that there
                is none: the service refused it, or nothing was sent (see
                :func:`~qsgd_core.errors.before_any_job`).
        """

    @abstractmethod
    def status(self, handle: JobHandle) -> JobStatus:
        """Where the job is."""

    @abstractmethod
    def fetch(self, handle: JobHandle) -> Result:
        """The result of a finished job.

        Raises:
            JobNotDoneError: it has not finished.
            JobFailedError: it ended without a result.
            ResultCorruptError: the answer is not this job's result.
        """

    @abstractmethod
    def find(self, tag: str) -> list[JobHandle]:
        """Every job ever submitted under ``tag``, as far as the vendor's list shows it by now."""

    def billed(self, handle: JobHandle) -> Cost | None:
        """What a job that has ended cost, as far as the service says by now.

        Asked again, with growing pauses and for up to a day, while an amount is not stated; and by
        ``qsgd jobs audit``. What is None is unknown, never 0: it is booked at its hold meanwhile.
        Override it if the result need not be read for it.

        Raises:
            BackendGoneError: the service does not have the job any more.
            BackendError: it could not be asked.
        """
        status = self.status(handle)
        if status.state is not JobState.DONE:
            return status.billed
        return merged(status.billed, self.fetch(handle).billed)

    def list_jobs(self, *, since: float) -> list[JobHandle] | None:
        """Every job that QSGD has submitted to this device, whatever its tag and its end.

        This is how jobs are found that nobody knows of: ``qsgd jobs audit`` compares them with the
        ledger. Without it, only the tags on the ledger are looked up.

        Args:
            since: leave out what was submitted before, seconds since the epoch.

        Returns:
            Handles with their tags, in any order; None if the service has no such list.

        Raises:
            BackendError: it could not be listed, or not to the end.
        """
        return None

    @abstractmethod
    def cancel(self, handle: JobHandle) -> None:
        """Ask the vendor to cancel the job. Idempotent; a finished job is left alone."""
