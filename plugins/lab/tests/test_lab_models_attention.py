"""Quantum attention is Eq. 3, and stands wherever torch's MultiheadAttention stands."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from qsgd_core.errors import ConfigError
from qsgd_lab.models import QuantumAttention

N, L, S, E, H = 3, 5, 7, 8, 2


class Nothing(nn.Module):
    """A feature of 0: Eq. 3 is then classical attention."""

    def forward(self, scores: Tensor) -> Tensor:
        return torch.zeros_like(scores)


def make(seed: int = 0, **options: object) -> QuantumAttention:
    torch.manual_seed(seed)
    return QuantumAttention(E, H, **{"dtype": torch.float64, "batch_first": True, **options})


def pair(**options: object) -> tuple[nn.MultiheadAttention, QuantumAttention]:
    """torch's module, and ours of the same weights without the circuit."""
    quantum = make(**options)
    torch.manual_seed(0)
    classical = nn.MultiheadAttention(
        E, H, **{"dtype": torch.float64, "batch_first": True, **options}
    )
    quantum.score_feature = Nothing()
    with torch.no_grad():
        for p in classical.parameters():
            p.copy_(torch.randn_like(p))
    quantum.load_state_dict(classical.state_dict())
    return classical, quantum


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def inputs(batch: tuple[int, ...] = (N,), kdim: int = E, vdim: int = E) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return normal(*batch, L, E), normal(*batch, S, kdim), normal(*batch, S, vdim)


def causal(n_queries: int, n_keys: int) -> Tensor:
    return torch.ones(n_queries, n_keys, dtype=torch.bool).triu(1)


def padding() -> Tensor:
    return torch.arange(S) >= torch.tensor([[S], [4], [1]])


def additive(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask, -math.inf)


MASKS = {
    "none": {},
    "padding": {"key_padding_mask": padding()},
    "causal": {"attn_mask": causal(L, S)},
    "causal hint": {"attn_mask": causal(L, S), "is_causal": True},
    "both": {"attn_mask": causal(L, S), "key_padding_mask": padding()},
    "floating": {
        "attn_mask": additive(causal(L, S)) + 0.3,
        "key_padding_mask": additive(padding()),
    },
    "per head": {"attn_mask": torch.arange(N * H * L * S).reshape(N * H, L, S) % 5 == 1},
}


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
def test_without_the_circuit_outputs_weights_and_gradients_are_torchs(masks, average):
    found = []
    for module in pair():
        q, k, v = (x.requires_grad_() for x in inputs())
        out, weights = module(q, k, v, average_attn_weights=average, **masks)
        (out.square().sum() + weights.square().sum()).backward()
        found.append((out, weights, q.grad, k.grad, v.grad, *(p.grad for p in module.parameters())))
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize(
    "options",
    [
        {"bias": False},
        {"kdim": 3},
        {"kdim": 3, "vdim": 4},
        {"batch_first": False},
    ],
    ids=str,
)
def test_without_the_circuit_every_constructor_option_is_torchs(options):
    classical, quantum = pair(**options)
    q, k, v = inputs(kdim=options.get("kdim", E), vdim=options.get("vdim", E))
    if not options.get("batch_first", True):
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
    for same in (False, True):
        if same and ("kdim" in options or "vdim" in options):
            continue
        arguments = (q, q, q) if same else (q, k, v)
        torch.testing.assert_close(quantum(*arguments), classical(*arguments))


@pytest.mark.parametrize("masks", ["none", "padding", "causal"])
@pytest.mark.parametrize("batch_first", [True, False])
def test_without_the_circuit_unbatched_input_is_torchs(masks, batch_first):
    classical, quantum = pair(batch_first=batch_first)
    arguments = {
        name: mask[1] if name == "key_padding_mask" else mask for name, mask in MASKS[masks].items()
    }
    for average in (True, False):
        expected = classical(*inputs(()), average_attn_weights=average, **arguments)
        found = quantum(*inputs(()), average_attn_weights=average, **arguments)
        torch.testing.assert_close(found, expected)


def test_without_the_circuit_dropout_is_torchs_to_the_mask():
    classical, quantum = pair(dropout=0.4)
    found = []
    for module in (classical, quantum):
        torch.manual_seed(7)
        found.append(module(*inputs()))
    torch.testing.assert_close(found[1], found[0])
    assert (found[0][1] == 0).any()
    torch.testing.assert_close(quantum.eval()(*inputs()), classical.eval()(*inputs()))


@pytest.mark.parametrize("feature", ["amplitude", "z"])
def test_the_output_is_equation_3_written_out(feature):
    attention = make(feature=feature)
    q, k, v = inputs()
    with torch.no_grad():
        out, weights = attention(q, k, v, average_attn_weights=False)
        wq, wk, wv = attention.in_proj_weight.chunk(3)
        heads = []
        for h in range(H):
            rows = slice(h * E // H, (h + 1) * E // H)
            score = torch.einsum("nie,nje->nij", q @ wq[rows].T, k @ wk[rows].T)
            logits = score / math.sqrt(E // H) + attention.score_feature(score)
            torch.testing.assert_close(weights[:, h], logits.softmax(-1))
            heads.append(logits.softmax(-1) @ v @ wv[rows].T)
        torch.testing.assert_close(out, attention.out_proj(torch.cat(heads, -1)))


@pytest.mark.parametrize("feature", ["amplitude", "z"])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_of_inputs_and_parameters_are_the_finite_differences(feature, masked):
    attention = make(feature=feature, n_qubits=2)
    names = [name for name, _ in attention.named_parameters()]
    masks = {"key_padding_mask": torch.tensor([[False, True, False], [True] * 3])} if masked else {}

    def function(q: Tensor, k: Tensor, v: Tensor, *parameters: Tensor) -> Tensor:
        values = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(
            attention, values, (q, k, v), {"need_weights": True, **masks}
        )

    torch.manual_seed(1)
    given = (normal(2, 2, E), normal(2, 3, E), normal(2, 3, E))
    points = tuple(t.detach().clone().requires_grad_() for t in (*given, *attention.parameters()))
    assert torch.autograd.gradcheck(function, points, fast_mode=True)


def test_what_is_masked_does_not_reach_the_output():
    attention = make()
    q, k, v = inputs()
    hidden = padding()
    before = attention(q, k, v, key_padding_mask=hidden)
    noise = hidden[..., None] * torch.randn(N, S, E, dtype=torch.float64)
    after = attention(q, k + noise, v + noise, key_padding_mask=hidden)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert (after[1].masked_select(hidden[:, None, :]) == 0).all()
    torch.testing.assert_close(after[1].sum(-1), torch.ones(N, L, dtype=torch.float64))


@pytest.mark.parametrize("floating", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_a_text_that_is_all_padding_attends_to_nothing_and_spoils_no_gradient(
    floating, need_weights
):
    attention = make()
    hidden = padding()
    hidden[1] = True
    q, k, v = (x.requires_grad_() for x in inputs())
    mask = additive(hidden) if floating else hidden
    out, weights = attention(q, k, v, key_padding_mask=mask, need_weights=need_weights)
    assert torch.equal(out[1], attention.out_proj.bias.expand(L, E))
    if need_weights:
        assert (weights[1] == 0).all()
    out.square().sum().backward()
    for gradient in (q.grad, k.grad, v.grad, *(p.grad for p in attention.parameters())):
        assert torch.isfinite(gradient).all()
    assert (q.grad[1] == 0).all()
    assert (q.grad[0] != 0).any()


def test_a_fault_in_the_input_is_not_taken_for_padding():
    q, k, v = inputs()
    k[0, 0, 0] = math.nan
    out, _ = make()(q, k, v, attn_mask=causal(L, S))
    assert out[0].isnan().all()
    assert not out[1:].isnan().any()


def test_one_position_attends_to_itself_whatever_the_circuit_says():
    attention = make()
    x = normal(N, 1, E)
    out, weights = attention(x, x, x)
    assert (weights == 1).all()
    values = x @ attention.in_proj_weight.chunk(3)[2].T
    torch.testing.assert_close(out, attention.out_proj(values))


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"key_padding_mask": torch.zeros(N, S, dtype=torch.int64)}, "not torch.int64"),
        ({"key_padding_mask": padding()[:, 1:]}, r"must have shape \(3, 7\); found \(3, 6\)"),
        ({"attn_mask": causal(L, L)}, r"\(5, 7\) or \(6, 5, 7\); found \(5, 5\)"),
        ({"attn_mask": causal(L, S).expand(N, L, S)}, r"found \(3, 5, 7\)"),
        ({"is_causal": True}, "give the mask too"),
    ],
)
def test_masks_that_do_not_fit_are_refused_with_what_was_found(wrong, said):
    with pytest.raises(ConfigError, match=said):
        make()(*inputs(), **wrong)


def test_inputs_of_mixed_or_impossible_axes_are_refused():
    q, k, v = inputs()
    for arguments in ((q[0], k, v), (q[None], k[None], v[None])):
        with pytest.raises(ConfigError, match="3 axes, or 2 without a batch"):
            make()(*arguments)


def test_the_classical_part_starts_as_torchs_and_torchs_stream_goes_on_as_if_it_were():
    quantum = make()
    after_ours = torch.rand(3)
    torch.manual_seed(0)
    classical = nn.MultiheadAttention(E, H, dtype=torch.float64, batch_first=True)
    after_theirs = torch.rand(3)
    assert torch.equal(after_ours, after_theirs)
    missing = quantum.load_state_dict(classical.state_dict(), strict=False)
    assert missing.missing_keys == ["score_feature.theta", "score_feature.phi"]
    assert not missing.unexpected_keys
    for name, weights in classical.state_dict().items():
        assert torch.equal(weights, make().state_dict()[name])


def test_first_angles_follow_the_seed_and_differ_between_modules():
    assert torch.equal(make(3).score_feature.theta, make(3).score_feature.theta)
    assert not torch.equal(make(3).score_feature.theta, make(4).score_feature.theta)
    first, second = make(3), QuantumAttention(E, H)
    assert not torch.equal(first.score_feature.theta.float(), second.score_feature.theta)


def test_state_dict_brings_the_module_back(tmp_path):
    attention, other = make(0), make(1)
    torch.save(attention.state_dict(), tmp_path / "weights.pt")
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other(*inputs())[0], attention(*inputs())[0])
    assert torch.equal(copy.deepcopy(attention)(*inputs())[0], attention(*inputs())[0])


def test_torchs_encoder_layer_does_not_go_round_the_circuit_in_eval_mode():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(E, H, 16, batch_first=True, dtype=torch.float64)
    layer.self_attn = make()
    layer.eval()
    x = normal(N, L, E)
    expected = layer(x)
    with torch.no_grad():
        found = layer(x)
        layer.self_attn.score_feature = Nothing()
        classical = layer(x)
    torch.testing.assert_close(found, expected)
    assert (found - classical).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_work_by_conversion_and_by_autocast(dtype):
    expected, _ = make()(*inputs())
    converted, weights = make().to(dtype)(*(x.to(dtype) for x in inputs()))
    assert (converted.dtype, weights.dtype) == (dtype, dtype)
    attention = make().float()
    with torch.autocast("cpu", dtype):
        casted, _ = attention(*(x.float() for x in inputs()))
    casted.sum().backward()
    assert casted.dtype == dtype
    assert attention.score_feature.phi.grad.abs().min() > 0
    for found in (converted, casted):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.05)


def test_large_scores_do_not_overflow_in_16_bits():
    attention = make().to(torch.float16)
    q, k, v = ((200 * x).to(torch.float16) for x in inputs())
    out, _ = attention(q, k, v / 200)
    assert torch.isfinite(out).all()


def test_the_module_can_be_made_on_the_meta_device_and_filled_later():
    attention = QuantumAttention(E, H, device="meta", batch_first=True)
    x = torch.empty(N, L, E, device="meta")
    assert attention(x, x, x)[0].shape == (N, L, E)
    attention.to_empty(device="cpu").double().load_state_dict(make().state_dict())
    assert torch.equal(attention(*inputs())[0], make()(*inputs())[0])
