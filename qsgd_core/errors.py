"""The one exception tree: every message says what was asked, what was found, what to do.

The command line turns a :class:`ConfigError` into exit code 2 and any other
:class:`QSGDError` into exit code 1. No secret ever appears in a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str], n: int = 1, *, like: float = 0.6) -> list[str]:
    """Those of ``known`` that a misspelt ``name`` may mean, whatever its case; the best first.

    Args:
        name: what somebody typed.
        known: what there is.
        n: at most so many.
        like: how much alike they must be, from 0 to 1 for the same.
    """
    folded: dict[str, str] = {}
    for one in known:
        folded.setdefault(one.casefold(), one)
    return [folded[close] for close in get_close_matches(name.casefold(), folded, n, like)]


class QSGDError(Exception):
    """Root of everything QSGD raises on purpose.

    Attributes:
        nothing_made: of an error of :meth:`Backend.submit`: whoever raised it vouches that no job
            was made. Without it the job is looked for by its tag.
    """

    exit_code = 1
    nothing_made = False


@contextmanager
def before_any_job() -> Iterator[None]:
    """For the part of a ``submit`` that comes before its one request: no error of it made a job.

    Errors of other kinds, an SDK's say, are marked too.

    Example::

        with before_any_job():
            self.capabilities.require(self.name, work, shots=shots)
            body = self._translate(work)
        job_id = self._service.create(tag, body)
    """
    try:
        yield
    except Exception as error:
        vars(error)["nothing_made"] = True
        raise


class ConfigError(QSGDError):
    """What was asked cannot be done as asked; nothing was run and nothing was spent."""

    exit_code = 2


class UnknownBackendError(ConfigError):
    """No installed provider serves this backend name."""


class UnknownNameError(ConfigError):
    """No installed provider serves this perturbation, task, policy or observer name."""


class AmbiguousBackendError(ConfigError):
    """Several providers serve this backend name and none is preferred."""


class DuplicateNameError(ConfigError):
    """Two distributions claim the same name or prefix; raised for whoever uses it."""


class CapabilityError(ConfigError):
    """The simulator or backend cannot run the workload.

    Attributes:
        missing: one sentence per requirement that is not met.
    """

    def __init__(self, message: str, missing: Iterable[str] = ()) -> None:
        self.missing = tuple(missing)
        super().__init__(" ".join([message, *self.missing]))


class PluginError(QSGDError):
    """A plugin failed; only whoever named it sees this."""

    exit_code = 2


class PluginLoadError(PluginError):
    """A plugin could not be imported; the cause is chained."""


class PluginApiError(PluginError):
    """A plugin was written for another version of the hook specification."""


class PluginHookError(PluginError):
    """A plugin's hook raised or returned something that is not what the specification says."""


class BackendError(QSGDError):
    """A simulator or backend failed while running.

    Attributes:
        retryable: whether the same call may succeed later.
        provider_code: the vendor's own code, when it gave one.
        handle: JSON form of the job handle, when a job exists.
        may_have_spent: whether QPU time may have been spent.
        nothing_made: see :class:`QSGDError`.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool = False,
        provider_code: str | None = None,
        handle: str | None = None,
        may_have_spent: bool = False,
        nothing_made: bool = False,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.provider_code = provider_code
        self.handle = handle
        self.may_have_spent = may_have_spent
        self.nothing_made = nothing_made


class AuthError(BackendError):
    """Credentials are missing, wrong, expired, or lack access."""

    exit_code = 2


class BackendGoneError(BackendError):
    """The backend is retired, offline, or not part of this account."""

    exit_code = 2


class TransientError(BackendError):
    """The network or the service failed for a moment."""


class JobNotDoneError(BackendError):
    """The job has no result yet."""


class JobFailedError(BackendError):
    """The job ended without a result."""


class ResultCorruptError(BackendError):
    """The service answered, but not with the result of this job."""


class BudgetError(QSGDError):
    """Money or shots: see the ledger."""


class BudgetExceededError(BudgetError):
    """A reservation does not fit into what is left.

    Attributes:
        asked: integer amount asked for, in ``unit``.
        left: integer amount left, in ``unit``.
        unit: ``shots``, ``micro_usd`` or ``qpu_us``.
    """

    def __init__(self, message: str, *, asked: int, left: int, unit: str) -> None:
        super().__init__(message)
        self.asked = asked
        self.left = left
        self.unit = unit


class WaitInterruptedError(QSGDError):
    """Training was asked to stop while it waited for a result.

    The step it was in is not finished: go on from the last checkpoint.
    """

    exit_code = 130


def may_exist(error: Exception) -> bool:
    """Whether the submission that raised this may have made a job all the same."""
    made = isinstance(error, BackendError) and error.may_have_spent
    return made or not getattr(error, "nothing_made", False)
