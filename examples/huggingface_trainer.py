"""The quantum term under the Hugging Face Trainer, in two ways. Needs transformers, accelerate."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import qsgd_core as qsgd
from qsgd_core.integrations.huggingface import QSGDCallback

torch.manual_seed(0)
counting = (torch.arange(12) + torch.randint(0, 20, (64, 1))).tolist()
dataset = [{"input_ids": row, "labels": row} for row in counting]
config = LlamaConfig(
    vocab_size=32,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
)
args = TrainingArguments(
    output_dir="runs/huggingface",
    max_steps=40,
    learning_rate=1e-2,
    logging_steps=20,
    save_strategy="no",
    use_cpu=True,
)

# QSGD as the Trainer's optimizer. lr, betas and eps of args reach it only through this dict.
_, settings = Trainer.get_optimizer_cls_and_kwargs(args)
trainer = Trainer(
    model=LlamaForCausalLM(config),
    args=args,
    train_dataset=dataset,
    optimizer_cls_and_kwargs=(qsgd.QSGD, {**settings, "quantum_weight": 0.5}),
    callbacks=[QSGDCallback()],
)
trainer.train()
print(trainer.state.log_history[-2])

# The term on whatever optimizer the Trainer makes.
term = QSGDCallback({"quantum_weight": 0.5, "perturbation": "circuit"})
trainer = Trainer(
    model=LlamaForCausalLM(config), args=args, train_dataset=dataset, callbacks=[term]
)
with term:  # on a paid backend: its process ends with this block, also after an exception
    trainer.train()
print(f"the term was {term.qsgd_stats().effect_size_mean:.2%} of the AdamW step")
