"""Conformance of a simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest

from qsgd_core.backend import Simulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import Workload
from qsgd_core.errors import CapabilityError
from qsgd_core.jobs import Expectations, Result
from qsgd_core.seeds import derive_seed
from qsgd_core.testing.agreement import assert_agrees
from qsgd_core.testing.guards import CANARIES, Heard, listening, without_network
from qsgd_core.testing.measuring import (
    Measure,
    Measured,
    MeasuringConformance,
    Refuse,
    Repeat,
    choose_shots,
)
from qsgd_core.testing.probes import NAMES, Batches, UnclaimedError, build

SHOTS = 2048


class SimulatorConformance(MeasuringConformance):
    """Tests of a :class:`~qsgd_core.backend.Simulator`: give the fixture ``simulator``."""

    GIVEN = MeasuringConformance.GIVEN | {"simulator"}

    @pytest.fixture(scope="class")
    @classmethod
    def simulator(cls) -> Simulator:
        """The simulator under test."""
        raise NotImplementedError(
            'Define the fixture: @pytest.fixture(scope="class") @classmethod def simulator(cls): …'
        )

    # --- how probes are run -----------------------------------------------------------------------

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def heard(cls) -> Iterator[Heard]:
        """No network, made-up credentials in the environment, and every log line kept."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in CANARIES.items():
                patch.setenv(name, value)
            with without_network(), listening() as heard:
                yield heard

    @pytest.fixture(scope="class")
    @classmethod
    def claims(cls, heard: Heard, simulator: Simulator) -> Capabilities:
        """What the simulator declares."""
        return simulator.capabilities

    @pytest.fixture(scope="class")
    @classmethod
    def row_shots(cls, claims: Capabilities) -> int:
        """Shots per row."""
        return choose_shots(claims, cls.shots, default=SHOTS)

    @pytest.fixture(scope="class")
    @classmethod
    def sampling(cls, simulator: Simulator, claims: Capabilities, row_shots: int) -> Measure:
        """Runs a probe with shots, in a call of its own."""

        def run(name: str, *, seed: int) -> Measured:
            if not claims.sampled:
                pytest.skip("capabilities.sampled is False")
            batches = _built(name, claims)
            result = simulator.run(Workload(batches), shots=row_shots, seed=seed)
            assert isinstance(result, Result), f"run returned {type(result).__name__}"
            return Measured(batches, tuple(result.parts), row_shots)

        return run  # type: ignore[return-value]

    @pytest.fixture(scope="class")
    @classmethod
    def measured(cls, sampling: Callable[..., Measured]) -> Measure:
        """Each probe is run once."""
        known: dict[str, Measured] = {}

        def measure(name: str) -> Measured:
            if name not in known:
                known[name] = sampling(name, seed=derive_seed("conformance", name))
            return known[name]

        return measure

    @pytest.fixture(scope="class")
    @classmethod
    def repeat(cls, sampling: Callable[..., Measured]) -> Repeat:
        """The twins again; a call with another seed in between shows what is kept."""

        def again(call: int) -> Measured:
            if call == 2:
                sampling("twins", seed=derive_seed("conformance", "between"))
            return sampling("twins", seed=derive_seed("conformance", "repeat"))

        return again

    @pytest.fixture(scope="class")
    @classmethod
    def refuse(cls, simulator: Simulator, claims: Capabilities) -> Refuse:
        """Runs a workload that should be refused."""

        def run(work: Workload, shots: int) -> object:
            return simulator.run(work, shots=shots if claims.sampled else None, seed=1)

        return run

    @pytest.fixture(scope="class")
    @classmethod
    def served_name(cls, simulator: Simulator) -> str:
        """The name it is asked for by."""
        return simulator.name

    @pytest.fixture(scope="class")
    @classmethod
    def secret_values(cls) -> tuple[str, ...]:
        """The made-up credentials."""
        return tuple(CANARIES.values())

    @pytest.fixture(scope="class")
    @classmethod
    def spoken(
        cls, simulator: Simulator, claims: Capabilities, row_shots: int
    ) -> Callable[[], Iterable[object]]:
        """Whatever the simulator shows of itself."""

        def say() -> Iterable[object]:
            yield repr(simulator)
            yield repr(claims)
            work = Workload(_built("twins", claims))
            yield repr(simulator.run(work, shots=row_shots if claims.sampled else None, seed=3))
            try:
                simulator.run(work, shots=None if claims.sampled else 1, seed=3)
            except CapabilityError as error:
                yield repr(error)

        return say

    # --- tests of simulators only -----------------------------------------------------------------

    def test_it_says_what_it_is(self, simulator: Simulator, claims: Capabilities) -> None:
        """A name, and capabilities that allow something.

        If this fails: set ``self.name`` to the name it was asked for by and ``self.capabilities``
        to ``Capabilities(...)``, with ``exact`` or ``sampled`` true.
        """
        assert isinstance(simulator, Simulator), "it is not derived from Simulator"
        assert isinstance(simulator.name, str), "it has no name"
        assert simulator.name, "its name is empty"
        assert isinstance(claims, Capabilities), "it has no Capabilities"
        assert claims.exact or claims.sampled, "it claims neither exact values nor shots"
        assert not claims.paid, "a simulator runs here and now: what is paid for is a Backend"

    @pytest.mark.parametrize("probe", NAMES)
    def test_exact_values_are_exact(
        self, simulator: Simulator, claims: Capabilities, probe: str
    ) -> None:
        """``capabilities.exact``: ``shots=None`` gives ⟨observables⟩ in float64, no shot noise.

        If this fails: compute the expectation of each of ``batch.observables`` (products of Z) from
        the state, not from samples; or declare ``exact=False``.
        """
        if not claims.exact:
            pytest.skip("capabilities.exact is False")
        batches = _built(probe, claims)
        result = simulator.run(Workload(batches), shots=None, seed=1)
        assert len(result.parts) == len(batches), "the number of parts is wrong"
        values = []
        for part in result.parts:
            assert isinstance(part, Expectations), f"shots=None gave {type(part).__name__}"
            assert part.values.dtype == np.float64, f"float64, not {part.values.dtype}"
            values.append(part.values)
        assert_agrees(values, batches, shots=None, noisy=claims.noisy)

    def test_what_it_cannot_do_is_refused(self, simulator: Simulator, claims: Capabilities) -> None:
        """Shots of a simulator that only computes exactly, or the other way round.

        If this fails: begin with ``self.capabilities.require(self.name, work, shots=shots)``; never
        answer an exact request with samples.
        """
        if claims.exact and claims.sampled:
            pytest.skip("it does both: exact values and shots")
        work = Workload(_built("twins", claims))
        with pytest.raises(CapabilityError):
            simulator.run(work, shots=None if claims.sampled else 100, seed=1)

    @pytest.mark.parametrize("shots", [1, 7, 333])
    def test_any_allowed_number_of_shots_is_kept_to(
        self, simulator: Simulator, claims: Capabilities, shots: int
    ) -> None:
        """Few shots, and numbers that no block size divides.

        If this fails: hand ``shots`` on as it is; a result with one shot still has a shot axis.
        """
        if not claims.sampled:
            pytest.skip("capabilities.sampled is False")
        work = Workload(_built("order", claims))
        if problems := claims.missing(work, shots=shots):
            pytest.skip(" ".join(problems))
        for part in simulator.run(work, shots=shots, seed=5).parts:
            assert part.values.shape[1] == shots, "the number of shots is wrong"

    def test_probes_in_one_call_do_not_disturb_each_other(
        self, simulator: Simulator, claims: Capabilities, row_shots: int
    ) -> None:
        """Batches of many structures and sizes in one workload agree as they do alone.

        If this fails while the probes pass alone: results are handed to the wrong batch, or
        something that is kept per call belongs to one structure.
        """
        batches = tuple(b for name in NAMES for b in _claimed(name, claims))
        shots = row_shots if claims.sampled else None
        if problems := claims.missing(Workload(batches), shots=shots):
            pytest.skip(" ".join(problems))
        result = simulator.run(Workload(batches), shots=shots, seed=derive_seed("all"))
        found = result.expectations(Workload(batches))
        assert_agrees(found, batches, shots=shots, noisy=claims.noisy)

    def test_the_workload_is_left_as_it_was(
        self, simulator: Simulator, claims: Capabilities, row_shots: int
    ) -> None:
        """The angles that are handed in are not changed.

        If this fails: copy before you scale or wrap angles in place.
        """
        work = Workload(_built("order", claims))
        before = work.digest()
        simulator.run(work, shots=row_shots if claims.sampled else None, seed=9)
        assert work.digest() == before, "run changed the workload"


def _built(name: str, has: Capabilities) -> Batches:
    try:
        return build(name, has)
    except UnclaimedError as reason:
        pytest.skip(str(reason))


def _claimed(name: str, has: Capabilities) -> Batches:
    try:
        return build(name, has)
    except UnclaimedError:
        return ()
