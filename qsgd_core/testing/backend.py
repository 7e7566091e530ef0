"""Conformance of a queued backend: few jobs, sent once, read by many tests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

from qsgd_core.backend import Backend
from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import Workload
from qsgd_core.errors import BackendError, JobFailedError, JobNotDoneError
from qsgd_core.jobs import Cost, JobHandle, JobState, Limit, NoiseSnapshot, Quote
from qsgd_core.settings import secrets_in_environment
from qsgd_core.testing.guards import Heard, listening
from qsgd_core.testing.jobs import (
    JobPlan,
    JobSender,
    PlanPrice,
    Sent,
    plan,
    price,
    require_allowed,
    seed_of,
)
from qsgd_core.testing.measuring import (
    Measure,
    Measured,
    MeasuringConformance,
    Refuse,
    Repeat,
    digest,
)
from qsgd_core.testing.processes import collect_elsewhere
from qsgd_core.testing.report import COST

UNITS = ("usd", "qpu_s", "shots")
DAY_S = 86400.0
"""More than two clocks differ by, whatever the time zone."""


class BackendConformance(MeasuringConformance):
    """Tests of a :class:`~qsgd_core.backend.Backend`: give the fixture ``backend``.

    All circuits go out in as few jobs as the capabilities allow, and two or three more jobs are
    sent: one to see that two calls differ, one more if it is seeded, one to be cancelled.

    Attributes:
        allow_cost_usd: a paid backend is sent nothing unless its quotes stay within this.
        deadline_s: how long one job may take, its queue included.
    """

    GIVEN = MeasuringConformance.GIVEN | {"backend", "allow_cost_usd", "deadline_s"}
    allow_cost_usd: ClassVar[float | None] = None
    deadline_s: ClassVar[float] = 600.0

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        """The backend under test."""
        raise NotImplementedError(
            'Define the fixture: @pytest.fixture(scope="class") @classmethod def backend(cls): …'
        )

    # --- the jobs ---------------------------------------------------------------------------------

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def heard(cls) -> Iterator[Heard]:
        """Every log line, from before the backend is made."""
        with listening() as heard:
            yield heard

    @pytest.fixture(scope="class")
    @classmethod
    def resolved(cls, heard: Heard, backend: Backend) -> str:
        """The device that the name means; capabilities are settled from here on."""
        return backend.resolve()

    @pytest.fixture(scope="class")
    @classmethod
    def claims(cls, backend: Backend, resolved: str) -> Capabilities:
        """What the backend declares."""
        return backend.capabilities

    @pytest.fixture(scope="class")
    @classmethod
    def planned(cls, claims: Capabilities) -> JobPlan:
        """Every job that will be sent."""
        return plan(claims, shots=cls.shots)

    @pytest.fixture(scope="class")
    @classmethod
    def row_shots(cls, planned: JobPlan) -> int:
        """Shots per row."""
        return planned.shots

    @pytest.fixture(scope="class")
    @classmethod
    def quoted(cls, backend: Backend, planned: JobPlan) -> PlanPrice:
        """What they cost, asked before anything is sent."""
        return price(backend, planned)

    @pytest.fixture(scope="class")
    @classmethod
    def desk(
        cls, request: pytest.FixtureRequest, backend: Backend, planned: JobPlan, quoted: PlanPrice
    ) -> Iterator[JobSender]:
        """Sends jobs, if they may be paid; cancels what is left over."""
        require_allowed(backend, quoted, cls.allow_cost_usd)
        desk = JobSender(backend, planned.shots, cls.deadline_s)
        yield desk
        bills = request.config.stash.setdefault(COST, [])
        bills.append(None)  # unknown, should the backend fail to tell
        try:
            desk.close()
        finally:
            bills[-1] = desk.spent()

    @pytest.fixture(scope="class")
    @classmethod
    def probes(cls, desk: JobSender, planned: JobPlan) -> list[Sent]:
        """The jobs with the probes, sent one after the other and then waited for."""
        jobs = []
        for index, work in enumerate(planned.works[: len(planned.probes)]):
            jobs.append(desk.send(f"probes-{index}", work, seed=seed_of(f"probes-{index}")))
        for job in jobs:
            desk.collect(job)
        return jobs

    @pytest.fixture(scope="class")
    @classmethod
    def job(cls, probes: list[Sent]) -> Sent:
        """A job that is done."""
        return probes[0]

    @pytest.fixture(scope="class")
    @classmethod
    def measured(cls, planned: JobPlan, probes: list[Sent]) -> Measure:
        """Each probe's share of the job it was part of."""

        def measure(name: str) -> Measured:
            if name in planned.left_out:
                pytest.skip(planned.left_out[name])
            index = next(i for i, job in enumerate(planned.probes) if name in job)
            result = probes[index].result
            assert result is not None, "the job has no result"
            total = sum(len(batches) for batches in planned.probes[index].values())
            assert len(result.parts) == total, "the number of parts is wrong"
            start = 0
            for other, batches in planned.probes[index].items():
                if other == name:
                    break
                start += len(batches)
            batches = planned.probes[index][name]
            return Measured(batches, result.parts[start : start + len(batches)], planned.shots)

        return measure

    @pytest.fixture(scope="class")
    @classmethod
    def repeat(cls, desk: JobSender, planned: JobPlan) -> Repeat:
        """The twins in a job of their own; calls 1 and 2 have the same seed."""
        known: dict[int, Measured] = {}

        def again(call: int) -> Measured:
            if call not in known:
                job = desk.send(f"again-{call}", planned.again, seed=seed_of("again"))
                parts = desk.collect(job).parts
                known[call] = Measured(planned.again.batches, parts, planned.shots)
            return known[call]

        return again

    @pytest.fixture(scope="class")
    @classmethod
    def cancelled(cls, desk: JobSender, planned: JobPlan) -> Sent:
        """A job that was cancelled twice as soon as it was sent."""
        job = desk.send("cancel", planned.again, seed=seed_of("cancel"))
        desk.backend.cancel(job.handle)
        desk.backend.cancel(job.handle)
        if desk.wait(job).state is JobState.DONE:
            desk.collect(job)  # for its bill
        return job

    @pytest.fixture(scope="class")
    @classmethod
    def refuse(cls, backend: Backend, desk: JobSender) -> Refuse:
        """Submits a workload that should be refused."""

        def submit(work: Workload, shots: int) -> object:
            tag = desk.tag("refused")
            try:
                handle = desk.submit(work, tag=tag, limit=Limit(usd=0.0), seed=1, shots=shots)
            finally:
                assert not backend.find(tag), "a job was sent all the same"
            return handle

        return submit

    @pytest.fixture(scope="class")
    @classmethod
    def served_name(cls, backend: Backend) -> str:
        """The name it is asked for by."""
        return backend.name

    @pytest.fixture(scope="class")
    @classmethod
    def secret_values(cls) -> tuple[str, ...]:
        """The credentials that are really in the environment."""
        return secrets_in_environment()

    @pytest.fixture(scope="class")
    @classmethod
    def spoken(cls, backend: Backend, job: Sent, cancelled: Sent) -> Callable[[], Iterable[object]]:
        """Whatever the backend shows of itself and of its jobs."""

        def say() -> Iterable[object]:
            yield repr(backend)
            yield repr(backend.capabilities)
            for sent in (job, cancelled):
                yield sent.handle.to_json()
                yield from map(repr, (sent.handle, sent.quote, sent.early, sent.status))
                yield repr(sent.result)

        return say

    # --- before anything is sent ------------------------------------------------------------------

    def test_it_says_what_it_is(
        self, backend: Backend, resolved: str, claims: Capabilities
    ) -> None:
        """A name, a device that it resolves to, and capabilities that allow shots.

        If this fails: set ``self.name`` to the name it was asked for by, return the device's full
        name from ``resolve()``, and set ``self.capabilities`` at the latest there.
        """
        assert isinstance(backend, Backend), "it is not derived from Backend"
        assert backend.name, "its name is empty"
        assert isinstance(resolved, str), "resolve() gives a name"
        assert resolved, "resolve() gave an empty name"
        assert isinstance(claims, Capabilities), "it has no Capabilities"
        assert claims.sampled, "a backend gives shots"
        assert not claims.closed_form, "a closed form may stand in for ideal simulators only"

    def test_every_job_is_quoted(
        self, quoted: PlanPrice, planned: JobPlan, claims: Capabilities
    ) -> None:
        """A quote per workload: all its shots, the expected cost within the worst, a source.

        If this fails: ``Quote(expected=Cost(...), worst=Cost(...), source=...)``; what is not known
        is None, never 0; ``shots`` is rows × shots, unless rows share a register.
        """
        for work, quote in zip(planned.works, quoted.quotes, strict=True):
            assert isinstance(quote, Quote), f"quote returned {type(quote).__name__}"
            for unit in UNITS:
                expected, worst = getattr(quote.expected, unit), getattr(quote.worst, unit)
                if expected is not None and worst is not None:
                    assert 0 <= expected <= worst, f"expected {unit} is above the worst case"
            if quote.worst.shots is not None:
                # Rows that share a register are measured together, by the same shots.
                side_by_side = claims.max_total_qubits is not None
                taken = planned.shots * (1 if side_by_side else work.n_rows)
                assert quote.worst.shots >= taken, f"{taken} shots will be taken"
            assert quote.source or not claims.paid, "a price needs a source"

    def test_calibration_fits_the_workload(self, backend: Backend, planned: JobPlan) -> None:
        """The vendor's noise figures are about the qubits that the widest circuit runs on.

        If this fails: give one physical qubit and one pair of readout probabilities per qubit of
        the widest circuit; return None if the vendor has no such figures.
        """
        work = planned.works[0]
        snapshot = backend.calibration(work)
        if snapshot is None:
            pytest.skip("calibration() gives None: no noise figures")
        assert isinstance(snapshot, NoiseSnapshot), f"found {type(snapshot).__name__}"
        assert snapshot.stamp, "the snapshot has no stamp"
        assert len(snapshot.physical_qubits) == work.n_qubits, "one physical qubit per qubit"
        assert len(snapshot.readout) == work.n_qubits, "one readout pair per qubit"
        rates = [rate for pair in snapshot.readout for rate in pair]
        rates += [rate for gates in snapshot.gate_error.values() for rate in gates.values()]
        assert all(0 <= rate <= 1 for rate in rates), "error rates are probabilities"

    # --- handles ----------------------------------------------------------------------------------

    def test_a_handle_survives_json(self, desk: JobSender, job: Sent) -> None:
        """A handle is plain data: it can be written down and read back.

        If this fails: keep numbers, strings, lists and dicts in ``JobHandle.extra``; no tuple, no
        array, no object of the SDK.
        """
        handle = job.handle
        assert isinstance(handle, JobHandle), f"submit returned {type(handle).__name__}"
        assert JobHandle.from_json(handle.to_json()) == handle, "JSON changes the handle"
        json.dumps(handle.extra, allow_nan=False)
        assert handle.job_id, "the handle has no job id"
        assert handle.backend, "the handle does not name the backend"
        assert handle.tag.startswith(desk.run), "the handle does not carry the tag"

    def test_another_process_collects_the_result(self, backend: Backend, job: Sent) -> None:
        """A second process, given the name and the handle, fetches the same bits.

        If this fails: put whatever ``fetch`` needs into ``JobHandle.extra`` and keep nothing of it
        on the object. The process finds the backend by its name, so its plugin must be installed,
        and made with ``options`` of the test class.
        """
        assert job.result is not None
        found = collect_elsewhere(backend.name, self.options, job.handle)
        assert found == [digest(part) for part in job.result.parts], "it fetched something else"

    def test_a_result_can_be_fetched_again(self, backend: Backend, job: Sent) -> None:
        """Fetching twice gives the same bits.

        If this fails: a crash between fetching and storing would lose a paid result; ask the vendor
        for a result that can be read more than once.
        """
        assert job.result is not None
        again = backend.fetch(JobHandle.from_json(job.handle.to_json()))
        assert [digest(p) for p in again.parts] == [digest(p) for p in job.result.parts]

    def test_a_job_is_found_by_its_tag(self, backend: Backend, desk: JobSender, job: Sent) -> None:
        """Within the find horizon the tag leads to the job, once, with a handle that serves.

        If this fails: submit with the tag where the vendor lists jobs by it, send at most one
        request that can make a job, and raise ``find_horizon_s`` if the list lags.
        """
        found = desk.find(job.handle.tag, at_least=1)
        assert [h.job_id for h in found] == [job.handle.job_id], "not exactly the one job"
        assert job.result is not None
        result = backend.fetch(found[0])
        assert [digest(p) for p in result.parts] == [digest(p) for p in job.result.parts]

    def test_the_list_of_all_jobs_has_each_once_with_its_tag(
        self, backend: Backend, desk: JobSender, job: Sent
    ) -> None:
        """``list_jobs`` has the job once it is found by its tag, and nothing that came before.

        If this fails: give a handle with the whole tag for every job that carries your mark, go
        through all pages, and leave out what was submitted before ``since``.
        """
        desk.find(job.handle.tag, at_least=1)
        listed = backend.list_jobs(since=job.handle.submitted_at - DAY_S)
        if listed is None:
            pytest.skip("list_jobs() gives None: the service cannot list")
        ids = [handle.job_id for handle in listed if handle.tag == job.handle.tag]
        assert ids == [job.handle.job_id], "not exactly the one job under its tag"
        assert backend.list_jobs(since=time.time() + DAY_S) == [], "jobs of before were listed"

    def test_what_a_job_cost_can_be_asked_for_again(self, backend: Backend, job: Sent) -> None:
        """``billed`` says after the end what the result or the status said, where it is known.

        If this fails: take the amounts from the same place in ``billed``, ``status`` and ``fetch``.
        """
        later, first = backend.billed(job.handle), job.billed
        if later is None or first is None:
            pytest.skip("the vendor reports no bill")
        for unit in UNITS:
            now, before = getattr(later, unit), getattr(first, unit)
            assert None in (now, before) or now == before, f"{unit}: {before}, then {now}"

    def test_a_tag_that_was_never_used_finds_nothing(
        self, backend: Backend, desk: JobSender
    ) -> None:
        """``find`` gives an empty list, and no job of another tag that begins alike.

        If this fails: compare whole tags, and return [] where the vendor says "not found".
        """
        assert backend.find(desk.tag("never")) == [], "found a job under an unused tag"
        assert backend.find(desk.run) == [], "found a job by the beginning of its tag"

    def test_a_job_that_does_not_exist_is_an_error(self, backend: Backend, job: Sent) -> None:
        """Status and fetch of a made-up job id raise BackendError, with the vendor's cause.

        If this fails: translate the SDK's exceptions: ``raise BackendError(...) from error``.
        """
        unknown = replace(job.handle, job_id=f"{job.handle.job_id[:-4]}0000")
        for ask in (backend.status, backend.fetch):
            with pytest.raises(BackendError):
                ask(unknown)

    # --- the end of a job -------------------------------------------------------------------------

    def test_a_job_has_no_result_before_it_is_done(self, job: Sent) -> None:
        """Fetched too early, a job raises JobNotDoneError.

        If this fails: ``fetch`` is one look, not a wait: raise JobNotDoneError unless the vendor
        says that the job has ended.
        """
        if job.early is None or not isinstance(job.early, Exception):
            pytest.skip("the job was done when it was first asked for")
        assert isinstance(job.early, JobNotDoneError), f"found {job.early!r}"

    def test_cancelling_twice_is_fine(self, cancelled: Sent) -> None:
        """A job cancelled twice ends, cancelled or done.

        If this fails: in ``cancel``, leave a job alone that has ended or is being cancelled.
        """
        assert cancelled.status is not None
        assert cancelled.status.state in (JobState.CANCELLED, JobState.DONE), cancelled.status

    def test_a_cancelled_job_has_no_result(self, backend: Backend, cancelled: Sent) -> None:
        """Fetching it raises JobFailedError.

        If this fails: raise JobFailedError, with the vendor's reason, for every final state but
        done.
        """
        assert cancelled.status is not None
        if cancelled.status.state is JobState.DONE:
            pytest.skip("the job was done before it could be cancelled")
        with pytest.raises(JobFailedError):
            backend.fetch(cancelled.handle)

    def test_cancelling_a_finished_job_leaves_it_alone(self, backend: Backend, job: Sent) -> None:
        """A job that is done stays done, and keeps its result.

        If this fails: in ``cancel``, look at the state first, or take the vendor's "already
        finished" for an answer.
        """
        backend.cancel(job.handle)
        assert backend.status(job.handle).state is JobState.DONE, "cancel changed a finished job"
        assert backend.fetch(job.handle).parts, "cancel took the result away"

    def test_the_bill_stays_within_the_quote(self, probes: list[Sent], cancelled: Sent) -> None:
        """No job costs more than its quote's worst case, in any unit that both name.

        If this fails: quote what the vendor may bill at worst: rounding up, minimum times, fees.
        """
        bills = [(job, job.billed) for job in [*probes, cancelled] if job.billed is not None]
        if not bills:
            pytest.skip("the vendor reports no bill")
        for job, bill in bills:
            assert isinstance(bill, Cost), f"found {type(bill).__name__}"
            for unit in UNITS:
                billed, worst = getattr(bill, unit), getattr(job.quote.worst, unit)
                if billed is not None and worst is not None:
                    assert billed <= worst * (1 + 1e-9), f"{unit}: {billed} billed, {worst} quoted"
