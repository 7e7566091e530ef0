"""``attach``: the term on an optimizer that exists already."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Unpack

import torch

from qsgd_core.optim.arguments import checked
from qsgd_core.optim.base_optimizer import ATTACHMENT, check_optimizer, unwrap
from qsgd_core.optim.config import TermArguments, TermConfig
from qsgd_core.optim.engine import Engine
from qsgd_core.optim.has_term import HasTerm
from qsgd_core.plugins.registry import default_registry


class Attachment(HasTerm):
    """The term on an optimizer, as :func:`attach` put it there. It keeps the optimizer alive.

    The term stays on the optimizer when this is dropped; :func:`attached` finds it again. Hooks do
    not survive ``copy.deepcopy`` or pickling of a foreign optimizer (torch drops them): call
    :func:`attach` on the copy.

    Attributes:
        optimizer: the one that carries the term.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, engine: Engine) -> None:
        self.optimizer = optimizer
        self._term = engine

    def detach(self) -> None:
        """Take the term off; the optimizer is as before, with the settings its groups brought."""
        self._term.detach()


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
        optimizer: any torch optimizer with a learning rate, but LBFGS. Wrappers that keep the real
            one in ``.optimizer`` (accelerate, Lightning) are looked through.
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
    optimizer = unwrap(optimizer)
    check_optimizer(optimizer)
    engine = Engine(
        optimizer,
        TermConfig(**checked(TermArguments, term, beside=("named_parameters",))),
        registry=default_registry(),
        named_parameters=named_parameters,
    )
    return _held(optimizer, engine)


def attached(optimizer: torch.optim.Optimizer) -> Attachment | None:
    """The term that an optimizer carries, or the one in a wrapper of it; None if there is none."""
    optimizer = unwrap(optimizer)
    engine = vars(optimizer).get(ATTACHMENT)
    return None if engine is None else _held(optimizer, engine)


def _held(optimizer: torch.optim.Optimizer, engine: Engine) -> Attachment:
    """The same for the same term, as long as somebody holds it."""
    found = None if engine.attachment is None else engine.attachment()
    if found is None:
        found = Attachment(optimizer, engine)
        engine.attachment = weakref.ref(found)
    return found
