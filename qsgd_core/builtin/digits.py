"""Task ``digits``: scikit-learn's 1,797 handwritten digits, each read row by row.

A digit is a sequence of 8 rows of 8 pixels; a two-layer transformer reads the rows and names the
digit. Real data, a few seconds on one core, and nothing to download.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from qsgd_core.errors import ConfigError
from qsgd_core.task import Built, Task, TaskDefaults

N_TEST = 360
SPLIT_SEED = 0
"""The split is the same for every seed: seeds differ in the model and the order of the data."""


class DigitReader(nn.Module):
    """A transformer encoder over the rows of an image; the head reads every row's vector.

    Reading all rows instead of their mean keeps what each row says apart, which is worth two
    points of accuracy here.
    """

    def __init__(self, *, d_model: int = 64, n_heads: int = 4, d_ff: int = 128, n_layers: int = 2):
        super().__init__()
        self.embed = nn.Linear(8, d_model)
        self.position = nn.Parameter(0.02 * torch.randn(8, d_model))
        layer = nn.TransformerEncoderLayer(d_model, n_heads, d_ff, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.head = nn.Linear(8 * d_model, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 (batch, 10) of images float32 (batch, 8 rows, 8 pixels) in [0, 1]."""
        rows = self.encoder(self.embed(images) + self.position)
        logits: Tensor = self.head(rows.flatten(1))
        return logits


class Digits(Task):
    """Handwritten digits; 1,437 to train on and 360 to test on, stratified by digit."""

    name = "digits"
    summary = "1,797 handwritten digits (scikit-learn) read row by row by a small transformer"
    metrics = ("accuracy", "loss")
    defaults = TaskDefaults(epochs=15, lr=1e-3)

    def build(self, seed: int) -> Built:
        """Model and data; the loader shuffles by a generator of its own.

        Raises:
            ConfigError: scikit-learn is not installed.
        """
        train, (test_images, test_labels) = _load()
        model = DigitReader()
        loader = DataLoader(
            TensorDataset(*train),
            batch_size=32,
            shuffle=True,
            generator=torch.Generator().manual_seed(seed),
        )

        def evaluate(model: nn.Module) -> Mapping[str, float]:
            logits = model(test_images)
            return {
                "accuracy": float((logits.argmax(1) == test_labels).double().mean()),
                "loss": float(nn.functional.cross_entropy(logits, test_labels)),
            }

        return Built(model, loader, evaluate)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Mean cross-entropy of one batch ``(images, labels)``."""
        images, labels = batch
        return nn.functional.cross_entropy(model(images), labels)


def _load() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """``(images float32 (N, 8, 8), labels int64 (N,))`` to train on, and to test on."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ConfigError(
            "Task 'digits' takes its images from scikit-learn, which cannot be imported "
            f"({error}). Install it: pip install 'qsgd-core[demo]'"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy((pixels / 16).astype("float32").reshape(-1, 8, 8))
    targets = torch.from_numpy(labels.astype("int64"))
    train, test = train_test_split(
        range(len(images)), test_size=N_TEST, random_state=SPLIT_SEED, stratify=labels
    )
    return (images[train], targets[train]), (images[test], targets[test])
