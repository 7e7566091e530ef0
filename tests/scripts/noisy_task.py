"""A small task that draws from every generator there is, in every way a loader can be made."""

from __future__ import annotations

import random
import sys

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from qsgd_core import Built, Task, TaskDefaults

N, BATCH = 40, 8


class NoisyPoints(Dataset):
    """Points that are moved a little each time they are read."""

    def __init__(self) -> None:
        self.points = torch.randn(N, 4, generator=torch.Generator().manual_seed(5))

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = random.gauss(0, 0.1) + float(np.random.normal(0, 0.1)) + 0.1 * torch.randn(4)
        return self.points[index] + noise, int(self.points[index].sum() > 0)


class Stream:
    """An iterable without a length that is not a DataLoader."""

    def __init__(self, data: NoisyPoints) -> None:
        self.data = data

    def __iter__(self):
        order = torch.randperm(N)
        for k in range(0, N, BATCH):
            items = [self.data[int(i)] for i in order[k : k + BATCH]]
            yield torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items])


class Noisy(Task):
    name = "noisy"
    defaults = TaskDefaults(epochs=2, lr=1e-2)

    def __init__(self, kind: str = "global", *, wait_at: int | None = None) -> None:
        self.kind = kind
        self.wait_at = wait_at
        self.losses = 0

    def build(self, seed: int) -> Built:
        data = NoisyPoints()
        own = torch.Generator().manual_seed(seed)
        loader = {
            "global": lambda: DataLoader(data, BATCH, shuffle=True),
            "generator": lambda: DataLoader(data, BATCH, shuffle=True, generator=own),
            "sampler": lambda: DataLoader(
                data, BATCH, sampler=RandomSampler(data, replacement=True, generator=own)
            ),
            "workers": lambda: DataLoader(data, BATCH, shuffle=True, num_workers=2),
            "stream": lambda: Stream(data),
            "empty": list,
        }[self.kind]()
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 2))
        test = torch.randn(60, 4, generator=torch.Generator().manual_seed(6))

        def evaluate(model: nn.Module) -> dict[str, float]:
            assert not model.training
            assert not torch.is_grad_enabled()
            jitter = 0.01 * torch.randn(60, 4)  # an evaluation may draw too
            logits, truth = model(test + jitter), (test.sum(1) > 0).long()
            return {
                "accuracy": float((logits.argmax(1) == truth).double().mean()),
                "loss": float(nn.functional.cross_entropy(logits, truth)),
            }

        return Built(model, loader, evaluate)

    def loss(self, model: nn.Module, batch) -> torch.Tensor:
        self.losses += 1
        if self.losses == self.wait_at:  # for a parent that sends signals
            print("ready", file=sys.stderr, flush=True)
            sys.stdin.readline()
        points, labels = batch
        return nn.functional.cross_entropy(model(points), labels)


def make_task() -> Task:
    return Noisy()


def make_waiting() -> Task:
    return Noisy(wait_at=8)


def make_nothing() -> None:
    return None


def make_trouble() -> Task:
    raise ZeroDivisionError("on purpose")


def make_exit() -> Task:
    sys.exit(0)


def make_nameless() -> Task:
    class Nameless(Noisy):
        name = None

    return Nameless()


not_callable = 3
