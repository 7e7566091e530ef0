"""The paper's transformer for text classification."""

from __future__ import annotations

import torch
from torch import nn


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

    Args:
        n_tokens: size of the vocabulary.
        length: longest sequence.
        n_classes: number of labels.
        d_model: width of the stream.
        n_heads: attention heads.
        d_ff: width of each feed-forward network.
        n_layers: encoder layers.
        dropout: probability, after the embedding and in each layer.
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
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(n_tokens, d_model)
        self.position = nn.Embedding(length, d_model)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(d_model, d_ff, dropout, classical_attention(d_model, n_heads, dropout))
            for _ in range(n_layers)
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


def classical_attention(d_model: int, n_heads: int, dropout: float) -> nn.Module:
    """Softmax attention, dropout on the weights: torch's own module."""
    return nn.MultiheadAttention(d_model, n_heads, dropout=dropout, batch_first=True)
