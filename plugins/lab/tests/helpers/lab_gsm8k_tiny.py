"""A random model of a few thousand weights, its tokenizer, and sums for it to learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

N_TRAIN, N_TEST = 12, 6
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def problem(n: int) -> dict[str, str]:
    """The n-th sum, in the form of GSM8K."""
    a, b = n + 2, 2 * n % 13 + 1
    return {
        "question": f"Ann has {a} eggs and finds {b} more. How many eggs has she?",
        "answer": f"Ann has {a} + {b} = <<{a}+{b}={a + b}>>{a + b} eggs.\n#### {a + b}",
    }


def write_data(folder: Path) -> Path:
    """train.jsonl and test.jsonl in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, numbers in (("train", range(N_TRAIN)), ("test", range(50, 50 + N_TEST))):
        lines = [json.dumps(problem(n)) + "\n" for n in numbers]
        (folder / f"{part}.jsonl").write_text("".join(lines))
    return folder


def tokenizer(*, chats: bool = True) -> Any:
    """Byte-level BPE, trained on the sums."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([text for n in range(99) for text in problem(n).values()], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    if chats:
        fast.chat_template = TEMPLATE
    return fast


def write_model(folder: Path, *, dropout: float = 0.0, chats: bool = True) -> Path:
    """A Llama of two layers with tied embeddings, as ``save_pretrained`` leaves it."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    words = tokenizer(chats=chats)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        attention_dropout=dropout,
        tie_word_embeddings=True,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
