"""The transformer is the paper's, and its attention can be replaced."""

from __future__ import annotations

import torch
from torch import nn

from qsgd_lab.models import EncoderLayer, TextTransformer


def make(**sizes: object) -> TextTransformer:
    torch.manual_seed(0)
    return TextTransformer(n_tokens=8, length=12, n_classes=2, **sizes)


def test_the_defaults_are_the_papers_sizes():
    model = make()
    assert len(model.layers) == 2
    for layer in model.layers:
        assert (layer.attention.embed_dim, layer.attention.num_heads) == (64, 4)
        assert layer.feed_forward[0].out_features == 128
    dropouts = {m.p for m in model.modules() if isinstance(m, nn.Dropout)}
    assert dropouts == {0.1}
    assert {layer.attention.dropout for layer in model.layers} == {0.1}


def test_texts_up_to_the_longest_give_one_row_of_logits_each():
    model = make()
    for length in (1, 5, 12):
        assert model(torch.zeros(3, length, dtype=torch.int64)).shape == (3, 2)


def test_every_parameter_gets_a_gradient():
    model = make()
    model(torch.randint(8, (4, 12))).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_order_of_the_tokens_matters():
    model = make().eval()
    with torch.no_grad():
        there, back = model(torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]]))
    assert (there - back).abs().max() > 1e-3


def test_a_layer_is_torchs_own_encoder_layer():
    torch.manual_seed(0)
    ours = EncoderLayer(8, 16, 0.0, nn.MultiheadAttention(8, 2, batch_first=True))
    theirs = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    theirs.self_attn.load_state_dict(ours.attention.state_dict())
    theirs.linear1.load_state_dict(ours.feed_forward[0].state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward[3].state_dict())
    theirs.norm1.load_state_dict(ours.attention_norm.state_dict())
    theirs.norm2.load_state_dict(ours.feed_forward_norm.state_dict())
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(ours(x), theirs(x))


def test_any_module_with_the_call_of_multihead_attention_can_attend():
    class MeanAttention(nn.Module):
        def forward(self, query, key, value, *, need_weights):
            return value.mean(dim=1, keepdim=True).expand_as(query), None

    x = torch.randn(3, 5, 8)
    assert EncoderLayer(8, 16, 0.0, MeanAttention())(x).shape == x.shape
