"""How well plain Adam does on the task ``sequences``: the figure its difficulty is set by.

    python benchmarks/sequences_baseline.py --seeds 10 --json

Trains with ``torch.optim.Adam`` and the task's own settings, one seed after the other on one
thread, with nothing of QSGD's optimizer or training loop in between.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import torch

from qsgd_lab.sequences import LENGTH, Sequences, law


def train(seed: int) -> list[float]:
    """Test accuracy in percent after each epoch."""
    task = Sequences()
    torch.manual_seed(seed)
    built = task.build(seed)
    settings = task.defaults
    optimizer = torch.optim.Adam(
        built.model.parameters(),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )
    accuracy = []
    for _ in range(settings.epochs):
        for batch in built.train_loader:
            optimizer.zero_grad()
            task.loss(built.model, batch).backward()
            optimizer.step()
        accuracy.append(100 * built.evaluate(built.model)["accuracy"])
    return accuracy


def ceiling(n_texts: int = 400_000) -> float:
    """Accuracy in percent of the classifier that knows the law; at 400,000 texts ± 0.03."""
    languages = law()
    tokens, labels = languages.sample(n_texts, LENGTH, torch.Generator().manual_seed(1))
    return 100 * float((languages.best_guess(tokens) == labels).double().mean())


def main() -> None:
    """Print each seed's accuracy, then the mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 … SEEDS-1 (at least 2)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error(f"--seeds {arguments.seeds}: a standard error needs at least 2 seeds.")
    torch.set_num_threads(1)
    curves, wall_s = [], []
    for seed in range(arguments.seeds):
        started = time.perf_counter()
        curves.append(train(seed))
        wall_s.append(time.perf_counter() - started)
        print(f"seed {seed}: {curves[-1][-1]:.2f} % ({wall_s[-1]:.1f} s)", file=sys.stderr)
    final = [curve[-1] for curve in curves]
    se = statistics.stdev(final) / len(final) ** 0.5
    result = {
        "task": "sequences",
        "accuracy_percent": [round(value, 3) for value in final],
        "mean": round(statistics.fmean(final), 3),
        "se": round(se, 3),
        "ceiling": round(ceiling(), 2),
        "epochs_to_90": [
            next((i for i, value in enumerate(curve, 1) if value >= 90), None) for curve in curves
        ],
        "wall_s": [round(value, 1) for value in wall_s],
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"{result['mean']} ± {result['se']} %, best possible {result['ceiling']} %")


if __name__ == "__main__":
    main()
