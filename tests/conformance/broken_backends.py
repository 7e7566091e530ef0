"""Backends that are wrong in one way each; BROKEN says which test of the kit must notice.

They derive from what ``qsgd new kitqueue --kind backend`` writes, which must be importable.
Run by tests/test_conformance_backends.py through the kit's own runner.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from qsgd_core.errors import BackendError
from qsgd_core.jobs import Bits, Cost, JobHandle, JobState, JobStatus, NoiseSnapshot, Quote, Result
from qsgd_core.testing import BackendConformance
from qsgd_kitqueue.backend import KitqueueBackend
from qsgd_kitqueue.options import KitqueueOptions

OPTIONS = {"folder": tempfile.mkdtemp(prefix="kitqueue-"), "queue_s": 0.02}


class Good(KitqueueBackend):
    def __init__(self):
        options = KitqueueOptions(**OPTIONS)
        super().__init__("kitqueue", options)


class SmallJobs(Good):
    """Right, and so narrow that the probes take many jobs."""

    def __init__(self):
        super().__init__()
        self.capabilities = replace(self.capabilities, max_rows=10, max_qubits=2)


class PaidWithinTheLimit(Good):
    def __init__(self):
        super().__init__()
        self.capabilities = replace(self.capabilities, paid=True)

    def quote(self, work, *, shots):
        return Quote(Cost(usd=0.1), Cost(usd=0.5), "a price list", "2026-01-01")


class Paid(PaidWithinTheLimit):
    """Nothing may be sent: the test class allows no cost."""

    def submit(self, work, **kwargs):
        (Path(OPTIONS["folder"]) / "money-was-spent").touch()
        return super().submit(work, **kwargs)


class TwoJobs(Good):
    def submit(self, work, **kwargs):
        super().submit(work, **kwargs)
        return super().submit(work, **kwargs)


class DeniesItsJob(PaidWithinTheLimit):
    """The job is made, and the error says that it was not."""

    def submit(self, work, **kwargs):
        super().submit(work, **kwargs)
        raise BackendError("out of order", nothing_made=True)

    def status(self, handle):
        return replace(super().status(handle), billed=Cost(usd=0.1))

    def fetch(self, handle):
        return replace(super().fetch(handle), billed=Cost(usd=0.1))


class NeverFound(Good):
    def find(self, tag):
        return []


class FoundByItsBeginning(Good):
    def find(self, tag):
        folder = Path(OPTIONS["folder"])
        tags = sorted({self._service.job(f.stem)["tag"] for f in folder.glob("*.json")})
        return [h for t in tags if t.startswith(tag) for h in KitqueueBackend.find(self, t)]


class TupleInTheHandle(Good):
    def submit(self, work, **kwargs):
        return replace(super().submit(work, **kwargs), extra={"rows": (1, 2)})


class TokenInTheHandle(Good):
    def submit(self, work, **kwargs):
        handle = super().submit(work, **kwargs)
        return replace(handle, extra={"auth": os.environ["KITQUEUE_API_KEY"]})


class KnowsItsJobsOnlyHere(Good):
    """The rows are turned round by something that only this object knows."""

    def fetch(self, handle):
        result = super().fetch(handle)
        return Result(tuple(Bits(p.values[:, ::-1]) for p in result.parts), billed=result.billed)


class EarlyFetchFails(Good):
    def fetch(self, handle):
        if self._job(handle)["state"] == "queued":
            raise BackendError("not there")
        return super().fetch(handle)


class UnknownJobIsAKeyError(Good):
    def _job(self, handle):
        try:
            return super()._job(handle)
        except BackendError:
            raise KeyError(handle.job_id) from None


class BilledAboveTheQuote(Good):
    def status(self, handle):
        return JobStatus(super().status(handle).state, billed=Cost(usd=2.0))

    def fetch(self, handle):
        return replace(super().fetch(handle), billed=Cost(usd=2.0))


class BilledOtherwiseLater(Good):
    def billed(self, handle):
        return Cost(usd=5.0)


class ListsOnlyItsMark(Good):
    def list_jobs(self, *, since):
        names = [path.stem for path in Path(OPTIONS["folder"]).glob("*.json")]
        found = [(name, self._service.job(name)) for name in names]
        return [
            JobHandle(self.name, name, "qsgd", job["created"])
            for name, job in found
            if job["created"] >= since
        ]


class ListsWhatCameBefore(ListsOnlyItsMark):
    def list_jobs(self, *, since):
        return [
            replace(handle, tag=self._service.job(handle.job_id)["tag"])
            for handle in super().list_jobs(since=0.0)
        ]


class WorstCaseBelowTheExpected(Good):
    def quote(self, work, *, shots):
        quote = super().quote(work, shots=shots)
        return replace(quote, expected=Cost(usd=1.0), worst=Cost(usd=0.5))


class QuotesOneRow(Good):
    def quote(self, work, *, shots):
        return replace(super().quote(work, shots=shots), worst=Cost(usd=0.0, shots=shots))


class SecondCancelFails(Good):
    def cancel(self, handle):
        if self._job(handle)["state"] == "cancelled":
            raise BackendError("already cancelled")
        super().cancel(handle)


class CancelUndoesAFinishedJob(Good):
    def cancel(self, handle):
        job = self._job(handle)
        job.pop("state")
        self._service._write(handle.job_id, {**job, "cancelled": True})


class CancelledJobsAreEmpty(Good):
    def fetch(self, handle):
        if self._job(handle)["state"] == "cancelled":
            return Result(())
        return super().fetch(handle)


class LimitsNotChecked(Good):
    def submit(self, work, *, shots, tag, limit, seed=None):
        kept, self.capabilities = (
            self.capabilities,
            replace(self.capabilities, max_qubits=None, max_rows=None, max_executions=None),
        )
        try:
            return super().submit(work, shots=shots, tag=tag, limit=limit, seed=seed)
        finally:
            self.capabilities = kept


class RowsReversed(Good):
    def fetch(self, handle):
        result = super().fetch(handle)
        return Result(tuple(Bits(p.values[::-1]) for p in result.parts), billed=result.billed)


class AlwaysTheSameShots(Good):
    def submit(self, work, *, shots, tag, limit, seed=None):
        return super().submit(work, shots=shots, tag=tag, limit=limit, seed=7)


class SeedForgotten(Good):
    def submit(self, work, *, shots, tag, limit, seed=None):
        return super().submit(work, shots=shots, tag=tag, limit=limit, seed=None)


class JobsFail(Good):
    def status(self, handle):
        status = super().status(handle)
        return JobStatus(JobState.FAILED, "out of order") if status.state.final else status


class CalibrationOfOneQubit(Good):
    def calibration(self, work):
        return NoiseSnapshot("today", (4,), ((0.01, 0.02),))


BROKEN = {
    Paid: "test_rows_keep_their_order",
    DeniesItsJob: "test_rows_keep_their_order",
    TwoJobs: "test_a_job_is_found_by_its_tag",
    NeverFound: "test_a_job_is_found_by_its_tag",
    FoundByItsBeginning: "test_a_tag_that_was_never_used_finds_nothing",
    TupleInTheHandle: "test_a_handle_survives_json",
    TokenInTheHandle: "test_no_secret_is_printed",
    KnowsItsJobsOnlyHere: "test_another_process_collects_the_result",
    EarlyFetchFails: "test_a_job_has_no_result_before_it_is_done",
    UnknownJobIsAKeyError: "test_a_job_that_does_not_exist_is_an_error",
    BilledOtherwiseLater: "test_what_a_job_cost_can_be_asked_for_again",
    ListsOnlyItsMark: "test_the_list_of_all_jobs_has_each_once_with_its_tag",
    ListsWhatCameBefore: "test_the_list_of_all_jobs_has_each_once_with_its_tag",
    BilledAboveTheQuote: "test_the_bill_stays_within_the_quote",
    WorstCaseBelowTheExpected: "test_every_job_is_quoted",
    QuotesOneRow: "test_every_job_is_quoted",
    SecondCancelFails: "test_cancelling_twice_is_fine",
    CancelUndoesAFinishedJob: "test_cancelling_a_finished_job_leaves_it_alone",
    CancelledJobsAreEmpty: "test_a_cancelled_job_has_no_result",
    LimitsNotChecked: "test_a_limit_is_refused_before_anything_runs[max_qubits]",
    RowsReversed: "test_rows_keep_their_order",
    SeedForgotten: "test_the_same_seed_gives_the_same_bits",
    AlwaysTheSameShots: "test_two_calls_differ",
    JobsFail: "test_rows_keep_their_order",
    CalibrationOfOneQubit: "test_calibration_fits_the_workload",
}
"""Wrong backend -> the test that must fail."""


def suite(kind: type[Good]) -> type[BackendConformance]:
    """The one subclass and the one fixture."""

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls):
        return kind()

    given = {"backend": backend, "options": OPTIONS, "shots": 200, "deadline_s": 20.0}
    if issubclass(kind, PaidWithinTheLimit) and kind is not Paid:
        given["allow_cost_usd"] = 5.0
    return type(kind.__name__, (BackendConformance,), given)


for _kind in (Good, SmallJobs, PaidWithinTheLimit, *BROKEN):
    globals()[f"Test{_kind.__name__}"] = suite(_kind)
