"""``QSGDCallback``: the term's readings in Lightning's log, and its end. Needs lightning."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from qsgd_core.errors import ConfigError
from qsgd_core.integrations.readings import readings
from qsgd_core.optim.attach import Attachment, attached


class QSGDCallback(Callback):  # type: ignore[misc]  # mypy does not read Lightning
    """Logs what the terms of a module's optimizers do, and ends what runs beside the loop.

    The term itself is put on in ``configure_optimizers``, by returning a ``QSGD`` or by
    ``attach``; Lightning's checkpoints then hold its state. Without this callback it works as
    well, but a paid backend's courier lives on until the process ends.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a training without a term."""
        if not _terms(trainer):
            found = ", ".join(type(o).__name__ for o in trainer.optimizers) or "none at all"
            raise ConfigError(
                f"QSGDCallback found no term on the optimizers of {type(pl_module).__name__} "
                f"({found}). Return qsgd_core.QSGD(self.parameters(), lr=1e-3) from "
                "configure_optimizers, or attach() one there."
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *batch: Any, **more: Any
    ) -> None:
        """Log readings as often as Lightning logs."""
        every = trainer.log_every_n_steps
        if trainer.global_step % every:
            return
        terms = _terms(trainer)
        for k, term in enumerate(terms):
            prefix = "qsgd" if len(terms) == 1 else f"qsgd{k}"
            pl_module.log_dict(readings(term.qsgd_stats(), prefix=prefix))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close; jobs that still wait in a queue are cancelled if all steps have been taken."""
        finished = trainer.global_step >= trainer.estimated_stepping_batches
        for term in _terms(trainer):
            term.close(finished=finished)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Close: the run may go on later."""
        for term in _terms(trainer):
            term.close(finished=False)


def _terms(trainer: Trainer) -> list[Attachment]:
    found = (attached(optimizer) for optimizer in trainer.optimizers)
    return [term for term in found if term is not None]
