"""The closed form of the ansatz against the state vector, and its limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qsgd_core.circuits import ansatz
from qsgd_core.errors import CapabilityError, ConfigError
from qsgd_core.simulate import chain, matrix_product, statevector
from qsgd_core.simulate.halfturns import neg_sin_cos_pi, sinpi, wrap

F64 = torch.float64


def random_theta(*shape: int, seed: int, dtype: torch.dtype = F64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=F64).to(dtype)


def by_state_vector(theta, depth, entangler, phases):
    blocks, n = theta.shape
    angles = theta * math.pi
    if phases is not None:
        angles = torch.cat([angles, phases.expand(blocks, depth, n).reshape(blocks, -1)], dim=1)
    circuit = ansatz(n, depth, entangler, phases=phases is not None)
    return statevector.expectations(circuit, angles, [(i,) for i in range(n)])


@pytest.mark.parametrize("entangler", ["none", "chain"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("n", range(1, 13))
def test_closed_form_equals_the_state_vector(n, depth, entangler):
    theta = random_theta(3, n, seed=100 * n + depth)
    shared = 2 * random_theta(depth, n, seed=1)
    per_block = 2 * random_theta(3, depth, n, seed=2)
    for phases in (None, shared, per_block):
        z = chain.expectations(theta, depth=depth, entangler=entangler, phases=phases)
        expected = by_state_vector(theta, depth, entangler, phases)
        assert (z - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("n", range(1, 13))
def test_matrix_products_equal_the_state_vector_for_short_blocks_too(n, depth):
    theta, per_block = random_theta(2, n, seed=n), random_theta(2, depth, n, seed=20)
    for phases in (None, per_block):
        z = matrix_product.chain_expectations(theta, depth, phases)
        assert (z - by_state_vector(theta, depth, "chain", phases)).abs().max() <= 1e-12


@pytest.mark.parametrize("depth", [5, 6])
def test_the_deepest_chains_equal_the_state_vector(depth):
    theta = random_theta(2, 10, seed=depth)
    phases = 2 * random_theta(2, depth, 10, seed=3)
    for given_phases in (None, phases):
        z = chain.expectations(theta, depth=depth, entangler="chain", phases=given_phases)
        assert (z - by_state_vector(theta, depth, "chain", given_phases)).abs().max() <= 1e-12


def test_without_entangler_any_depth_is_exact():
    theta, phases = random_theta(4, 3, seed=4), random_theta(4, 40, 3, seed=5)
    for given_phases in (None, phases):
        z = chain.expectations(theta, depth=40, entangler="none", phases=given_phases)
        assert (z - by_state_vector(theta, 40, "none", given_phases)).abs().max() <= 1e-12


@settings(max_examples=60)
@given(
    n=st.integers(1, 5),
    depth=st.integers(1, 6),
    entangler=st.sampled_from(["none", "chain"]),
    data=st.data(),
)
def test_closed_form_equals_the_state_vector_for_any_angles(n, depth, entangler, data):
    angle = st.floats(-20, 20, allow_nan=False, width=64)
    theta = torch.tensor([data.draw(st.lists(angle, min_size=n, max_size=n))], dtype=F64)
    size = depth * n
    flat = data.draw(st.none() | st.lists(angle, min_size=size, max_size=size))
    phases = None if flat is None else torch.tensor(flat, dtype=F64).reshape(depth, n)
    z = chain.expectations(theta, depth=depth, entangler=entangler, phases=phases)
    assert z.abs().max() <= 1 + 1e-12
    # The reference takes radians: rounding π·θ there costs up to 64·eps.
    assert (z - by_state_vector(theta, depth, entangler, phases)).abs().max() <= 1e-12


def test_depth_1_is_minus_the_sine_and_with_the_chain_its_cumulative_product():
    theta = random_theta(5, 6, seed=6)
    minus_sine = -torch.sin(math.pi * theta)
    single = chain.expectations(theta, depth=1, entangler="none")
    chained = chain.expectations(theta, depth=1, entangler="chain")
    torch.testing.assert_close(single, minus_sine, rtol=0, atol=1e-14)
    torch.testing.assert_close(chained, minus_sine.cumprod(-1), rtol=0, atol=1e-14)


@pytest.mark.parametrize("entangler", ["none", "chain"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_last_layers_phases_are_dead_and_the_others_are_not(depth, entangler):
    theta, phases = random_theta(3, 4, seed=7), random_theta(depth, 4, seed=8)
    changed = phases.clone()
    changed[-1] += 1.0
    z = chain.expectations(theta, depth=depth, entangler=entangler, phases=phases)
    other = chain.expectations(theta, depth=depth, entangler=entangler, phases=changed)
    torch.testing.assert_close(z, other, rtol=0, atol=1e-14)
    if depth > 1:
        changed[0] += 1.0
        other = chain.expectations(theta, depth=depth, entangler=entangler, phases=changed)
        assert (z - other).abs().max() > 1e-2


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("entangler", ["none", "chain"])
def test_phases_of_zero_equal_no_phases(depth, entangler):
    theta = random_theta(4, 5, seed=9)
    zeros = torch.zeros(depth, 5, dtype=F64)
    torch.testing.assert_close(
        chain.expectations(theta, depth=depth, entangler=entangler, phases=zeros),
        chain.expectations(theta, depth=depth, entangler=entangler),
        rtol=0,
        atol=1e-14,
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_block_of_256_qubits_starts_like_a_short_one(depth):
    # ⟨Z_i⟩ reaches only depth - 1 qubits to the right, so 8 + depth qubits know the first 8.
    theta = random_theta(1, 256, seed=10)
    z = chain.expectations(theta, depth=depth, entangler="chain")
    short = by_state_vector(theta[:, : 8 + depth], depth, "chain", None)
    torch.testing.assert_close(z[:, :8], short[:, :8], rtol=0, atol=1e-13)
    assert z.shape == (1, 256)
    assert z.abs().max() <= 1


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize("with_phases", [False, True])
def test_float32_stays_close_to_float64_for_large_theta(depth, with_phases):
    theta = random_theta(50, 4, seed=11, dtype=torch.float32)
    theta[0] = torch.tensor([1000.25, -1000.25, 77777.5, 1.0])
    phases = random_theta(depth, 4, seed=12, dtype=torch.float32) if with_phases else None
    z = chain.expectations(theta, depth=depth, entangler="chain", phases=phases)
    exact = chain.expectations(
        theta.double(),
        depth=depth,
        entangler="chain",
        phases=None if phases is None else phases.double(),
    )
    assert z.dtype == torch.float32
    # Some ten roundings a layer, each of half a unit of 2**-23.
    assert (z.double() - exact).abs().max() <= 10 * depth * 2**-24


def test_sinpi_is_relatively_accurate_everywhere_and_zero_at_integers():
    near_one = 1 + 1e-5 * random_theta(1000, seed=13)
    theta = torch.cat([random_theta(1000, seed=14), 300 * random_theta(1000, seed=15), near_one])
    theta = torch.cat([theta, torch.tensor([1000.25, -1000.25, 1e-30, -1e-30, 0.5, 3.5])])
    single = theta.float()
    turn = torch.fmod(single.double(), 2.0)
    # sin πx = sin π(±1 - x): the reference, too, must not evaluate a sine near ±π.
    reflected = torch.where(turn.abs() > 0.5, turn.sign() - turn, turn)
    reflected = torch.where(turn.abs() > 1.5, turn - 2 * turn.sign(), reflected)
    expected = torch.sin(math.pi * reflected)
    assert ((sinpi(single).double() - expected).abs() <= 2 * 2**-23 * expected.abs()).all()
    assert not sinpi(torch.tensor([-3.0, -1.0, 0.0, 1.0, 2.0, 1e7])).any()
    assert sinpi(torch.tensor([1000.25]))[0].item() == pytest.approx(math.sqrt(0.5), rel=1e-6)


def test_wrapping_is_exact_and_into_one_turn():
    theta = torch.tensor([1000.25, -1000.25, 0.1, -0.1, 1.5, -1.5, 3.0], dtype=F64)
    expected = torch.tensor([0.25, -0.25, 0.1, -0.1, -0.5, 0.5, -1.0], dtype=F64)
    assert torch.equal(wrap(theta), expected)
    neg_sin, cos = neg_sin_cos_pi(theta)
    torch.testing.assert_close(neg_sin, -torch.sin(math.pi * theta), rtol=0, atol=1e-12)
    torch.testing.assert_close(cos, torch.cos(math.pi * theta), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [4, 9])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("with_phases", [False, True])
def test_leading_axes_strides_and_inputs_are_kept(n, depth, with_phases):
    theta = random_theta(n, 2, 3, seed=16).movedim(0, -1)
    phases = random_theta(2, 3, depth, n, seed=17) if with_phases else None
    before = theta.clone()
    for entangler in ("none", "chain"):
        z = chain.expectations(theta, depth=depth, entangler=entangler, phases=phases)
        assert z.shape == (2, 3, n)
        for i in range(2):
            for j in range(3):
                one = chain.expectations(
                    theta[i, j],
                    depth=depth,
                    entangler=entangler,
                    phases=None if phases is None else phases[i, j],
                )
                torch.testing.assert_close(z[i, j], one, rtol=0, atol=1e-14)
    assert torch.equal(theta, before)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("entangler", ["none", "chain"])
def test_no_blocks_give_no_values(depth, entangler):
    for n in (4, 12):
        z = chain.expectations(torch.empty(0, n), depth=depth, entangler=entangler)
        assert z.shape == (0, n)


@pytest.mark.parametrize("n", [4, 12])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("entangler", ["none", "chain"])
@pytest.mark.parametrize("with_phases", [False, True])
def test_nothing_reads_a_value_back_from_the_device(n, depth, entangler, with_phases):
    # A meta tensor has no values: whatever would synchronise a GPU raises.
    theta = torch.empty(5, n, device="meta")
    phases = torch.empty(5, depth, n, device="meta") if with_phases else None
    z = chain.expectations(theta, depth=depth, entangler=entangler, phases=phases)
    assert (z.device.type, z.shape, z.dtype) == ("meta", (5, n), torch.float32)


def test_blocks_taken_in_turns_give_the_same_values(monkeypatch):
    theta, phases = random_theta(7, 9, seed=18), random_theta(7, 3, 9, seed=19)
    whole = chain.expectations(theta, depth=3, entangler="chain", phases=phases)
    monkeypatch.setattr(matrix_product, "MAX_ELEMENTS", 1)
    parts = chain.expectations(theta, depth=3, entangler="chain", phases=phases)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "n, depth, entangler, sentence",
    [
        (4, 7, "chain", "goes to depth 6; 7 was asked for. Use depth=6"),
        (257, 2, "chain", "goes to 256 qubits; 257 were asked for. Use n_qubits=256"),
        (4, 2, "ring", "entangler 'none' or 'chain', not 'ring'"),
    ],
)
def test_beyond_the_limits_the_error_names_the_limit(n, depth, entangler, sentence):
    with pytest.raises(CapabilityError) as caught:
        chain.expectations(torch.zeros(1, n), depth=depth, entangler=entangler)
    assert any(sentence in problem for problem in caught.value.missing)
    assert chain.limits(4, depth=6, entangler="chain") == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_narrow_dtypes_are_refused(dtype):
    with pytest.raises(ConfigError, match="float32 or float64"):
        chain.expectations(torch.zeros(1, 4, dtype=dtype), depth=1, entangler="none")


def test_phases_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"\(\.\.\., 2, 4\).*found \(2, 3\)"):
        chain.expectations(torch.zeros(1, 4), depth=2, entangler="chain", phases=torch.zeros(2, 3))
    with pytest.raises(ConfigError, match="depth must be at least 1, not 0"):
        chain.expectations(torch.zeros(1, 4), depth=0, entangler="chain")
