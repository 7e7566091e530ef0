"""Every noise-free backend measures the same law, asked for by name through the registry.

The tolerance is five sigma, stated without the normal law, which does not hold where |⟨Z⟩| is
nearly 1: a qubit's flips are binomial, and a count fails if it lies in a tail of :data:`TAIL`.
Ten backends × two depths × 256 values are 5,120 comparisons of two tails each: by Bonferroni, right
backends would fail for a fresh seed in less than one run of 300; the seeds are fixed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray
from patience import PATIENCE_S
from scipy.stats import binom, norm

from qsgd_core.backend import Backend, Simulator
from qsgd_core.circuits import Workload
from qsgd_core.jobs import Limit, Result
from qsgd_core.perturbation import Perturbation
from qsgd_core.plugins.registry import default_registry

Values = NDArray[np.float64]

ADAPTERS = Path(__file__).parents[2] / "adapters"
SHOTS = 1024
TAIL = float(norm.sf(5.0))
"""Probability of a tail beyond five sigma: 2.9e-7."""
ROUNDING = 1e-6
"""For values without shots: single precision passes."""
BOTH = (
    "aer:statevector",
    "aer:density_matrix",
    "aer:matrix_product_state",
    "pennylane:default.qubit",
    "pennylane:lightning.qubit",
    "braket:local",
    "braket:dm",
)
"""Simulators that compute exactly and that sample."""
RING = {"entangler": "ring", "phases": "gradient"}
"""Of the depth-2 circuit: with it every gate of Eq. 5 is there, and no closed form."""


def blocks() -> tuple[Values, Values]:
    """θ and g of 64 random blocks, each float64 (64, 4)."""
    rng = np.random.default_rng(20)
    return rng.uniform(-1.0, 1.0, (64, 4)), rng.normal(size=(64, 4))


def perturbation(depth: int) -> Perturbation:
    name, options = ("sine", None) if depth == 1 else ("circuit", RING)
    made = default_registry().make_perturbation(name, depth=depth, options=options)
    assert isinstance(made, Perturbation)
    return made


def s_of(depth: int, run: Callable[[Workload], Result]) -> Values:
    """s of the blocks as the engine gets it: plan, run, decode."""
    of = perturbation(depth)
    work = Workload(tuple(of.plan(*blocks(), step=0)))
    (z,) = run(work).expectations(work)
    return of.decode(z)


def simulated(name: str, shots: int | None) -> Callable[[Workload], Result]:
    simulator = default_registry().make_backend(name)
    assert isinstance(simulator, Simulator)
    return lambda work: simulator.run(work, shots=shots, seed=7)


def served(name: str) -> Callable[[Workload], Result]:
    """One job of a queued service."""
    backend = default_registry().make_backend(name)
    assert isinstance(backend, Backend)
    backend.resolve()

    def run(work: Workload) -> Result:
        handle = backend.submit(work, shots=SHOTS, tag=uuid4().hex, limit=Limit())
        end = time.monotonic() + PATIENCE_S
        while not backend.status(handle).state.final:
            assert time.monotonic() < end
            time.sleep(0.02)
        return backend.fetch(handle)

    return run


def expected(depth: int) -> Values:
    """sin(πθ), and the reference of depth 2."""
    return np.sin(np.pi * blocks()[0]) if depth == 1 else s_of(2, simulated("exact", None))


def assert_five_sigma(found: Values, ideal: Values) -> None:
    """``found`` came from :data:`SHOTS` shots of the law that has ``ideal`` as its means."""
    p = np.clip((1.0 + ideal) / 2.0, 0.0, 1.0)  # s = -⟨Z⟩: the share of ones
    ones = np.rint((1.0 + found) / 2.0 * SHOTS)
    law = binom(SHOTS, p)
    tail = np.minimum(law.cdf(ones), law.sf(ones - 1))
    worst = np.unravel_index(int(tail.argmin()), tail.shape)
    likelihood = float(tail[worst])
    assert likelihood >= TAIL, (
        f"block {worst[0]}, qubit {worst[1]}: s = {found[worst]:+.4f} where {ideal[worst]:+.4f} is "
        f"right; at {SHOTS} shots that comes up with probability {likelihood:.1e}"
    )


@pytest.mark.parametrize("name", ["exact", *BOTH])
def test_at_depth_one_exact_values_are_the_sine(name):
    found = s_of(1, simulated(name, None))
    np.testing.assert_allclose(found, expected(1), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", BOTH)
def test_at_depth_two_exact_values_are_those_of_exact(name):
    found = s_of(2, simulated(name, None))
    np.testing.assert_allclose(found, expected(2), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("name", ["sampled", *BOTH])
def test_samples_agree_at_five_sigma(name, depth):
    assert_five_sigma(s_of(depth, simulated(name, SHOTS)), expected(depth))


def test_what_is_not_the_same_law_would_be_seen():
    found, ideal = s_of(2, simulated("sampled", SHOTS)), expected(2)
    for wrong in (-ideal, ideal[::-1], ideal[:, ::-1], expected(1), 0.8 * ideal):
        with pytest.raises(AssertionError, match="is right"):
            assert_five_sigma(found, wrong)


# --- the services, through the loopback doubles ---------------------------------------------------


@pytest.fixture(scope="module")
def ibm_double() -> Iterator[dict[str, str]]:
    """The variables that lead to a double of IBM."""
    command = [sys.executable, ADAPTERS / "ibm/tests/double", "--devices", "ibm_fez"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["environment"]
        process.terminate()


@pytest.fixture
def ibm(ibm_double: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in ibm_double.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def aws_double() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ADAPTERS / "braket/tests/double")
        from aws_double import AwsDouble

        with AwsDouble() as double:
            yield double


@pytest.fixture
def aws(aws_double: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws_double.environment().items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("depth", [1, 2])
def test_ibm_agrees_at_five_sigma(ibm, depth):
    assert_five_sigma(s_of(depth, served("ibm_fez")), expected(depth))


@pytest.mark.parametrize("depth", [1, 2])
def test_braket_agrees_at_five_sigma(aws, depth):
    assert_five_sigma(s_of(depth, served("braket:garnet")), expected(depth))
