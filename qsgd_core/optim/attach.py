"""``attach``: the term on an optimizer that exists already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from qsgd_core.errors import ConfigError
from qsgd_core.events import Observer
from qsgd_core.measure.counts import Count
from qsgd_core.measure.options import Wait
from qsgd_core.optim.base_optimizer import ATTACHMENT
from qsgd_core.optim.config import Inject, Normalize, Scope, TermConfig, Weight
from qsgd_core.optim.engine import Attachment
from qsgd_core.plugins.registry import default_registry


def attach(
    optimizer: torch.optim.Optimizer,
    *,
    quantum_weight: Weight = 0.5,
    n_qubits: int = 4,
    depth: int = 2,
    perturbation: str = "sine",
    perturbation_options: Mapping[str, Any] | None = None,
    backend: str | None = None,
    backend_options: Mapping[str, Any] | None = None,
    shots: Count | None = None,
    scope: Scope = "tensor",
    inject: Inject = "update",
    normalize: Normalize = None,
    every: Count | None = None,
    policy: str | None = None,
    wait: Wait | None = None,
    budget: str | None = None,
    total_steps: int | None = None,
    run: str | None = None,
    schedule: Mapping[str, Any] | None = None,
    record: str | None = None,
    replay: str | None = None,
    seed: int = 0,
    named_parameters: Iterable[tuple[str, torch.Tensor]] | None = None,
    observers: Sequence[str | Observer] | None = None,
) -> Attachment:
    """Add λ·Q to every step of an optimizer: θ ← θ + (its own step) - lr·λ·s⊙g (paper, Eq. 1).

    A parameter group keeps a ``quantum_weight``, ``n_qubits``, ``scope``, ``inject`` or
    ``normalize`` of its own. What an earlier attachment filled in, in a copy of its optimizer or
    through its checkpoint, is not the group's own: the arguments here replace it, and counting
    starts anew. To go on from a checkpoint, attach first and load it then.

    Args:
        optimizer: any torch optimizer that can step without a closure. Wrappers that keep the
            real one in ``.optimizer`` (accelerate, Lightning) are looked through.
        quantum_weight: λ ≥ 0, a number or a function of the step.
        n_qubits: coordinates, and qubits, of a block.
        depth: layers of the circuit, for perturbations that have layers.
        perturbation: what s is; see ``qsgd perturbations``.
        perturbation_options: its options.
        backend: where circuits run; see ``qsgd backends``. None: QSGD_BACKEND, else ``exact``.
        backend_options: its options. None: QSGD_BACKEND_OPTIONS if the backend is not named.
        shots: per circuit, a number or a function of the step. None: QSGD_SHOTS, else the
            backend's own default.
        scope: ``tensor`` (first n coordinates of each tensor), ``model`` (first n of the named
            parameters), ``all`` (every tensor in blocks of n).
        inject: ``update`` adds the term to the step, ``gradient`` to what the optimizer reads.
        normalize: ``update`` rescales the term, per tensor, so that λ is its RMS relative to the
            base step.
        every: on a simulator, measure every k-th step and hold s in between; None: every step. On
            a paid backend, refresh every k-th step; None: as often as ``budget`` allows, evenly
            over ``total_steps``.
        policy: when a paid backend is asked, and what s is in between: ``tracked`` (a model of the
            device that every result corrects), ``hold`` (the last result), ``twin`` (the model
            alone, free of charge), ``sync`` (hold, and wait for each), or a plugin's. None:
            QSGD_POLICY, else ``tracked``.
        wait: for no result (``never``), for the first (``first``) or for each (``always``). None:
            QSGD_WAIT, else ``first``.
        budget: what a paid backend may cost: ``600s`` of QPU time, ``$25``, ``1e6shots``, or the
            name of a budget on the ledger. None: the ledger's default budget.
        total_steps: optimizer steps of the whole run; a paid backend's refreshes are spread over
            them, and none is asked for that could not arrive before the last.
        run: id of the run on the ledger; the same id finds what was measured before. None: a new
            one, kept in the optimizer's state.
        schedule: further options of the scheduler: see
            :class:`~qsgd_core.measure.options.ScheduleOptions`.
        record: the run's record, a SQLite file, written by a paid run as it goes and by any other
            at ``state_dict()`` and ``close()``. None: under QSGD_HOME for a paid run, else none.
        replay: the record of a run to repeat, step by step, without its backend.
        seed: of everything random in the term.
        named_parameters: the model's, for names in seeds and the order of scope ``model``.
        observers: names or functions that are told of events. None: QSGD_OBSERVERS.

    Returns:
        The attachment: ``qsgd_stats()``, ``qsgd_describe()``, ``detach()``.

    Raises:
        ConfigError: an argument, a name or an optimizer that cannot be used, with the reason.
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
    config = TermConfig(
        quantum_weight=quantum_weight,
        n_qubits=n_qubits,
        depth=depth,
        perturbation=perturbation,
        perturbation_options=perturbation_options,
        backend=backend,
        backend_options=backend_options,
        shots=shots,
        scope=scope,
        inject=inject,
        normalize=normalize,
        every=every,
        policy=policy,
        wait=wait,
        budget=budget,
        total_steps=total_steps,
        run=run,
        schedule=schedule,
        record=record,
        replay=replay,
        seed=seed,
        observers=observers,
    )
    return Attachment(
        optimizer, config, registry=default_registry(), named_parameters=named_parameters
    )


def attached(optimizer: torch.optim.Optimizer) -> Attachment | None:
    """The term that an optimizer carries, or the one in a wrapper of it; None if there is none."""
    return vars(_real(optimizer)).get(ATTACHMENT)


def _real(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer in the wrappers of training libraries."""
    inner = getattr(optimizer, "optimizer", None)
    return _real(inner) if isinstance(inner, torch.optim.Optimizer) else optimizer
