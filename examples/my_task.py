"""A task of one's own: three spirals, told apart by a small network.

Run it:    qsgd train examples/my_task.py:make_task --perturbation circuit
Plan only: qsgd train examples/my_task.py:make_task --dry-run
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from qsgd_core import Built, Task, TaskDefaults


class Spirals(Task):
    """Points on three arms of a spiral; which arm?"""

    name = "spirals"
    summary = "Three spiral arms, told apart by a small network"
    metrics = ("accuracy", "loss")
    defaults = TaskDefaults(epochs=20, lr=1e-2)

    def build(self, seed: int) -> Built:
        """Data and model of one seed; torch has been seeded with it already."""
        points, arms = spirals(per_arm=200)
        test_points, test_arms = spirals(per_arm=100)
        model = nn.Sequential(
            nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3)
        )
        loader = DataLoader(TensorDataset(points, arms), batch_size=32, shuffle=True)

        def evaluate(model: nn.Module) -> dict[str, float]:
            logits = model(test_points)
            return {
                "accuracy": float((logits.argmax(1) == test_arms).double().mean()),
                "loss": float(nn.functional.cross_entropy(logits, test_arms)),
            }

        return Built(model, loader, evaluate)

    def loss(self, model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        """Cross-entropy of one batch from the loader."""
        points, arms = batch
        return nn.functional.cross_entropy(model(points), arms)


def spirals(per_arm: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points float32 (3 * per_arm, 2) and their arms int64 (3 * per_arm,)."""
    arm = torch.arange(3).repeat_interleave(per_arm)
    along = torch.rand(3 * per_arm)
    angle = 4 * along + 2 * torch.pi / 3 * arm + 0.1 * torch.randn(3 * per_arm)
    return torch.stack((along * angle.cos(), along * angle.sin()), dim=1), arm


def make_task() -> Task:
    """What ``qsgd train examples/my_task.py:make_task`` calls."""
    return Spirals()
