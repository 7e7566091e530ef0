"""From problems to tokens and back: what the model is shown, and which tokens it is judged by.

The question is the user's turn in the model's own chat template (``Question: … Answer:`` for a
model without one), the answer is the assistant's, with its working, its calculator notes
(``<<48/2=24>>``) and ``#### 72``, and the end-of-sequence token. Only the answer's tokens count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qsgd_core.errors import ConfigError
from qsgd_lab.gsm8k.data import Problem

IGNORED = -100
"""The label of a token that does not count: torch's cross-entropy leaves it out."""
DATE = "26 Jul 2024"
"""For templates that would write today's date into every prompt (Llama 3.2); this is their own."""


@dataclass(frozen=True)
class Example:
    """A problem in tokens.

    Attributes:
        tokens: of prompt and answer.
        n_prompt: how many of them are the prompt's.
    """

    tokens: tuple[int, ...]
    n_prompt: int


class Encoder:
    """Problems as one model reads them.

    Args:
        tokenizer: the model's.
        context: tokens that an example may have; what is beyond is cut.
    """

    def __init__(self, tokenizer: Any, context: int) -> None:
        self.context = context
        self._tokenizer = tokenizer
        self._chats = tokenizer.chat_template is not None

    @property
    def eos(self) -> int:
        """The token that ends an answer."""
        return int(self._tokenizer.eos_token_id)

    def prompt_text(self, problem: Problem) -> str:
        """Everything before the answer."""
        if not self._chats:
            return f"Question: {problem.question}\nAnswer:"
        turn = {"role": "user", "content": problem.question}
        text: str = self._tokenizer.apply_chat_template(
            [turn], tokenize=False, add_generation_prompt=True, date_string=DATE
        )
        return text

    def prompt(self, problem: Problem) -> list[int]:
        """Tokens of :meth:`prompt_text`."""
        # A template has its own first token in the text.
        return self._tokens(self.prompt_text(problem), special=not self._chats)

    def example(self, problem: Problem) -> Example:
        """Tokens of prompt and answer."""
        prompt = self.prompt(problem)
        answer = problem.answer if self._chats else f" {problem.answer}"
        tokens = [*prompt, *self._tokens(answer, special=False), self.eos]
        return Example(tuple(tokens[: self.context]), len(prompt))

    def text(self, tokens: Tensor) -> str:
        """What a model wrote, from int64 (length,)."""
        written: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return written

    def check(self, part: str, problems: Sequence[Problem]) -> None:
        """Raise for a problem whose answer lies beyond the context.

        Raises:
            ConfigError: naming the first.
        """
        for n, problem in enumerate(problems, 1):
            # No token is shorter than a byte, so that few have to be counted.
            if len(self.prompt_text(problem).encode()) + 1 < self.context:
                continue
            if (length := len(self.prompt(problem))) >= self.context:
                raise ConfigError(
                    f"Problem {n} of the {part} data has {length} tokens before its answer, and "
                    f"the context is {self.context}: nothing of the answer would be left. Take "
                    "the problem out, or set QSGD_GSM8K_CONTEXT to more."
                )

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        found: list[int] = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        return found


def collate(examples: Sequence[Example]) -> dict[str, Tensor]:
    """A batch, padded on the right.

    Returns:
        ``input_ids``, ``attention_mask`` and ``labels``: int64 (batch, length).
    """
    shape = len(examples), max(len(example.tokens) for example in examples)
    batch = {
        "input_ids": torch.zeros(shape, dtype=torch.int64),
        "attention_mask": torch.zeros(shape, dtype=torch.int64),
        "labels": torch.full(shape, IGNORED),
    }
    for row, example in enumerate(examples):
        tokens = torch.tensor(example.tokens)
        batch["input_ids"][row, : len(tokens)] = tokens
        batch["attention_mask"][row, : len(tokens)] = 1
        batch["labels"][row, example.n_prompt : len(tokens)] = tokens[example.n_prompt :]
    return batch
