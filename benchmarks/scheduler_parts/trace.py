"""The trace: how the first four coordinates of every tensor move while a small model trains."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

VOCAB, CONTEXT, WIDTH, HEADS, LAYERS = 32, 32, 64, 4, 2
BATCH, LEARNING_RATE, WARM_UP, LAST_LR = 16, 1e-3, 100, 0.1
CONCENTRATION = 0.05
"""Of the Dirichlet distribution that every context's next-token probabilities are drawn from."""
N_COORDINATES = 4
"""Coordinates of every tensor: one block of four qubits."""


def train(steps: int, *, total: int, seed: int = 0) -> NDArray[np.float64]:
    """Train on order-2 Markov text with Adam, warm-up and cosine decay to a tenth.

    Args:
        steps: taken.
        total: of the learning rate's schedule.
        seed: of data, initial weights and batches.

    Returns:
        float64 (steps, 29 tensors, 4): every tensor's first coordinates before each step.
    """
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(VOCAB, CONCENTRATION), size=VOCAB**2)
    cumulative = np.cumsum(rows, axis=1)
    torch.manual_seed(seed)
    model = Transformer()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: learning_rate(t, total))
    trace = np.empty((steps, len(list(model.parameters())), N_COORDINATES))
    for step in range(steps):
        trace[step] = [
            p.detach().flatten()[:N_COORDINATES].double().numpy() for p in model.parameters()
        ]
        tokens = torch.from_numpy(markov(cumulative, rng))
        logits = model(tokens[:, :-1])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        schedule.step()
    return trace


def learning_rate(step: int, total: int) -> float:
    """Relative to its peak: linear warm-up, then cosine decay to :data:`LAST_LR`."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    progress = min((step - WARM_UP) / max(total - WARM_UP, 1), 1.0)
    return LAST_LR + (1 - LAST_LR) * 0.5 * (1 + math.cos(math.pi * progress))


def markov(cumulative: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """(BATCH, CONTEXT + 1) tokens, each drawn given the two before it."""
    tokens = rng.integers(VOCAB, size=(BATCH, CONTEXT + 1))
    for i in range(2, CONTEXT + 1):
        given = cumulative[tokens[:, i - 2] * VOCAB + tokens[:, i - 1]]
        drawn = (given < rng.random((BATCH, 1))).sum(axis=1)
        tokens[:, i] = np.minimum(drawn, VOCAB - 1)
    return tokens


class Transformer(torch.nn.Module):
    """Two pre-norm layers with causal attention; 29 tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(VOCAB, WIDTH)
        self.position = torch.nn.Parameter(torch.randn(CONTEXT, WIDTH) * 0.02)
        torch.nn.init.normal_(self.embed.weight, std=0.02)
        layer = torch.nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.head = torch.nn.Linear(WIDTH, VOCAB, bias=False)
        mask = torch.nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        self.register_buffer("mask", mask)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, CONTEXT) int64 -> (B, CONTEXT, VOCAB)."""
        hidden = self.embed(tokens) + self.position
        logits: torch.Tensor = self.head(
            self.norm(self.layers(hidden, mask=self.mask, is_causal=True))
        )
        return logits
