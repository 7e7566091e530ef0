"""A look at a queued service before anything is sent: what one refresh would cost and be worth.

The look is taken in a child process, which imports the SDK and ends; nothing paid for is sent.
"""

from __future__ import annotations

import base64
import json
import math
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Workload
from qsgd_core.errors import AuthError, BackendError, CapabilityError, TransientError
from qsgd_core.jobs import Cost, NoiseSnapshot
from qsgd_core.prices import Price
from qsgd_core.schedule.child import command
from qsgd_core.schedule.failures import unpack_error
from qsgd_core.schedule.packing.turns import rotation, take
from qsgd_core.schedule.packing.ways import MANY, Tiles
from qsgd_core.schedule.storage import pack_workload
from qsgd_core.schedule.twin import models
from qsgd_core.schedule.twin.twin import Twin, nominal

SURVEY_MODULE = "qsgd_core.children.survey"
TIMEOUT_S = 240.0
"""Logging in and reading a calibration take seconds; a service that is down may hang."""
SAMPLE = 256
"""Blocks that the twin's error is averaged over."""


@dataclass(frozen=True)
class JobQuote:
    """``count`` jobs of one refresh that cost the same, and what one of them does.

    ``rows`` are the circuits of one job, which may each hold several blocks.
    """

    rows: int
    count: int
    expected: Cost
    worst: Cost


@dataclass(frozen=True)
class Errors:
    """What s would be off by, RMS over blocks and qubits; None where nobody can say.

    Attributes:
        twin: between the hardware and its free simulation by the vendor's noise figures, as far as
            those figures are uncertain.
        shots: of one refresh, for want of more shots.
    """

    twin: float | None = None
    shots: float | None = None


@dataclass(frozen=True)
class Survey:
    """What is known of a service before a run.

    Attributes:
        device: what the name means now; the name itself if nobody could be asked.
        shots: per circuit.
        tiles: blocks side by side in one circuit.
        quotes: the jobs of one refresh.
        source: where the prices are from.
        effective_date: since when they hold, if that is known.
        errors: see :class:`Errors`.
        account: who is billed, see :meth:`~qsgd_core.backend.Backend.account`.
        problem: why the service was not asked; None when it was.
    """

    device: str
    shots: int
    tiles: int
    quotes: tuple[JobQuote, ...]
    source: str
    effective_date: str | None
    errors: Errors
    account: str | None = None
    problem: str | None = None

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Survey:
        """Read the JSON form."""
        data = json.loads(text)
        quotes = tuple(
            JobQuote(q["rows"], q["count"], Cost(**q["expected"]), Cost(**q["worst"]))
            for q in data.pop("quotes")
        )
        return cls(quotes=quotes, errors=Errors(**data.pop("errors")), **data)


def survey(
    backend: str,
    options: Mapping[str, Any],
    work: Workload,
    *,
    shots: int | None,
    tiles: Tiles,
    listed: Price | None,
) -> Survey:
    """Ask the service; where it cannot be reached, the price table.

    Args:
        backend: the full name.
        options: validated vendor options, plain JSON values.
        work: one refresh.
        shots: per circuit; None for the service's default.
        tiles: blocks side by side.
        listed: the device's row of the price table.

    Raises:
        AuthError, TransientError: the service cannot be reached and there is no row.
        QSGDError: what else the look ended with.
    """
    try:
        return _ask(backend, options, work, shots=shots, tiles=tiles)
    except (AuthError, TransientError) as error:
        if listed is None:
            raise
        return from_table(backend, work, shots=shots, listed=listed, problem=str(error))


def from_table(
    backend: str, work: Workload, *, shots: int | None, listed: Price, problem: str
) -> Survey:
    """The same from the price table alone, no two blocks in one circuit."""
    shots = MANY if shots is None else shots
    most = listed.rows_per_job or work.n_rows
    jobs = {most: work.n_rows // most, work.n_rows % most: 1}
    quotes = tuple(
        JobQuote(rows, count, cost := listed.cost(rows * shots), cost)
        for rows, count in jobs.items()
        if rows and count
    )
    return Survey(
        device=backend,
        shots=shots,
        tiles=1,
        quotes=quotes,
        source=listed.source,
        effective_date=listed.effective_date,
        errors=expected_errors(work, None, shots=shots),
        problem=problem,
    )


def expected_errors(
    work: Workload,
    snapshot: NoiseSnapshot | None,
    *,
    shots: int,
    sites: Sequence[NDArray[np.intp]] | None = None,
) -> Errors:
    """Of the free twin at the vendor's figures, and of ``shots`` shots.

    The first follows from how far the vendor's figures are to be trusted
    (:mod:`qsgd_core.schedule.twin.prior`): the variance of ⟨Z⟩ to first order in the noise
    parameters.

    Args:
        work: one refresh at the present weights.
        snapshot: the vendor's calibration; None for typical figures.
        shots: per circuit.
        sites: int (B, n) per batch: the register position of each qubit; None means 0 … n-1.
    """
    twin = Twin(nominal(snapshot, work, sites))
    rows = rotation([batch.n_rows for batch in work.batches], SAMPLE, 0)
    variance, noise = [], []
    try:
        for i, (batch, index) in enumerate(zip(work.batches, rows, strict=True)):
            if not len(index):
                continue
            (some,) = take(Workload((batch,)), [index]).batches
            n = batch.circuit.n_qubits
            where = np.tile(np.arange(n), (len(index), 1)) if sites is None else sites[i][index]
            models.check(some)
            table = models.SiteTable.of(twin.estimate, int(where.max()) + 1)
            linear = models.linearise(some, where, table)
            variance.append(np.square(linear.slope).sum(axis=(2, 3)).ravel())
            noise.append((1.0 - np.square(linear.z)).ravel() / shots)
    except CapabilityError:  # no twin of circuits like these: nothing is said
        return Errors()
    return Errors(twin=_rms(variance), shots=_rms(noise))


def _rms(variances: Sequence[NDArray[np.float64]]) -> float:
    return math.sqrt(float(np.concatenate(variances).clip(min=0.0).mean()))


def _ask(
    backend: str,
    options: Mapping[str, Any],
    work: Workload,
    *,
    shots: int | None,
    tiles: Tiles,
) -> Survey:
    asked = {
        "backend": backend,
        "options": dict(options),
        "work": base64.b64encode(pack_workload(work)).decode(),
        "shots": shots,
        "tiles": tiles,
    }
    try:
        done = subprocess.run(  # noqa: S603  our own interpreter and module
            command(SURVEY_MODULE),
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TransientError(
            f"{backend!r} did not answer within {TIMEOUT_S:.0f} s.", retryable=True
        ) from error
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BackendError(
            f"The process that asks {backend!r} for its prices ended with status "
            f"{done.returncode}: {last}"
        ) from error
    if "error" in answer:
        raise unpack_error(answer["error"])
    return Survey.from_json(answer["survey"])
