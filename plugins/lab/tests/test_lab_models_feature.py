"""Φ of Eq. 4 is the circuit's, and so are its gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from qsgd_core.circuits import Circuit, Gate, Slot, ansatz
from qsgd_core.errors import ConfigError
from qsgd_core.simulate import statevector
from qsgd_lab.models import ScoreFeature
from qsgd_lab.models import feature as module

FEATURES = ("amplitude", "z")
SIZES = [(1, 1), (1, 2), (2, 1), (3, 1), (3, 3), (4, 2), (5, 2)]


def make(n_qubits: int = 4, depth: int = 2, feature: str = "amplitude", seed: int = 0):
    torch.manual_seed(seed)
    return ScoreFeature(n_qubits, depth, feature=feature, dtype=torch.float64)


def scores(*shape: int, seed: int = 1) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.manual_seed(seed), dtype=torch.float64)


def by_the_core(phi_map: ScoreFeature, x: Tensor) -> Tensor:
    """The definition, through the core's circuits and state vector."""
    depth, n = phi_map.phi.shape
    rows = torch.cat([phi_map.theta + x[:, None], phi_map.phi.flatten().expand(len(x), -1)], dim=1)
    circuit = ansatz(n, depth, "chain", phases=True)
    if phi_map.feature == "amplitude":
        return statevector.amplitudes(circuit, rows)[:, :n].real.sum(-1)
    return statevector.expectations(circuit, rows, [(i,) for i in range(n)]).sum(-1)


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("n_qubits, depth", SIZES)
def test_the_series_is_the_state_vector_of_the_papers_circuit(n_qubits, depth, feature):
    phi_map = make(n_qubits, depth, feature)
    x = scores(50)
    with torch.no_grad():
        torch.testing.assert_close(phi_map(x), by_the_core(phi_map, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("feature, bound", [("amplitude", 2.0), ("z", 4.0)])
def test_the_number_added_to_a_score_is_bounded(feature, bound):
    largest = max(
        float(make(feature=feature, seed=i)(scores(500)).detach().abs().max()) for i in range(20)
    )
    assert bound / 4 < largest <= bound


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("n_qubits, depth", [(1, 1), (3, 1), (4, 2)])
def test_gradients_are_the_finite_differences(n_qubits, depth, feature):
    phi_map = make(n_qubits, depth, feature)

    def function(x: Tensor, theta: Tensor, phi: Tensor) -> Tensor:
        angles = {"theta": theta, "phi": phi}
        return torch.func.functional_call(phi_map, angles, (x,))

    inputs = tuple(
        t.detach().clone().requires_grad_() for t in (scores(2, 3), phi_map.theta, phi_map.phi)
    )
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def shifted(theta: Tensor, phi: Tensor, x: float) -> tuple[Tensor, Tensor]:
    """d⟨ΣZ⟩/dangle of each Ry (depth, n) and each Rz (depth, n) gate by itself.

    By the parameter-shift rule, [f(α + π/2) - f(α - π/2)] / 2, from the core's state vector on a
    circuit that gives every gate a slot of its own.
    """
    depth, n = phi.shape
    gates = [Gate("h", (i,)) for i in range(n)]
    for layer in range(depth):
        for i in range(n):
            gates.append(Gate("ry", (i,), Slot(layer * n + i)))
            gates.append(Gate("rz", (i,), Slot((depth + layer) * n + i)))
        gates += [Gate("cx", (i, i + 1)) for i in range(n - 1)]
    angles = torch.cat([(theta + x).repeat(depth), phi.flatten()])
    shift = torch.eye(len(angles), dtype=torch.float64) * math.pi / 2
    rows = torch.cat([angles + shift, angles - shift])
    z = statevector.expectations(Circuit(n, tuple(gates)), rows, [(i,) for i in range(n)]).sum(-1)
    up, down = z.chunk(2)
    ry, rz = ((up - down) / 2).chunk(2)
    return ry.reshape(depth, n), rz.reshape(depth, n)


@pytest.mark.parametrize("x", [-4.0, 0.0, 0.7])
def test_gradients_of_z_are_those_of_the_parameter_shift_rule(x):
    phi_map = make(feature="z")
    score = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    phi_map(score).backward()
    ry, rz = shifted(phi_map.theta.detach(), phi_map.phi.detach(), x)
    close = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(phi_map.theta.grad, ry.sum(0), **close)
    torch.testing.assert_close(phi_map.phi.grad, rz, **close)
    torch.testing.assert_close(score.grad, ry.sum(), **close)
    assert ry.abs().min() > 1e-3


def test_with_z_the_last_phases_do_not_matter_and_with_amplitudes_they_do():
    largest = {}
    for feature in FEATURES:
        phi_map = make(feature=feature)
        phi_map(scores(100)).square().sum().backward()
        assert phi_map.phi.grad[0].abs().min() > 1e-3
        largest[feature] = float(phi_map.phi.grad[1].abs().max())
    assert largest["z"] < 1e-12
    assert largest["amplitude"] > 1e-3


@pytest.mark.parametrize("feature", FEATURES)
def test_phases_of_zero_have_no_gradient_which_is_why_they_do_not_start_there(feature):
    phi_map = make(feature=feature)
    assert phi_map.phi.abs().min() > 0
    torch.nn.init.zeros_(phi_map.phi)
    phi_map(scores(100)).square().sum().backward()
    assert phi_map.phi.grad.abs().max() < 1e-12
    assert phi_map.theta.grad.abs().min() > 1e-3


@pytest.mark.parametrize("feature", FEATURES)
def test_taking_the_scores_in_parts_changes_nothing(feature, monkeypatch):
    found = []
    for chunk in (10**6, 7):
        monkeypatch.setitem(module.CHUNK, "cpu", chunk)
        phi_map, x = make(feature=feature), scores(5, 6).requires_grad_()
        values = phi_map(x)
        values.square().sum().backward()
        found.append((values, x.grad, phi_map.theta.grad, phi_map.phi.grad))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-13)


def test_autograd_keeps_the_scores_and_not_their_waves():
    phi_map, x = make(feature="z"), scores(100_000).requires_grad_()
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        phi_map(x)
    assert x.untyped_storage().data_ptr() in kept
    assert sum(kept.values()) < 1.5 * x.untyped_storage().nbytes()


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1, 1, 1)])
def test_any_shape_of_scores_is_kept(shape):
    assert make()(torch.zeros(shape, dtype=torch.float64)).shape == shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_of_the_scores_is_kept_and_the_circuit_is_in_float32_at_least(dtype):
    x = scores(200).to(dtype)
    exact = make()(x.double())
    found = make().to(dtype)(x) if dtype == torch.float32 else make().float()(x)
    assert found.dtype == dtype
    # Rounding of the result, plus that of float32 angles and 4 turns through |x| < 16.
    tolerance = 2 * torch.finfo(dtype).eps + 1e-5
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=tolerance)


def test_autocast_does_not_touch_the_circuit():
    x = scores(200).float()
    gradients = []
    for enabled in (False, True):
        phi_map = make(feature="z").float()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            values = phi_map(x)
        values.sum().backward()
        gradients.append((values, phi_map.theta.grad))
    assert torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][1], gradients[1][1])


def test_shapes_can_be_worked_out_on_the_meta_device():
    phi_map = ScoreFeature(device="meta")
    assert phi_map(torch.empty(2, 3, device="meta")).shape == (2, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_what_the_cpu_finds():
    phi_map, x = make(), scores(1000)
    torch.testing.assert_close(phi_map.cuda()(x.cuda()).cpu(), make()(x), rtol=0, atol=1e-12)


def test_the_first_angles_depend_on_torchs_seed_alone_and_fill_the_circle():
    drawn = make(seed=5)
    assert torch.equal(drawn.theta, make(seed=5).theta)
    assert not torch.equal(drawn.theta, make(seed=6).theta)
    torch.manual_seed(0)
    angles = ScoreFeature(10, 100).phi.detach().numpy()
    # Uniform on 1,000 draws: the mean of cos and sin is 0 ± √(1/2,000). 5 sigma.
    assert np.hypot(np.cos(angles).mean(), np.sin(angles).mean()) < 5 * math.sqrt(1 / 1000)
    assert (np.abs(angles) <= math.pi).all()
    assert np.abs(angles).max() > 3


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"n_qubits": 0}, "n_qubits=0, depth=2"),
        ({"n_qubits": 11}, "1 to 10 qubits.*n_qubits=11"),
        ({"depth": 0}, "depth=0"),
        ({"feature": "x"}, "must be 'amplitude' or 'z', not 'x'"),
    ],
)
def test_a_circuit_that_cannot_be_is_refused_with_what_was_found(wrong, said):
    with pytest.raises(ConfigError, match=said):
        ScoreFeature(**wrong)
