"""What simulators and backends have in common: circuits go in, rows of bits come out.

A subclass says how a probe is run; every test here reads what came back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import GATES, Workload
from qsgd_core.errors import CapabilityError, ConfigError, QSGDError
from qsgd_core.jobs import Bits, Part
from qsgd_core.plugins.registry import default_registry
from qsgd_core.testing.agreement import assert_agrees, assert_independent, histogram
from qsgd_core.testing.guards import Heard, assert_no_secret
from qsgd_core.testing.limits import LIMITS, beyond
from qsgd_core.testing.probes import Batches, UnclaimedError
from qsgd_core.testing.processes import heavy_imports
from qsgd_core.testing.standard import Standard

FEWEST_SHOTS = 100
"""Below, 5 sigma is so wide that a wrong answer would pass."""


@dataclass(frozen=True)
class Measured:
    """A probe's batches and what came back for them."""

    batches: Batches
    parts: tuple[Part, ...]
    shots: int

    def expectations(self) -> list[NDArray[np.float64]]:
        """⟨observables⟩, float64 (B, n_observables) of each batch."""
        return [
            part.expectations(batch.observables) if isinstance(part, Bits) else part.values
            for part, batch in zip(self.parts, self.batches, strict=True)
        ]

    def rows(self) -> list[NDArray[np.uint8]]:
        """Bits of every row of every batch, uint8 (shots, n) each."""
        return [row for part in self.parts if isinstance(part, Bits) for row in part.values]


Measure: TypeAlias = Callable[[str], Measured]
"""Runs a probe by name, or gives what it gave before; skips when it is not claimed."""
Repeat: TypeAlias = Callable[[int], Measured]
"""Runs the probe ``twins`` again; calls 1 and 2 have one seed, which ``Measure`` does not use."""
Refuse: TypeAlias = Callable[[Workload, int], object]
"""Hands a workload in, which should raise."""


def require_enough_shots(asked: int | None) -> None:
    """Raise ConfigError if so few shots were asked for that the kit would prove nothing."""
    if asked is not None and asked < FEWEST_SHOTS:
        raise ConfigError(
            f"{asked} shots a row prove nothing at 5 sigma. Use {FEWEST_SHOTS} or more."
        )


def choose_shots(has: Capabilities, asked: int | None, *, default: int) -> int:
    """Shots per row of the kit's circuits: what was asked for, within the declared limits.

    Raises:
        ConfigError: fewer than :data:`FEWEST_SHOTS` were asked for.
    """
    require_enough_shots(asked)
    most = default if has.max_shots is None else min(default, has.max_shots)
    return max(has.min_shots, most) if asked is None else asked


def digest(part: Part) -> str:
    """SHA-256 of a part's bytes, hexadecimal."""
    return hashlib.sha256(part.values.tobytes()).hexdigest()


class MeasuringConformance(Standard):
    """Tests of whatever runs circuits.

    Attributes:
        shots: per row; None for a number that suits.
        options: the vendor options that the object was made with, for a second process.
        secrets: further strings that must appear nowhere.
    """

    GIVEN = frozenset({"shots", "options", "secrets"})
    shots: ClassVar[int | None] = None
    options: ClassVar[Mapping[str, Any]] = {}
    secrets: ClassVar[tuple[str, ...]] = ()

    # --- the form of what comes back --------------------------------------------------------------

    def test_every_batch_gets_its_part_in_order(self, measured: Measure) -> None:
        """Batches of different structures and sizes in one call, one part each, in their order.

        If this fails: return ``Result(tuple(parts))`` with one part per ``work.batches``, in that
        order, whatever order the SDK answers in.
        """
        for name in ("columns", "twins"):
            found = measured(name)
            assert len(found.parts) == len(found.batches), "the number of parts is wrong"
            for part, batch in zip(found.parts, found.batches, strict=True):
                assert part.values.shape[0] == batch.n_rows, "a part has the wrong number of rows"

    def test_bits_have_the_right_shape_and_type(self, measured: Measure) -> None:
        """Each part is ``Bits`` of a uint8 array (rows, shots, qubits) of zeros and ones.

        If this fails: build the array with ``dtype=numpy.uint8`` and axes row, shot, qubit; keep
        every shot, not only the counts.
        """
        found = measured("twins")
        for part, batch in zip(found.parts, found.batches, strict=True):
            assert isinstance(part, Bits), f"shots give Bits, not {type(part).__name__}"
            assert isinstance(part.values, np.ndarray), "Bits.values is not a numpy array"
            assert part.values.dtype == np.uint8, f"Bits are uint8, not {part.values.dtype}"
            assert part.values.ndim == 3, f"Bits have three axes, not {part.values.shape}"
            assert part.values.shape[2] == batch.circuit.n_qubits, "one column per qubit"
            assert np.isin(part.values, (0, 1)).all(), "a bit is 0 or 1"

    def test_the_number_of_shots_is_exactly_what_was_asked_for(self, measured: Measure) -> None:
        """Every row has the asked number of shots, no more and no fewer.

        If this fails: hand ``shots`` to the SDK for each row; round to nothing, drop nothing.
        """
        found = measured("order")
        for part in found.parts:
            assert part.values.shape[1] == found.shots, "the number of shots is wrong"

    # --- who is who -------------------------------------------------------------------------------

    def test_rows_keep_their_order(self, measured: Measure, claims: Capabilities) -> None:
        """Row r of the result belongs to row r of the angles: each row has a pattern of its own.

        If this fails: look at how results are collected; vendors answer in reverse, sorted by
        name, or as they finish.
        """
        _assert_patterns(measured("order"), claims, "rows are not in the order of the angles")

    def test_column_j_is_qubit_j(self, measured: Measure, claims: Capabilities) -> None:
        """Column j of the bits is qubit j: one qubit at a time is turned to 1.

        If this fails: reverse the vendor's bit strings (Qiskit writes qubit 0 at the right end),
        and undo the layout of the device.
        """
        _assert_patterns(measured("columns"), claims, "columns are not in the order of the qubits")

    def test_slots_keep_their_columns(self, measured: Measure, claims: Capabilities) -> None:
        """Slot k takes column k of the angles, with twelve slots used in another order.

        If this fails: bind parameters by name or position of your own, not in the SDK's order:
        sorted as text, p10 comes before p2.
        """
        _assert_agrees(measured("slots"), claims)

    def test_columns_of_one_shot_belong_together(
        self, measured: Measure, claims: Capabilities
    ) -> None:
        """The two bits of a Bell pair agree shot by shot.

        If this fails: keep the joint outcome of each shot; do not draw qubits, or shuffle columns,
        one by one.
        """
        _assert_agrees(measured("joint"), claims)

    # --- the right physics ------------------------------------------------------------------------

    @pytest.mark.parametrize("gate", GATES)
    def test_a_gate_agrees_with_the_state_vector(
        self, measured: Measure, claims: Capabilities, gate: str
    ) -> None:
        """Each claimed gate, in each direction, at 5 sigma of the core's state vector.

        If this fails: compare your translation with ``GATES``: r* is exp(-i·angle·P/2) in radians,
        cx is (control, target). Some SDKs count in turns or with the opposite sign.
        """
        _assert_agrees(measured(f"gate {gate}"), claims)

    def test_all_claimed_gates_agree_in_one_circuit(
        self, measured: Measure, claims: Capabilities
    ) -> None:
        """A random circuit of every claimed gate, with slots and with fixed angles.

        If this fails while the single gates pass: the order of the gates, or an angle that is
        fixed in the circuit, is lost.
        """
        _assert_agrees(measured("together"), claims)

    def test_the_papers_circuit_agrees(self, measured: Measure, claims: Capabilities) -> None:
        """Two layers of Eq. 5: slots that are used twice, phases, a chain of CNOTs.

        If this fails while the single gates pass: a slot that occurs in several gates must get the
        same angle in all of them.
        """
        _assert_agrees(measured("ansatz"), claims)

    # --- randomness -------------------------------------------------------------------------------

    def test_identical_rows_are_independent(self, measured: Measure) -> None:
        """Rows with the same angles, and batches alike, have shots of their own.

        If this fails: do not seed every row or batch alike, do not run equal circuits only once,
        and turn off the SDK's cache.
        """
        assert_independent(measured("twins").rows(), what="identical rows")

    def test_two_calls_differ(self, measured: Measure, repeat: Repeat) -> None:
        """The same circuits with another seed give other shots.

        If this fails: hand ``seed`` on to the SDK, hashed if it takes fewer bits, and let nothing
        answer from a cache.
        """
        first, second = measured("twins").rows(), repeat(1).rows()
        assert_independent([first[0], second[0]], what="two calls")

    def test_the_same_seed_gives_the_same_bits(self, repeat: Repeat, claims: Capabilities) -> None:
        """``capabilities.seeded``: the same workload and seed give the same bits, at any time.

        If this fails: derive all randomness of a call from its seed, and keep none between calls;
        or declare ``seeded=False``.
        """
        if not claims.seeded:
            pytest.skip("capabilities.seeded is False")
        first, second = repeat(1), repeat(2)
        for a, b in zip(first.parts, second.parts, strict=True):
            assert np.array_equal(a.values, b.values), "the same seed gave other bits"

    # --- what is refused, and what is never said --------------------------------------------------

    @pytest.mark.parametrize("limit", LIMITS)
    def test_a_limit_is_refused_before_anything_runs(
        self, refuse: Refuse, claims: Capabilities, row_shots: int, limit: str
    ) -> None:
        """What is beyond a declared limit raises CapabilityError at once.

        If this fails: begin with ``self.capabilities.require(self.name, work, shots=shots)``.
        """
        try:
            work, shots = beyond(limit, claims, shots=row_shots)
        except UnclaimedError as reason:
            pytest.skip(str(reason))
        with pytest.raises(CapabilityError) as caught:
            refuse(work, shots)
        assert caught.value.missing, "CapabilityError does not say what is missing"

    def test_no_secret_is_printed(
        self, spoken: Callable[[], Iterable[object]], secret_values: tuple[str, ...], heard: Heard
    ) -> None:
        """No credential in a repr, a handle, a result, an error or the log.

        If this fails: keep tokens out of attributes that a repr shows, out of messages that quote
        a request, and out of ``JobHandle.extra``.
        """
        assert_no_secret([*spoken(), *heard.lines], [*secret_values, *self.secrets])

    def test_its_plugin_stays_light(self, served_name: str) -> None:
        """It is installed under its name, and listing its plugin imports no torch and no SDK.

        If this fails: install it (``pip install -e .``); name code in specs by strings
        (``"package.module:Class"``), and import nothing but qsgd_core's hookspecs and specs in the
        plugin's module and its package's ``__init__``.
        """
        try:
            choice = default_registry().resolve_backend(served_name)
        except QSGDError as error:
            pytest.fail(f"no installed plugin serves {served_name!r}: {error}")
        assert_light(choice.distribution)


def assert_light(distribution: str) -> None:
    """Fail if listing the plugin of a distribution imports anything but itself and the core."""
    records = default_registry().plugins.records
    module = next(r.module for r in records if r.name == distribution)
    heavy = heavy_imports(distribution, module.partition(":")[0].partition(".")[0])
    assert not heavy, f"listing {distribution} imports {', '.join(heavy)}"


def _assert_agrees(found: Measured, claims: Capabilities) -> None:
    assert_agrees(found.expectations(), found.batches, shots=found.shots, noisy=claims.noisy)


def _assert_patterns(found: Measured, claims: Capabilities, wrong: str) -> None:
    """Fail unless each row shows its own basis state; under noise, in most shots of each qubit."""
    for index, (part, batch) in enumerate(zip(found.parts, found.batches, strict=True)):
        for row, bits in enumerate(np.asarray(part.values)):
            expected = _pattern(batch.angles[row], index, bits.shape[1])
            seen = (bits.mean(axis=0) > 0.5).astype(int).tolist()
            assert seen == expected, f"batch {index}, row {row}: {seen} for {expected}; {wrong}"
            if not claims.noisy:
                counts = histogram(bits)
                assert counts.max() == len(bits), (
                    f"batch {index}, row {row}: a basis state gave several outcomes without noise"
                )


def _pattern(angles: NDArray[np.float64], index: int, n_qubits: int) -> list[int]:
    """The basis state of a row of ``order``, or of batch ``index`` of ``columns``."""
    if angles.size:
        return [round(float(angle / np.pi)) for angle in angles]
    return [int(qubit == index) for qubit in range(n_qubits)]
