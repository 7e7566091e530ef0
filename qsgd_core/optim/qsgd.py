"""``QSGD``: torch's AdamW with the term on it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Unpack

import torch
from torch.optim.optimizer import ParamsT

from qsgd_core.optim.arguments import checked
from qsgd_core.optim.config import TermArguments, TermConfig
from qsgd_core.optim.engine import Engine
from qsgd_core.optim.has_term import HasTerm
from qsgd_core.plugins.registry import default_registry

OWN_ARGUMENTS = (*inspect.signature(torch.optim.AdamW).parameters, "named_parameters")
"""Arguments of :class:`QSGD` that are not the term's."""


class QSGD(HasTerm, torch.optim.AdamW):
    """AdamW plus the quantum term: θ ← AdamW(θ, g) - lr·λ·s⊙g on the selected coordinates.

    Superpositional Gradient Descent, arXiv 2511.01918, Eq. 1. Everything of
    :class:`torch.optim.AdamW` holds; with ``quantum_weight=0`` it is bit-identical to it. Groups
    may bring their own ``quantum_weight``, ``n_qubits``, ``scope``, ``inject`` and ``normalize``.
    Unlike an attachment, it survives ``copy.deepcopy`` and pickling (without its observers).

    Args:
        params: as in AdamW.
        lr: as in AdamW.
        betas: as in AdamW.
        eps: as in AdamW.
        weight_decay: as in AdamW.
        amsgrad: as in AdamW.
        maximize: as in AdamW; the term then climbs too.
        foreach: as in AdamW.
        capturable: as in AdamW.
        differentiable: refused if True: the term is added outside of the step's graph.
        fused: as in AdamW.
        named_parameters: the model's, for names in seeds and the order of scope ``model``.
        term: λ, perturbation, backend and the rest:
            :class:`~qsgd_core.optim.config.TermArguments`.

    Raises:
        ConfigError: an argument or a name that cannot be used, with the reason.

    Example:
        >>> import torch
        >>> from qsgd_core import QSGD
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = QSGD(model.parameters(), lr=0.01, quantum_weight=0.5, backend="sampled")
        >>> model(torch.ones(2, 4)).square().mean().backward()
        >>> optimizer.step()
        >>> optimizer.qsgd_stats().sources["measured"]
        1
        >>> optimizer.close()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float | torch.Tensor, float | torch.Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        named_parameters: Iterable[tuple[str, torch.Tensor]] | None = None,
        **term: Unpack[TermArguments],
    ) -> None:
        config = TermConfig(**checked(TermArguments, term, beside=OWN_ARGUMENTS))
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
        )
        self._term = Engine(
            self, config, registry=default_registry(), named_parameters=named_parameters
        )

    qsgd_close = HasTerm.close
    """As :meth:`close` was called once; programs of that time go on working."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in AdamW; the new group gets the term's settings where it has none of its own."""
        super().add_param_group(param_group)
        if "_term" in vars(self):  # AdamW's constructor calls this before there is a term
            self._term.adopt_groups()

    def __getstate__(self) -> dict[str, Any]:
        """What torch keeps, the term's settings and its counters."""
        copied: dict[str, Any] = super().__getstate__()
        order = {p: k for k, p in enumerate(p for g in self.param_groups for p in g["params"])}
        copied["_term_state"] = {
            "config": replace(self._term.config, observers=(), record=None),
            "record": self._term.record_json(),
            "shadow": self._term.shadow_state(),
            "names": [(name, order[p]) for p, name in self._term.names().items()],
        }
        return copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Also called by ``load_state_dict``, which brings no term and leaves ours alone."""
        term = state.pop("_term_state", None)
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if term is None:
            return
        params = [p for g in self.param_groups for p in g["params"]]
        names = [(name, params[k]) for name, k in term["names"]]
        self._term = Engine(
            self,
            term["config"],
            registry=default_registry(),
            named_parameters=names,
            resumed=True,
        )
        self._term.load_shadow(term.get("shadow", {"param_groups": [], "state": {}}))
        self._term.load_record(term["record"])
