"""From a loss to a step of the optimizer: its learning rate, mixed precision, clipping."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch

from qsgd_core.training.config import TrainConfig
from qsgd_core.training.loop.rate import rate, varies


class Stepper:
    """Takes the steps of a run. Its only state is the scale of a GradScaler.

    Args:
        model: what is trained, on its device.
        optimizer: of its parameters; all groups have the run's learning rate.
        config: a full configuration, through :func:`~qsgd_core.training.loop.rate.planned`.
    """

    def __init__(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._config = config
        parameter = next(model.parameters(), None)
        self._device = "cpu" if parameter is None else parameter.device.type
        self._scaler: torch.amp.GradScaler | None = None
        self._n_stepped = 0
        if config.precision == "float16":
            self._scaler = torch.amp.GradScaler(self._device)
            optimizer.register_step_post_hook(self._count)

    def autocast(self) -> AbstractContextManager[Any]:
        """Where losses and metrics are computed: mixed precision, if that was asked for."""
        mixed = self._scaler is not None
        return torch.autocast(self._device, dtype=torch.float16 if mixed else None, enabled=mixed)

    def step(self, loss: torch.Tensor, taken: int) -> bool:
        """Take one step down ``loss``.

        Args:
            loss: 0-dim, computed inside :meth:`autocast`.
            taken: steps taken before.

        Returns:
            False if it was left out because a gradient overflowed in float16.
        """
        if varies(self._config):
            for group in self._optimizer.param_groups:
                group["lr"] = rate(self._config, taken)
        if self._scaler is None:
            loss.backward()
            self._clip()
            self._optimizer.step()
            return True
        before = self._n_stepped
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        self._clip()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return self._n_stepped > before

    def state(self) -> dict[str, Any] | None:
        """Plain numbers for a checkpoint; None without a GradScaler."""
        return None if self._scaler is None else self._scaler.state_dict()

    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Go on from what :meth:`state` gave."""
        if self._scaler is not None and state is not None:
            self._scaler.load_state_dict(dict(state))

    def _clip(self) -> None:
        if self._config.clip_norm:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._config.clip_norm)

    def _count(self, *_: Any) -> None:
        # A GradScaler does not say whether it stepped.
        self._n_stepped += 1
