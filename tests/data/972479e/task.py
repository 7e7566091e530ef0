"""The task that the runs in this folder were trained on; never to be changed."""

from __future__ import annotations

import torch
from torch import nn

from qsgd_core import Built, Task, TaskDefaults


class Plane(Task):
    """A plane through 64 points, 8 batches an epoch, the same from every seed."""

    name = "plane"
    metrics = ("loss",)
    defaults = TaskDefaults(epochs=2, lr=3e-2)

    def build(self, seed: int) -> Built:
        draw = torch.Generator().manual_seed(11)
        x = torch.randn(64, 4, generator=draw)
        y = x @ torch.tensor([[1.0], [-2.0], [0.5], [0.0]]) + 0.3
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draw) / 2)
        batches = [(x[k : k + 8], y[k : k + 8]) for k in range(0, 64, 8)]
        return Built(model, batches, lambda m: {"loss": float(((m(x) - y) ** 2).mean())})

    def loss(self, model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        x, y = batch
        return ((model(x) - y) ** 2).mean()


def make_task() -> Task:
    return Plane()
