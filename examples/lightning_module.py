"""The quantum term in a LightningModule, by QSGD and on another optimizer. Needs lightning."""

import lightning as L  # noqa: N812  as in its own documentation
import torch
from torch.utils.data import DataLoader, TensorDataset

import qsgd_core as qsgd
from qsgd_core.integrations.lightning import QSGDCallback


class Regression(L.LightningModule):
    """The product of two numbers, learned by a small network."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)
        )

    def training_step(self, batch, batch_idx):
        """Mean squared error of one batch."""
        x, y = batch
        loss = torch.nn.functional.mse_loss(self.net(x), y)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        """AdamW with the term."""
        return qsgd.QSGD(self.parameters(), lr=1e-2, quantum_weight=0.5)


class WithSGD(Regression):
    """The same with the term on an optimizer of one's own."""

    def configure_optimizers(self):
        """SGD with the term; a paid backend spreads its budget over all steps."""
        sgd = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        qsgd.attach(sgd, total_steps=self.trainer.estimated_stepping_batches)
        return sgd


L.seed_everything(0)
x = torch.randn(512, 2)
loader = DataLoader(TensorDataset(x, x[:, :1] * x[:, 1:]), batch_size=32, shuffle=True)
for module in (Regression(), WithSGD()):
    trainer = L.Trainer(
        max_epochs=5,
        gradient_clip_val=1.0,
        callbacks=[QSGDCallback()],
        accelerator="cpu",
        log_every_n_steps=16,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, loader)
    shown = {name: round(float(value), 4) for name, value in trainer.logged_metrics.items()}
    print(type(module).__name__, shown)
