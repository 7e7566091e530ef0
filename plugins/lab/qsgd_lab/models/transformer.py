"""The paper's transformer for text classification, with classical or quantum attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias, get_args

import torch
from torch import nn

from qsgd_core.errors import ConfigError
from qsgd_lab.models.attention import QuantumAttention
from qsgd_lab.models.feature import Feature

Attention: TypeAlias = Literal["classical", "quantum"]


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each with dropout, a residual and a LayerNorm.

    The layer of Vaswani et al. (2017): normalised after the residual, ReLU in between.

    Args:
        d_model: width of the stream.
        d_ff: width of the feed-forward network's inner layer.
        dropout: probability, on each residual branch and inside the feed-forward network.
        attention: called as ``attention(x, x, x, need_weights=False)`` on (batch, length,
            d_model) and returns (output, weights or None), as a batch-first
            :class:`torch.nn.MultiheadAttention` does.
    """

    def __init__(self, d_model: int, d_ff: int, dropout: float, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = nn.Sequential(
            nn.Linear(d_model, d_ff), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d_ff, d_model)
        )
        self.attention_norm = nn.LayerNorm(d_model)
        self.feed_forward_norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, length, d_model) -> the same shape."""
        attended, _ = self.attention(x, x, x, need_weights=False)
        x = self.attention_norm(x + self.dropout(attended))
        y: torch.Tensor = self.feed_forward_norm(x + self.dropout(self.feed_forward(x)))
        return y


class TextTransformer(nn.Module):
    """Token and position embeddings, encoder layers, mean over positions, one linear layer.

    The defaults are the paper's: d_model 64, 4 heads, feed-forward 128, 2 layers, dropout 0.1.
    From one torch seed the classical and the quantum model have the same bits in all that they
    share, and leave torch's generator in the same state.

    Args:
        n_tokens: size of the vocabulary.
        length: longest sequence.
        n_classes: number of labels.
        d_model: width of the stream.
        n_heads: attention heads.
        d_ff: width of each feed-forward network.
        n_layers: encoder layers.
        dropout: probability, after the embedding and in each layer.
        attention: ``classical`` softmax attention, or the paper's ``quantum`` one (Eq. 3–4, with
            its 4 qubits and depth 2; each layer has a circuit of its own).
        feature: what of the circuit's state the quantum attention adds to a score.

    Raises:
        ConfigError: an unknown ``attention`` or ``feature``.
    """

    def __init__(
        self,
        *,
        n_tokens: int,
        length: int,
        n_classes: int,
        d_model: int = 64,
        n_heads: int = 4,
        d_ff: int = 128,
        n_layers: int = 2,
        dropout: float = 0.1,
        attention: Attention = "classical",
        feature: Feature = "amplitude",
    ) -> None:
        super().__init__()
        if attention not in get_args(Attention):
            raise ConfigError(f"attention must be 'classical' or 'quantum', not {attention!r}.")
        attend: Callable[[int, int], nn.Module] = (
            partial(nn.MultiheadAttention, dropout=dropout, batch_first=True)
            if attention == "classical"
            else partial(QuantumAttention, dropout=dropout, batch_first=True, feature=feature)
        )
        self.token = nn.Embedding(n_tokens, d_model)
        self.position = nn.Embedding(length, d_model)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(d_model, d_ff, dropout, attend(d_model, n_heads)) for _ in range(n_layers)
        )
        self.head = nn.Linear(d_model, n_classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits: int64 (batch, length) -> (batch, n_classes)."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.token(tokens) + self.position(positions))
        for layer in self.layers:
            x = layer(x)
        logits: torch.Tensor = self.head(x.mean(dim=1))
        return logits
