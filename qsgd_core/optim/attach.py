"""``attach``: the term on an optimizer that exists already."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack

import torch

from qsgd_core.errors import ConfigError
from qsgd_core.optim.arguments import checked
from qsgd_core.optim.base_optimizer import ATTACHMENT
from qsgd_core.optim.config import TermArguments, TermConfig
from qsgd_core.optim.engine import Attachment
from qsgd_core.plugins.registry import default_registry


def attach(
    optimizer: torch.optim.Optimizer,
    *,
    named_parameters: Iterable[tuple[str, torch.Tensor]] | None = None,
    **term: Unpack[TermArguments],
) -> Attachment:
    """Add λ·Q to every step of an optimizer: θ ← θ + (its own step) - lr·λ·s⊙g (paper, Eq. 1).

    A parameter group keeps a ``quantum_weight``, ``n_qubits``, ``scope``, ``inject`` or
    ``normalize`` of its own. What an earlier attachment filled in, in a copy of its optimizer or
    through its checkpoint, is not the group's own: the arguments here replace it, and counting
    starts anew. To go on from a checkpoint, attach first and load it then.

    Args:
        optimizer: any torch optimizer that can step without a closure. Wrappers that keep the
            real one in ``.optimizer`` (accelerate, Lightning) are looked through.
        named_parameters: the model's, for names in seeds and the order of scope ``model``.
        term: λ, perturbation, backend and the rest:
            :class:`~qsgd_core.optim.config.TermArguments`.

    Returns:
        The attachment: ``qsgd_stats()``, ``qsgd_describe()``, ``close()``, ``detach()``.

    Raises:
        ConfigError: an argument, a name or an optimizer that cannot be used, with the reason.

    Example:
        >>> import torch
        >>> from qsgd_core import attach
        >>> from qsgd_core.builtin.perturbations import Sine
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> term = attach(optimizer, quantum_weight=0.5, perturbation=Sine())
        >>> model(torch.ones(2, 4)).square().mean().backward()
        >>> optimizer.step()
        >>> term.qsgd_stats().sources["exact"]
        1
        >>> term.detach()  # the optimizer is as it was
    """
    optimizer = _real(optimizer)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(
            f"attach() needs a torch.optim.Optimizer, not {type(optimizer).__name__}. "
            "Give it torch.optim.SGD(model.parameters(), lr=0.1), say."
        )
    if "_optimizer_step_pre_hooks" not in vars(optimizer):
        inner = getattr(optimizer, "optimizer", None)
        raise ConfigError(
            f"This {type(optimizer).__name__} is a wrapper around {type(inner).__name__}, which is "
            "no torch.optim.Optimizer, so the term cannot be put on its steps. "
            "Train without what wraps it (DeepSpeed, say)."
        )
    return Attachment(
        optimizer,
        TermConfig(**checked(TermArguments, term)),
        registry=default_registry(),
        named_parameters=named_parameters,
    )


def attached(optimizer: torch.optim.Optimizer) -> Attachment | None:
    """The term that an optimizer carries, or the one in a wrapper of it; None if there is none."""
    return vars(_real(optimizer)).get(ATTACHMENT)


def _real(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer in the wrappers of training libraries."""
    inner = getattr(optimizer, "optimizer", None)
    return _real(inner) if isinstance(inner, torch.optim.Optimizer) else optimizer
