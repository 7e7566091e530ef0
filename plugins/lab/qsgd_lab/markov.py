"""Synthetic text: each class is a first-order Markov chain over tokens, and its law is known.

For tokens a, b in 0 … V-1 and class y in 0 … K-1,

    P_y(b | a) = softmax_b( G[a, b] + contrast · H_y[a, b] ),    G, H_y i.i.d. N(0, 1).

G is the grammar that all classes share, H_y what tells class y apart. A sequence has a label drawn
uniformly, a first token drawn uniformly, and then follows its label's chain. Because the law is
known, so is the best possible classifier: the class of the largest log-likelihood
Σ_i log P_y(x_{i+1} | x_i). No model beats its accuracy except by luck; what a trained model lacks
to it is what it could not learn from the examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from qsgd_core.errors import ConfigError


@dataclass(frozen=True, eq=False)
class MarkovLaw:
    """The chains of all classes.

    Attributes:
        transition: float64 (n_classes, n_tokens, n_tokens); ``transition[y, a, b]`` is P_y(b | a).
    """

    transition: torch.Tensor

    @classmethod
    def draw(
        cls, *, n_classes: int, n_tokens: int, contrast: float, generator: torch.Generator
    ) -> MarkovLaw:
        """A law drawn at random.

        Args:
            n_classes: K, at least 2.
            n_tokens: V, at least 2.
            contrast: how far apart the classes are; at 0 all of them are the same chain.
            generator: on the CPU; the same state gives the same law.

        Raises:
            ConfigError: a value out of range.
        """
        if n_classes < 2 or n_tokens < 2 or not 0 <= contrast < float("inf"):
            raise ConfigError(
                "A Markov law needs n_classes >= 2, n_tokens >= 2 and a finite contrast >= 0; "
                f"found n_classes={n_classes}, n_tokens={n_tokens}, contrast={contrast}."
            )
        draw = torch.randn(
            n_classes + 1, n_tokens, n_tokens, generator=generator, dtype=torch.float64
        )
        return cls(torch.softmax(draw[0] + contrast * draw[1:], dim=-1))

    def sample(
        self, n_sequences: int, length: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Labelled sequences.

        Returns:
            Tokens int64 (n_sequences, length) and labels int64 (n_sequences,).
        """
        n_classes, n_tokens, _ = self.transition.shape
        labels = torch.randint(n_classes, (n_sequences,), generator=generator)
        tokens = torch.empty(n_sequences, length, dtype=torch.int64)
        tokens[:, 0] = torch.randint(n_tokens, (n_sequences,), generator=generator)
        for i in range(1, length):
            rows = self.transition[labels, tokens[:, i - 1]]
            tokens[:, i] = torch.multinomial(rows, 1, generator=generator)[:, 0]
        return tokens, labels

    def log_likelihood(self, tokens: torch.Tensor) -> torch.Tensor:
        """log P_y(tokens), less the first token's constant: float64 (n_sequences, n_classes)."""
        steps = self.transition.log()[:, tokens[:, :-1], tokens[:, 1:]]
        return steps.sum(dim=-1).T

    def best_guess(self, tokens: torch.Tensor) -> torch.Tensor:
        """Label of the largest likelihood, int64 (n_sequences,): the Bayes-optimal classifier."""
        return self.log_likelihood(tokens).argmax(dim=-1)
