"""A task of a few milliseconds for the tests of comparisons, written out as a user's script."""

from __future__ import annotations

from pathlib import Path

SCRIPT = """
import os, time
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from qsgd_core import Built, Task, TaskDefaults

UNSEEDED = {unseeded}
SLOW_S = {slow_s}
BREAKS = {breaks!r}
calls = 0


class Toy(Task):
    name = "toy"
    defaults = TaskDefaults(epochs=3, lr=3e-2)

    def build(self, seed):
        if BREAKS == "build" and seed == 1:
            raise RuntimeError("no such corpus")
        own = torch.Generator().manual_seed(seed)
        x = torch.randn(64, 6, generator=own)
        y = (x[:, 0] * x[:, 1] > 0).long()
        model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 2))
        if UNSEEDED:
            model[0].bias.data += torch.rand(8, generator=torch.Generator().manual_seed(
                int.from_bytes(os.urandom(4), "big")))
        loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)

        def evaluate(model):
            out = model(x)
            return {{
                "accuracy": float((out.argmax(1) == y).double().mean()),
                "loss": float(nn.functional.cross_entropy(out, y)),
            }}

        return Built(model, loader, evaluate)

    def loss(self, model, batch):
        time.sleep(SLOW_S)
        x, y = batch
        global calls
        calls += 1
        if BREAKS == "sine" and calls == 6 and torch.is_grad_enabled() and in_sine():
            raise ValueError("cannot go on")
        if BREAKS == "nan" and in_sine():
            return nn.functional.cross_entropy(model(x), y) * float("nan")
        if BREAKS == "memory" and in_sine():
            torch.empty(2**60, dtype=torch.uint8)
        if BREAKS == "die" and in_sine():
            os.kill(os.getpid(), 9)
        return nn.functional.cross_entropy(model(x), y)


def in_sine():
    import inspect
    return any("sine" in str(frame.frame.f_locals.get("arm", "")) for frame in inspect.stack())


def make_task():
    return Toy()
"""


def write(
    folder: Path, *, unseeded: bool = False, slow_s: float = 0.0, breaks: str | None = None
) -> str:
    """The script in ``folder``, as a source; ``breaks`` is what goes wrong, where."""
    path = folder / "toy_task.py"
    path.write_text(SCRIPT.format(unseeded=unseeded, slow_s=slow_s, breaks=breaks))
    return f"{path}:make_task"
