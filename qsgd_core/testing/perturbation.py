"""Conformance of a perturbation that is measured."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qsgd_core.circuits import CircuitBatch, Workload
from qsgd_core.perturbation import Perturbation
from qsgd_core.plugins.registry import default_registry
from qsgd_core.testing.agreement import ideal
from qsgd_core.testing.measuring import assert_light
from qsgd_core.testing.purity import no_global_randomness
from qsgd_core.testing.standard import Standard

Blocks = NDArray[np.float64]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
SIZES = (1, 2, 3, 4, 6)
DEVICES = ("cpu", "cuda", "mps")


class PerturbationConformance(Standard):
    """Tests of a :class:`~qsgd_core.perturbation.Perturbation`: give ``perturbation``.

    Attributes:
        sizes: block sizes that are tried, in qubits.
        n_blocks: blocks of each size.
    """

    GIVEN = frozenset({"perturbation", "sizes", "n_blocks"})
    sizes: ClassVar[tuple[int, ...]] = SIZES
    n_blocks: ClassVar[int] = 5

    @pytest.fixture(scope="class")
    @classmethod
    def perturbation(cls) -> Perturbation:
        """The perturbation under test."""
        raise NotImplementedError(
            "Define the fixture: "
            '@pytest.fixture(scope="class") @classmethod def perturbation(cls): …'
        )

    def test_it_is_a_perturbation(self, perturbation: Perturbation) -> None:
        """It is derived from Perturbation.

        If this fails: derive from ``qsgd_core.Perturbation``; what needs no circuit derives from
        ``ClassicalPerturbation``.
        """
        assert isinstance(perturbation, Perturbation), f"found {type(perturbation).__name__}"

    def test_the_same_inputs_give_the_same_circuits(self, perturbation: Perturbation) -> None:
        """Planning is pure: twice the same, whatever was planned in between, inputs untouched.

        If this fails: keep no state in ``plan``, draw nothing there, and copy before you scale in
        place; what is random belongs to the simulator.
        """
        for n in self.sizes:
            theta, grad = self._blocks(n)
            kept = theta.copy(), grad.copy()
            with no_global_randomness():
                first = _digest(perturbation.plan(theta, grad, step=7))
                perturbation.plan(-grad, theta, step=8)
                second = _digest(perturbation.plan(theta, grad, step=7))
            assert first == second, f"{n} qubits: planned twice, the circuits differ"
            assert np.array_equal(theta, kept[0]), "plan changed theta"
            assert np.array_equal(grad, kept[1]), "plan changed grad"

    def test_rows_are_the_blocks_in_order(self, perturbation: Perturbation) -> None:
        """One row per block, and a block planned alone gets the circuit it has among others.

        If this fails: rows of all batches, joined, are the blocks in order; nothing of one block
        may enter the circuit of another.
        """
        for n in self.sizes:
            theta, grad = self._blocks(n)
            rows = _rows(perturbation.plan(theta, grad, step=3))
            assert len(rows) == self.n_blocks, f"{len(rows)} rows for {self.n_blocks} blocks"
            for block in range(self.n_blocks):
                alone = perturbation.plan(theta[[block]], grad[[block]], step=3)
                (row,) = _rows(alone)
                assert row[0] == rows[block][0], f"block {block} has another circuit alone"
                np.testing.assert_allclose(row[1], rows[block][1], atol=1e-12)

    def test_batches_ask_for_its_observables(self, perturbation: Perturbation) -> None:
        """Each batch carries ``observables(n)`` of its block size.

        If this fails: pass ``observables=self.observables(n)`` to each CircuitBatch.
        """
        for n in self.sizes:
            for batch in perturbation.plan(*self._blocks(n), step=0):
                assert batch.observables == perturbation.observables(n), f"{n} qubits"

    def test_any_weights_can_be_planned(self, perturbation: Perturbation) -> None:
        """Large weights and a gradient of zero give finite angles and a finite s.

        If this fails: wrap angles before they are multiplied up, and look for a division by the
        largest gradient.
        """
        theta, grad = self._blocks(self.sizes[-1])
        for t, g in ((theta * 1e8, grad), (theta, grad * 0), (theta * 0, grad * 0)):
            s = _measured(perturbation, t, g)
            assert np.isfinite(s).all(), "s is not finite"

    def test_decode_gives_s_in_range(self, perturbation: Perturbation) -> None:
        """float64 (n_blocks, n) with entries in [-1, 1], whatever a noisy device measures.

        If this fails: one column per coordinate, ``s = -z`` or another map of [-1, 1] into itself;
        clip what can leave it.
        """
        rng = np.random.default_rng(5)
        for n in self.sizes:
            z = rng.uniform(-1.0, 1.0, (self.n_blocks, len(perturbation.observables(n))))
            for values in (z, np.ones_like(z), -np.ones_like(z)):
                kept = values.copy()
                s = perturbation.decode(values)
                assert s.shape == (self.n_blocks, n), f"decode gave shape {s.shape}"
                assert s.dtype == np.float64, f"decode gave {s.dtype}"
                assert np.abs(s).max() <= 1 + 1e-12, "s leaves [-1, 1]"
                assert np.array_equal(values, kept), "decode changed its input"

    def test_the_closed_form_is_what_the_circuits_measure(self, perturbation: Perturbation) -> None:
        """Formula and state vector agree to 1e-9, for every block size, at several steps.

        If this fails: one of the two is wrong: compare sign, factor π and the order of qubits for
        a single block of one qubit. With no formula, return None.
        """
        for n in self.sizes:
            for step in (0, 11):
                theta, grad = self._blocks(n)
                s = self._closed_form(perturbation, theta, grad, torch.float64, "cpu", step=step)
                expected = _measured(perturbation, theta, grad, step=step)
                np.testing.assert_allclose(s.numpy(), expected, atol=TOLERANCE[torch.float64])

    @pytest.mark.parametrize("device", DEVICES)
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
    def test_the_closed_form_keeps_shape_dtype_and_device(
        self, perturbation: Perturbation, dtype: torch.dtype, device: str
    ) -> None:
        """s comes back like theta, and theta and grad are left as they were.

        If this fails: make every tensor inside with ``dtype=theta.dtype, device=theta.device``, and
        use no in-place operation on the inputs.
        """
        _require_device(device, dtype)
        for n in self.sizes:
            theta, grad = self._blocks(n)
            s = self._closed_form(perturbation, theta, grad, dtype, device)
            assert s.shape == (self.n_blocks, n), f"shape {tuple(s.shape)}"
            assert s.dtype == dtype, f"dtype {s.dtype}"
            assert s.device.type == device, f"device {s.device}"
            assert float(s.abs().max()) <= 1 + TOLERANCE[dtype], "s leaves [-1, 1]"
            expected = _measured(perturbation, theta, grad)
            np.testing.assert_allclose(s.cpu().numpy(), expected, atol=TOLERANCE[dtype])

    def test_advice_is_a_sentence_or_nothing(self, perturbation: Perturbation) -> None:
        """``advice`` says something, or None.

        If this fails: return a sentence for the user, or None; the empty text is neither.
        """
        for n in (*self.sizes, 64):
            advice = perturbation.advice(n)
            assert advice is None or (isinstance(advice, str) and advice.strip()), repr(advice)

    def test_its_plugin_stays_light(self, perturbation: Perturbation) -> None:
        """It is installed, and listing its plugin imports no torch and no SDK.

        If this fails: install it (``pip install -e .``); name code in specs by strings
        (``"package.module:Class"``), and import nothing but qsgd_core's hookspecs and specs in the
        plugin's module and its package's ``__init__``.
        """
        assert_light(provider_of(perturbation))

    def _blocks(self, n: int) -> tuple[Blocks, Blocks]:
        rng = np.random.default_rng(1000 + n)
        theta = rng.normal(0.0, 0.7, (self.n_blocks, n))
        return theta, rng.normal(0.0, 0.1, (self.n_blocks, n))

    @staticmethod
    def _closed_form(
        perturbation: Perturbation,
        theta: Blocks,
        grad: Blocks,
        dtype: torch.dtype,
        device: str,
        *,
        step: int = 0,
    ) -> torch.Tensor:
        t, g = (torch.tensor(x, dtype=dtype, device=device) for x in (theta, grad))
        kept = t.clone(), g.clone()
        with no_global_randomness():
            s = perturbation.closed_form(t, g, step=step)
        if s is None:
            pytest.skip("closed_form() gives None: there is no formula")
        assert torch.equal(t, kept[0]), "closed_form changed theta"
        assert torch.equal(g, kept[1]), "closed_form changed grad"
        return s


def provider_of(perturbation: object) -> str:
    """The distribution whose spec names the module that the object's class comes from."""
    module = type(perturbation).__module__
    for registered in default_registry().perturbations():
        if registered.spec.factory.partition(":")[0] == module:
            return registered.distribution
    pytest.fail(f"no installed plugin registers a perturbation of {module}")


def _require_device(device: str, dtype: torch.dtype) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    if device == "mps" and not (torch.backends.mps.is_available() and dtype == torch.float32):
        pytest.skip("torch sees no MPS device, or it has no float64")


def _digest(batches: list[CircuitBatch]) -> str:
    return Workload(tuple(batches)).digest()


def _rows(batches: list[CircuitBatch]) -> list[tuple[str, Blocks]]:
    return [(batch.circuit.digest, row) for batch in batches for row in batch.angles]


def _measured(perturbation: Perturbation, theta: Blocks, grad: Blocks, *, step: int = 0) -> Blocks:
    """s by way of the circuits, on the core's state vector."""
    batches = perturbation.plan(theta, grad, step=step)
    return perturbation.decode(np.concatenate([ideal(batch) for batch in batches]))
