"""What the term costs: percent of a training step, measured side by side in one process.

The paper's 2-layer transformer (d 64, 4 heads, ff 128) at batch 32 and sequence 64, fused AdamW
as the base, effect size on, scope ``tensor``. One thread; process CPU time; every round runs one
training step of each arm in a shuffled order; medians after warm-up. The overhead is the extra CPU
time of ``opt.step()`` over the base's, as a share of the base's whole training step (forward,
backward, step): the forward and backward passes are the same work in every arm.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time

import torch

import qsgd_core as qsgd

VOCAB, LENGTH, BATCH, CLASSES = 64, 64, 32, 4


class Transformer(torch.nn.Module):
    """The paper's text model: d 64, 4 heads, ff 128, 2 layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(VOCAB, 64)
        self.position = torch.nn.Parameter(torch.randn(LENGTH, 64) * 0.02)
        layer = torch.nn.TransformerEncoderLayer(64, 4, 128, dropout=0.1, batch_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(64, CLASSES)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, LENGTH) int64 -> (B, CLASSES)."""
        return self.head(self.encoder(self.embed(tokens) + self.position).mean(dim=1))


def make_arm(name: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """One model and its optimizer; every arm starts from the same weights."""
    torch.manual_seed(0)
    model = Transformer()
    settings = {"lr": 1e-3, "weight_decay": 0.0, "fused": True}
    if name == "adamw":
        return model, torch.optim.AdamW(model.parameters(), **settings)
    options = {"entangler": "chain"} if name == "circuit" else None
    return model, qsgd.QSGD(
        model.parameters(),
        **settings,
        quantum_weight=0.5,
        perturbation=name,
        perturbation_options=options,
        backend="exact",
    )


def measure(arms: list[str], rounds: int, warm_up: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of CPU time of the whole training step and of ``opt.step()``, by arm."""
    made = {name: make_arm(name) for name in arms}
    times: dict[str, dict[str, list[float]]] = {a: {"train": [], "step": []} for a in arms}
    generator = torch.Generator().manual_seed(1)
    order = random.Random(0)
    for turn in range(rounds + warm_up):
        tokens = torch.randint(VOCAB, (BATCH, LENGTH), generator=generator)
        target = torch.randint(CLASSES, (BATCH,), generator=generator)
        for name in order.sample(arms, len(arms)):
            model, opt = made[name]
            start = time.process_time()
            opt.zero_grad()
            torch.nn.functional.cross_entropy(model(tokens), target).backward()
            before_step = time.process_time()
            opt.step()
            end = time.process_time()
            if turn >= warm_up:
                times[name]["train"].append(end - start)
                times[name]["step"].append(end - before_step)
    return times


def main() -> None:
    """Print a table, or one JSON object with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)

    arms = ["adamw", "sine", "circuit"]
    times = measure(arms, args.rounds, warm_up=30)
    median = {a: {k: statistics.median(v) for k, v in t.items()} for a, t in times.items()}
    base = median["adamw"]
    n_tensors = len(list(Transformer().parameters()))
    report: dict[str, object] = {
        "base": "torch.optim.AdamW(fused=True)",
        "tensors": n_tensors,
        "rounds": args.rounds,
        "train_step_ms": base["train"] * 1e3,
        "base_opt_step_us": base["step"] * 1e6,
    }
    for name in arms[1:]:
        extra = median[name]["step"] - base["step"]
        report[name] = {
            "percent_of_training_step": 100 * extra / base["train"],
            "us_per_step": extra * 1e6,
            "us_per_tensor": extra * 1e6 / n_tensors,
            "whole_step_ratio": median[name]["train"] / base["train"],
        }
    if args.json:
        print(json.dumps(report))
        return
    print(f"training step {base['train'] * 1e3:.1f} ms CPU, {n_tensors} tensors")
    for name in arms[1:]:
        print(f"{name:8}", {k: round(v, 2) for k, v in report[name].items()})  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
