"""How a model is judged: the loss of its answers, and whether what it writes comes out right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qsgd_lab.gsm8k.answers import is_right
from qsgd_lab.gsm8k.data import Problem
from qsgd_lab.gsm8k.encoding import IGNORED, Encoder

MAX_NEW_TOKENS = 512
"""More than any answer of GSM8K has."""


def answer_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean cross-entropy over each answer's tokens: float32 (batch,), in nats."""
    device = next(model.parameters()).device
    tokens, mask, labels = (
        batch[name].to(device) for name in ("input_ids", "attention_mask", "labels")
    )
    output = model(input_ids=tokens, attention_mask=mask, use_cache=False)
    logits, targets = output.logits[:, :-1].float(), labels[:, 1:]
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    counted: Tensor = (targets != IGNORED).sum(1)
    return losses.view_as(targets).sum(1) / counted


def mean_loss(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> float:
    """Mean of :func:`answer_losses` over all answers, however they are batched."""
    losses = torch.cat([answer_losses(model, batch).double() for batch in batches])
    return float(losses.mean())


def exact_match(
    model: nn.Module, encoder: Encoder, problems: Sequence[Problem], batch_size: int
) -> float:
    """Share of problems to which the model, always taking the likeliest token, writes the number.

    Args:
        model: in eval mode.
        encoder: the model's.
        problems: with the right answers.
        batch_size: problems at once.
    """
    right = 0
    for start in range(0, len(problems), batch_size):
        chunk = problems[start : start + batch_size]
        written = _write(model, encoder, [encoder.prompt(problem) for problem in chunk])
        right += sum(is_right(w, p.answer) for w, p in zip(written, chunk, strict=True))
    return right / len(problems)


def _write(model: Any, encoder: Encoder, prompts: Sequence[list[int]]) -> list[str]:
    """What the model writes after each prompt."""
    device = next(model.parameters()).device
    length = max(map(len, prompts))
    # Padded on the left, so that every answer begins at the same place.
    tokens = torch.full((len(prompts), length), encoder.eos)
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, length - len(prompt) :] = torch.tensor(prompt)
        mask[row, length - len(prompt) :] = 1
    written: Tensor = model.generate(
        input_ids=tokens.to(device),
        attention_mask=mask.to(device),
        do_sample=False,
        max_new_tokens=min(MAX_NEW_TOKENS, encoder.context - length),
        eos_token_id=encoder.eos,
        pad_token_id=encoder.eos,
    )
    return [encoder.text(row) for row in written[:, length:]]
