"""The generator follows the law that its docstring states."""

from __future__ import annotations

import math

import pytest
import torch

from qsgd_core.errors import ConfigError
from qsgd_lab.markov import MarkovLaw


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def law(contrast: float = 1.0, seed: int = 0) -> MarkovLaw:
    return MarkovLaw.draw(n_classes=2, n_tokens=5, contrast=contrast, generator=generator(seed))


def test_every_row_is_a_probability_distribution():
    rows = law().transition
    assert rows.shape == (2, 5, 5)
    assert bool((rows > 0).all())
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, 5, dtype=torch.float64))


def test_the_logits_are_the_shared_grammar_plus_contrast_times_the_class_part():
    # Differences between classes of the log-rows, centred, are linear in the contrast.
    def difference(contrast: float) -> torch.Tensor:
        log = law(contrast).transition.log()
        log = log - log.mean(-1, keepdim=True)
        return log[1] - log[0]

    torch.testing.assert_close(difference(2.0), 2 * difference(1.0))
    assert difference(1.0).abs().max() > 0.1
    assert difference(0.0).abs().max() < 1e-12


def test_the_same_generator_gives_the_same_bits():
    first = law().sample(100, 7, generator(3))
    again = law().sample(100, 7, generator(3))
    other = law().sample(100, 7, generator(4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(law(seed=1).transition, law(seed=1).transition)
    assert not torch.equal(law(seed=1).transition, law(seed=2).transition)


def test_labels_and_first_tokens_are_uniform():
    n = 20_000
    tokens, labels = law().sample(n, 2, generator(0))
    for counts, p in ((labels.bincount(minlength=2), 1 / 2), (tokens[:, 0].bincount(), 1 / 5)):
        sigma = math.sqrt(n * p * (1 - p))
        assert (counts.double() - n * p).abs().max() < 5 * sigma


def test_transitions_have_the_law_of_their_class_at_every_position():
    # Each cell is binomial given how often its row was left; 5 sigma over 2·2·25 cells.
    chains = law()
    tokens, labels = chains.sample(40_000, 8, generator(1))
    for position in (0, 6):
        for y in (0, 1):
            here = tokens[labels == y]
            pairs = here[:, position] * 5 + here[:, position + 1]
            counts = pairs.bincount(minlength=25).reshape(5, 5).double()
            n = counts.sum(-1, keepdim=True)
            p = chains.transition[y]
            assert bool(((counts - n * p).abs() < 5 * (n * p * (1 - p)).sqrt()).all())


def test_the_likelihood_of_a_short_text_is_the_product_of_its_steps():
    p = law().transition
    found = law().log_likelihood(torch.tensor([[1, 4, 2], [0, 0, 3]]))
    expected = torch.stack([p[:, 1, 4] * p[:, 4, 2], p[:, 0, 0] * p[:, 0, 3]]).log()
    torch.testing.assert_close(found, expected)


def test_the_best_guess_is_right_as_often_as_the_likelihoods_say():
    # The posterior of the guess is its probability of being right; the sum over texts of
    # p·(1-p) is the variance of the number of right guesses. 5 sigma.
    chains = law(0.5)
    tokens, labels = chains.sample(20_000, 6, generator(2))
    sure = torch.softmax(chains.log_likelihood(tokens), dim=1).max(dim=1).values
    right = (chains.best_guess(tokens) == labels).double()
    sigma = float((sure * (1 - sure)).sum().sqrt())
    assert abs(float((right - sure).sum())) < 5 * sigma
    assert 0.55 < float(right.mean()) < 0.95


@pytest.mark.parametrize(
    "n_classes, n_tokens, contrast",
    [(1, 5, 1.0), (2, 1, 1.0), (2, 5, -0.1), (2, 5, float("nan")), (2, 5, float("inf"))],
)
def test_a_law_that_cannot_be_is_refused_with_what_was_found(n_classes, n_tokens, contrast):
    with pytest.raises(ConfigError, match=f"n_tokens={n_tokens}, contrast={contrast}"):
        MarkovLaw.draw(
            n_classes=n_classes, n_tokens=n_tokens, contrast=contrast, generator=generator(0)
        )
