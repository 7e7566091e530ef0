"""Records that cross a boundary: job handles, statuses, results, quotes, limits, noise snapshots.

All are frozen data without live objects or credentials. Those that are stored have a JSON form.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from qsgd_core.errors import ResultCorruptError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from qsgd_core.circuits import CircuitBatch, Workload, ZString

Number = TypeVar("Number", int, float)


class JobState(StrEnum):
    """Where a job is in its life at the vendor."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether the state can no longer change."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True)
class JobStatus:
    """A job's state, with what the vendor says about it.

    ``billed`` is what a failed or cancelled job cost, where the vendor says so; None is unknown.
    """

    state: JobState
    reason: str | None = None
    queue_position: int | None = None
    billed: Cost | None = None


@dataclass(frozen=True)
class JobHandle:
    """Names a job for any process that uses the same backend name.

    Attributes:
        backend: the backend's full name, as resolved.
        job_id: the vendor's own identifier.
        tag: the tag it was submitted with.
        submitted_at: seconds since the epoch, UTC.
        extra: what the adapter needs to read the result back (plain JSON values).
    """

    backend: str
    job_id: str
    tag: str
    submitted_at: float
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> JobHandle:
        """Read the JSON form."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Cost:
    """An amount in each unit; None means unknown, which is not the same as 0."""

    usd: float | None = None
    qpu_s: float | None = None
    shots: int | None = None

    @classmethod
    def total(cls, costs: Iterable[Cost]) -> Cost:
        """All together; what is unknown of one is unknown of all."""
        each = list(costs)
        return cls(
            usd=sum_known(cost.usd for cost in each),
            qpu_s=sum_known(cost.qpu_s for cost in each),
            shots=sum_known(cost.shots for cost in each),
        )

    def times(self, n: float) -> Cost:
        """So many of it; shots are rounded up."""
        return Cost(
            None if self.usd is None else n * self.usd,
            None if self.qpu_s is None else n * self.qpu_s,
            None if self.shots is None else math.ceil(n * self.shots),
        )


def dollars(amount: float) -> str:
    """``$12.34``; below ten cents two digits, however small: ``$0.0084``."""
    if amount >= 0.1 or amount == 0:
        return f"${amount:,.2f}"
    return f"${amount:.2g}" if amount >= 1e-4 else f"${amount:.1e}"


def qpu_seconds(seconds: float) -> str:
    """``12.3 s``; below ten seconds three digits, however little: ``0.0042 s``."""
    return f"{seconds:,.1f} s" if seconds >= 10 else f"{seconds:.3g} s"


def say_cost(usd: float | None, qpu_s: float | None) -> str | None:
    """``$0.25 and 12.3 s of QPU time``, without what is unknown; None if both are."""
    said = [] if usd is None else [dollars(usd)]
    said += [] if qpu_s is None else [f"{qpu_seconds(qpu_s)} of QPU time"]
    return " and ".join(said) or None


def sum_known(amounts: Iterable[Number | None]) -> Number | None:
    """The sum; None, which is unknown, if one of them is."""
    each = list(amounts)
    known = [amount for amount in each if amount is not None]
    return cast("Number", sum(known)) if len(known) == len(each) else None


def merged(first: Cost | None, second: Cost | None) -> Cost | None:
    """``first``, with what it leaves unknown taken from ``second``."""
    if first is None or second is None:
        return first or second
    known = {k: v for k, v in asdict(first).items() if v is not None}
    return Cost(**{**asdict(second), **known})


@dataclass(frozen=True)
class Quote:
    """What a submission is expected to cost, and what it can cost at worst."""

    expected: Cost
    worst: Cost
    source: str = ""
    effective_date: str | None = None


@dataclass(frozen=True)
class Limit:
    """Upper bounds that a submission must make the service enforce where it can."""

    usd: float | None = None
    qpu_s: float | None = None
    shots: int | None = None


@dataclass(frozen=True)
class NoiseSnapshot:
    """A backend's own calibration, per physical qubit, at one moment.

    Attributes:
        stamp: the vendor's calibration identifier or date.
        physical_qubits: the qubits that the widest circuit's qubits 0 … n-1 start on.
        readout: (P(1|0), P(0|1)) per qubit of the circuit, where it is measured.
        gate_error: average gate error per gate name and qubits, e.g. ``{"cx": {(0, 1): 0.007}}``.
    """

    stamp: str
    physical_qubits: tuple[int, ...]
    readout: tuple[tuple[float, float], ...]
    gate_error: dict[str, dict[tuple[int, ...], float]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Bits:
    """Measured bit strings of one batch.

    Attributes:
        values: uint8 (B, shots, n), 0 or 1; column j is qubit j; rows in the batch's order.
    """

    values: NDArray[np.uint8]

    def expectations(self, observables: tuple[ZString, ...]) -> NDArray[np.float64]:
        """Estimate ⟨Z-string⟩ of each observable: float64 (B, n_observables)."""
        import numpy as np

        columns = []
        for string in observables:
            parity = np.bitwise_xor.reduce(self.values[:, :, list(string)], axis=2)
            columns.append(1.0 - 2.0 * parity.mean(axis=1, dtype=np.float64))
        return np.stack(columns, axis=1)


@dataclass(frozen=True, eq=False)
class Expectations:
    """Expectation values of one batch's observables without shot noise.

    Attributes:
        values: float64 (B, n_observables), each in [-1, 1]; rows in the batch's order.
    """

    values: NDArray[np.float64]


Part: TypeAlias = Bits | Expectations


@dataclass(frozen=True, eq=False)
class Result:
    """What one call or job gave: one part per batch of the workload, in order.

    Attributes:
        parts: Bits or Expectations, one per batch.
        executed_at: when the circuits ran, seconds since the epoch; None when unknown.
        physical_qubits: where qubit i of every circuit of ``len(physical_qubits)`` qubits starts,
            the widest of the workload; narrower ones may run elsewhere. None when unknown.
        calibration_stamp: the calibration under which it ran, when known.
        billed: what the vendor billed, when known.
    """

    parts: tuple[Part, ...]
    executed_at: float | None = None
    physical_qubits: tuple[int, ...] | None = None
    calibration_stamp: str | None = None
    billed: Cost | None = None

    def expectations(self, work: Workload, *, of: str | None = None) -> list[NDArray[np.float64]]:
        """⟨observables⟩ of each batch, float64 (B, n_observables), in the workload's order.

        Args:
            work: what was asked for.
            of: who gave the result, for the message of an error.

        Raises:
            ResultCorruptError: the parts do not fit the workload, or hold what cannot be.
        """
        if of is not None:
            try:
                return self.expectations(work)
            except ResultCorruptError as error:
                raise ResultCorruptError(f"{of} gave a wrong result. {error}") from None
        if len(self.parts) != len(work.batches):
            raise ResultCorruptError(
                f"A workload of {len(work.batches)} batches got {len(self.parts)} results."
            )
        self._check_what_comes_beside()
        return [_expectations(p, b) for p, b in zip(self.parts, work.batches, strict=True)]

    def _check_what_comes_beside(self) -> None:
        at, qubits, billed = self.executed_at, self.physical_qubits, self.billed
        if at is not None and not (isinstance(at, (int, float)) and math.isfinite(at)):
            raise ResultCorruptError(f"executed_at is {at!r}, and no time in seconds.")
        if qubits is not None and not all(isinstance(q, Integral) and q >= 0 for q in qubits):
            raise ResultCorruptError(f"physical_qubits are {qubits!r}, and not numbers of qubits.")
        if billed is not None and not isinstance(billed, Cost):
            raise ResultCorruptError(f"billed is a {type(billed).__name__}, and not a Cost.")


ROUNDING = 1e-5
"""By so much may an expectation value leave [-1, 1]: state vectors come in float32 too."""


def _expectations(part: Part, batch: CircuitBatch) -> NDArray[np.float64]:
    """⟨observables⟩ of a part that fits ``batch`` and holds possible values; else raise."""
    import numpy as np

    if not isinstance(part, (Bits, Expectations)):
        raise ResultCorruptError(f"A batch got a {type(part).__name__}, not Bits or Expectations.")
    values = np.asarray(part.values)
    n_rows, bits = batch.n_rows, isinstance(part, Bits)
    shape = (n_rows, batch.circuit.n_qubits) if bits else (n_rows, len(batch.observables))
    found = values.shape[:1] + values.shape[2:] if bits and values.ndim == 3 else values.shape
    if found != shape:
        wanted = f"({n_rows}, shots, {shape[1]})" if bits else f"{shape}"
        raise ResultCorruptError(f"A batch of shape {wanted} got a result of shape {values.shape}.")
    if values.dtype.kind not in ("biuf" if not bits else "biu"):
        raise ResultCorruptError(f"A batch got values of dtype {values.dtype}.")
    if not bits:
        return _in_range(values.astype(np.float64, copy=False))
    if not values.size and n_rows:
        raise ResultCorruptError(f"A batch of shape {(n_rows, 'shots', shape[1])} got no shots.")
    if values.dtype.kind != "b" and values.size and (values.max() > 1 or values.min() < 0):
        wrong = values[(values != 0) & (values != 1)].flat[0]
        raise ResultCorruptError(f"A measured bit is {wrong}, and 0 and 1 are possible.")
    return Bits(values.astype(np.uint8, copy=False)).expectations(batch.observables)


def _in_range(z: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    wrong = ~(np.abs(z) <= 1 + ROUNDING)
    if wrong.any():
        row, column = (int(k) for k in np.argwhere(wrong)[0])
        raise ResultCorruptError(
            f"Expectation value {column} of row {row} is {z[row, column]}, outside [-1, 1]."
        )
    return z
