"""``sine`` and ``circuit``: plan, decode and closed form agree on what s is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from qsgd_core.builtin.options import CircuitOptions
from qsgd_core.builtin.perturbations import CircuitPerturbation, Sine
from qsgd_core.builtin.simulators import ExactSimulator, SampledSimulator
from qsgd_core.circuits import Slot, Workload
from qsgd_core.errors import CapabilityError, ConfigError

GIVEN = [[0.3, -1.0, 2.0, 0.5], [1.0, 0.1, -0.7, 3.0]]


def random_block(n: int, seed: int = 0, blocks: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(blocks, n)), rng.normal(size=(blocks, n))


def measured(perturbation, theta, grad, simulator=None, shots=None):
    """s by way of circuits, as any backend would give it."""
    work = Workload(tuple(perturbation.plan(theta, grad, step=0)))
    simulator = simulator or ExactSimulator("exact", None)
    (z,) = simulator.run(work, shots=shots, seed=1).expectations(work)
    return perturbation.decode(z)


def closed(perturbation, theta, grad, dtype=torch.float64):
    given = (torch.from_numpy(theta).to(dtype), torch.from_numpy(grad).to(dtype))
    return perturbation.closed_form(*given, step=0)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("entangler", ["none", "chain"])
@pytest.mark.parametrize("phases", ["zero", "gradient"])
def test_the_closed_form_is_what_the_circuits_give(n, depth, entangler, phases):
    theta, grad = random_block(n, seed=n)
    circuit = CircuitPerturbation(depth, CircuitOptions(entangler=entangler, phases=phases))
    s = closed(circuit, theta, grad)
    assert s.dtype == torch.float64
    np.testing.assert_allclose(s.numpy(), measured(circuit, theta, grad), rtol=0, atol=1e-12)
    assert s.abs().max() <= 1


@pytest.mark.parametrize("n", [1, 3, 4])
@pytest.mark.parametrize("entangler", ["none", "chain"])
def test_given_phases_are_cut_to_the_block(n, entangler):
    theta, grad = random_block(n, seed=n)
    circuit = CircuitPerturbation(2, CircuitOptions(entangler=entangler, phases=GIVEN))
    s = closed(circuit, theta, grad)
    np.testing.assert_allclose(s.numpy(), measured(circuit, theta, grad), rtol=0, atol=1e-12)
    zero = CircuitPerturbation(2, CircuitOptions(entangler=entangler))
    assert np.abs(s.numpy() - measured(zero, theta, grad)).max() > 1e-2
    single = closed(circuit, theta, grad, torch.float32)
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), s.numpy(), rtol=0, atol=1e-5)


def test_the_sine_is_sin_pi_theta_measured_or_not():
    theta, grad = random_block(4)
    sine = Sine(2, None)
    np.testing.assert_allclose(measured(sine, theta, grad), np.sin(np.pi * theta), atol=1e-14)
    np.testing.assert_allclose(closed(sine, theta, grad), np.sin(np.pi * theta), atol=1e-14)
    (batch,) = sine.plan(theta, grad, step=0)
    assert [(g.name, g.qubits) for g in batch.circuit.gates] == [
        ("h", (0,)), ("h", (1,)), ("h", (2,)), ("h", (3,)),
        ("ry", (0,)), ("ry", (1,)), ("ry", (2,)), ("ry", (3,)),
    ]  # fmt: skip
    assert sine.observables(4) == ((0,), (1,), (2,), (3,))


def test_the_circuit_of_depth_1_without_entangler_is_the_sine():
    theta, grad = random_block(6)
    circuit = CircuitPerturbation(1, CircuitOptions(entangler="none"))
    difference = closed(circuit, theta, grad) - closed(Sine(), theta, grad)
    assert difference.abs().max() <= 1e-12
    np.testing.assert_allclose(
        measured(circuit, theta, grad), measured(Sine(), theta, grad), rtol=0, atol=1e-12
    )


def test_a_large_theta_keeps_its_accuracy_in_float32_and_in_the_planned_angles():
    theta = np.array([[1000.25, -1000.25, 1.0, 1e-7]])
    expected = np.array([[math.sqrt(0.5), -math.sqrt(0.5), 0.0, math.pi * 1e-7]])
    single = closed(Sine(), theta, theta, torch.float32).double().numpy()
    np.testing.assert_allclose(single, expected, rtol=1e-6, atol=0)
    (batch,) = Sine().plan(theta, theta, step=0)
    np.testing.assert_allclose(
        batch.angles, [[math.pi / 4, -math.pi / 4, math.pi, math.pi * 1e-7]], rtol=1e-15
    )


@pytest.mark.parametrize("phases", ["zero", "gradient"])
def test_the_ring_has_no_closed_form_and_is_measured(phases):
    theta, grad = random_block(4)
    ring = CircuitPerturbation(2, CircuitOptions(entangler="ring", phases=phases))
    assert closed(ring, theta, grad) is None
    s = measured(ring, theta, grad)
    chain = CircuitPerturbation(2, CircuitOptions(entangler="chain", phases=phases))
    assert s.shape == (5, 4)
    assert np.abs(s - measured(chain, theta, grad)).max() > 1e-2


def test_gradient_phases_are_pi_times_the_blocks_relative_gradient():
    theta = np.zeros((3, 2))
    grad = np.array([[3.0, -1.5], [0.0, 0.0], [1e-30, -1e-30]])
    circuit = CircuitPerturbation(2, CircuitOptions(phases="gradient"))
    (batch,) = circuit.plan(theta, grad, step=0)
    layer = np.array([[np.pi, -np.pi / 2], [0.0, 0.0], [np.pi, -np.pi]])
    np.testing.assert_allclose(batch.angles[:, 2:], np.concatenate([layer, layer], 1), rtol=1e-15)
    s = closed(circuit, theta + 0.2, grad, torch.float32)
    assert torch.isfinite(s).all()
    # Blocks without gradient are the circuit without phases.
    plain = closed(CircuitPerturbation(2), theta + 0.2, grad, torch.float32)
    torch.testing.assert_close(s[1], plain[1], rtol=0, atol=1e-6)


def test_zero_phases_cost_no_slots():
    theta, grad = random_block(4)
    (batch,) = CircuitPerturbation(3).plan(theta, grad, step=0)
    assert {g.name for g in batch.circuit.gates} == {"h", "ry", "cx"}
    (batch,) = CircuitPerturbation(2, CircuitOptions(phases=GIVEN)).plan(theta, grad, step=0)
    assert batch.circuit.n_slots == 4 + 8
    rz = [g.angle for g in batch.circuit.gates if g.name == "rz"]
    assert rz == [Slot(i) for i in range(4, 12)]
    assert (batch.angles[:, 4:] == np.ravel(GIVEN)).all()


def test_a_plan_is_pure_and_leaves_its_inputs_alone():
    theta, grad = random_block(4)
    kept = theta.copy(), grad.copy()
    circuit = CircuitPerturbation(2, CircuitOptions(phases="gradient"))
    first, second = (Workload(tuple(circuit.plan(theta, grad, step=k))) for k in (0, 9))
    assert first.digest() == second.digest()
    closed(circuit, theta, grad)
    assert np.array_equal(theta, kept[0])
    assert np.array_equal(grad, kept[1])


@pytest.mark.parametrize("perturbation", [Sine(), CircuitPerturbation(2)])
def test_no_blocks_need_no_circuits(perturbation):
    empty = np.zeros((0, 4))
    assert perturbation.plan(empty, empty, step=0) == []
    assert closed(perturbation, empty, empty).shape == (0, 4)


@pytest.mark.parametrize(
    "options",
    [
        CircuitOptions(),
        CircuitOptions(phases="gradient"),
        CircuitOptions(phases=GIVEN),
        CircuitOptions(entangler="none", phases="gradient"),
    ],
)
def test_the_closed_form_reads_nothing_back_from_the_device(options):
    theta = torch.empty(3, 4, device="meta")
    for perturbation in (Sine(), CircuitPerturbation(2, options)):
        assert perturbation.closed_form(theta, theta, step=0).device.type == "meta"


def test_shots_decode_into_the_range_and_near_the_closed_form():
    theta, grad = random_block(4, blocks=50)
    circuit, shots = CircuitPerturbation(2), 2048
    s = measured(circuit, theta, grad, SampledSimulator("sampled", None), shots)
    assert np.abs(s).max() <= 1
    exact = closed(circuit, theta, grad).numpy()
    # 5 sigma of the mean of ±1 shots.
    assert (np.abs(s - exact) <= 5 * np.sqrt((1 - exact**2) / shots) + 1e-12).all()


def test_phases_may_be_a_tensor_or_an_array_and_must_be_a_finite_matrix():
    for value in (torch.tensor(GIVEN, dtype=torch.float64), np.array(GIVEN), GIVEN):
        assert CircuitOptions(phases=value).phases == tuple(map(tuple, GIVEN))
    for value in ([[0.1], [0.1, 0.2]], [], [[]], [[math.nan]], "random", [0.1, 0.2]):
        with pytest.raises(ValidationError):
            CircuitOptions(phases=value)
    with pytest.raises(ValidationError):
        CircuitOptions(entangler="star")
    with pytest.raises(ValidationError):
        CircuitOptions(entanglers="chain")


def test_phases_that_do_not_fit_depth_or_block_are_refused_with_the_fix():
    options = CircuitOptions(phases=GIVEN)
    with pytest.raises(ConfigError, match=r"2 rows.*depth is 3: give 3 rows, or depth=2"):
        CircuitPerturbation(3, options)
    theta, grad = random_block(5)
    for call in (
        lambda: CircuitPerturbation(2, options).plan(theta, grad, step=0),
        lambda: closed(CircuitPerturbation(2, options), theta, grad),
    ):
        with pytest.raises(ConfigError, match=r"4 columns .* 5 qubits: give 5 columns"):
            call()


def test_beyond_the_closed_forms_limits_the_error_says_so():
    theta, grad = random_block(4)
    with pytest.raises(CapabilityError, match="depth 6; 7 was asked for"):
        closed(CircuitPerturbation(7), theta, grad)
    with pytest.raises(ConfigError, match="depth must be at least 1, not 0"):
        CircuitPerturbation(0)


def test_a_long_chain_is_advised_against_and_nothing_else_is():
    advice = CircuitPerturbation(2).advice(9)
    assert advice is not None
    assert "9 qubits" in advice
    assert "n_qubits=8 or less" in advice
    assert CircuitPerturbation(2).advice(8) is None
    assert CircuitPerturbation(2, CircuitOptions(entangler="none")).advice(100) is None
    assert Sine().advice(100) is None
    # The claim itself: for weights as a layer starts with them, s at qubit 8 is tiny.
    theta = 0.1 * np.random.default_rng(0).normal(size=(500, 9))
    s = closed(CircuitPerturbation(2), theta, theta)
    rms = s.square().mean(0).sqrt()
    assert rms[8] < 1e-2 * rms[0]
