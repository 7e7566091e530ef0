"""The engine: the quantum term on a torch optimizer, by hooks alone.

A pre-hook hands the base optimizer a closure of ours; torch optimizers call it first thing in
``step``, after every other pre-hook has run. There θ and g of the selected coordinates are read: g
is what the base optimizer uses, clipped or accumulated, and after the user's own closure. A
post-hook adds -lr·λ·s⊙g. ``step`` is never overridden.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from qsgd_core.events import StepTaken, Warned
from qsgd_core.observing import Observers
from qsgd_core.optim.base_optimizer import ATTACHMENT, as_gradient, check_optimizer
from qsgd_core.optim.config import TermConfig, logger
from qsgd_core.optim.describe import Description, describe
from qsgd_core.optim.effect import SOURCES, EffectSize, Stats
from qsgd_core.optim.gradient_route import GradientRoute
from qsgd_core.optim.groups import Groups
from qsgd_core.optim.held import drop_held, held_values, keep_held, restore_held
from qsgd_core.optim.layout import Layout
from qsgd_core.optim.modulation import Modulation
from qsgd_core.optim.record import RECORD_KEY, Record
from qsgd_core.optim.refresh import modulate
from qsgd_core.optim.rounding import Rounding
from qsgd_core.optim.selection import Bucket
from qsgd_core.optim.shadow import SHADOW_EVERY, shadow_step
from qsgd_core.optim.source import build_source
from qsgd_core.optim.term import update_term
from qsgd_core.registry import Registry


@dataclass
class _Step:
    """What the post-hook needs of a step in progress."""

    buckets: list[Bucket]
    theta: list[torch.Tensor]
    q: list[torch.Tensor]
    modulation: Modulation
    hold: bool
    route: GradientRoute | None = None
    shadow: list[torch.Tensor] | None = None


class Attachment:
    """The term on one optimizer. Made by :func:`attach`; :class:`~qsgd_core.QSGD` owns one.

    Hooks do not survive ``copy.deepcopy`` or pickling of a foreign optimizer (torch drops them):
    call :func:`attach` on the copy.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        config: TermConfig,
        *,
        registry: Registry,
        named_parameters: Iterable[tuple[str, torch.Tensor]] | None = None,
        resumed: bool = False,
    ) -> None:
        self.optimizer = optimizer
        self.config = config
        self.source, self.origin = build_source(config, registry)
        self._groups = Groups(optimizer, config, named_parameters=named_parameters, resumed=resumed)
        self._layout = Layout(self._groups)
        self._record = Record(sources=dict.fromkeys(SOURCES, 0), origin=asdict(self.origin))
        self._effect = EffectSize()
        self._rounding = Rounding()
        self._current: _Step | None = None
        self._open = False
        self._carried: tuple[list[dict[str, Any]], dict[int, torch.Tensor]] | None = None
        self._said: set[str] = set()
        self._observers = Observers(registry.make_observers(config.observers, None))
        self._takes_closure = check_optimizer(optimizer)
        self._waiting = False
        self.adopt_groups()
        self._announce()
        if not resumed:
            optimizer.param_groups[0].pop(RECORD_KEY, None)
            drop_held(optimizer.state)
        self._capture_eagerly = torch.compiler.disable(self._capture)
        self._handles = [
            optimizer.register_step_pre_hook(torch.compiler.disable(self._before)),
            optimizer.register_step_post_hook(torch.compiler.disable(self._after)),
            optimizer.register_state_dict_pre_hook(self._write_record),
            optimizer.register_load_state_dict_pre_hook(self._before_load),
            optimizer.register_load_state_dict_post_hook(self._after_load),
        ]
        vars(optimizer)[ATTACHMENT] = self

    # -- what users call -------------------------------------------------------------------

    def qsgd_stats(self) -> Stats:
        """Steps, effect size and sources so far. Synchronises the device."""
        last, mean, largest = self._effect.read()
        paid = self.source.paid
        spending = None if paid is None else paid.spending()
        return Stats(self._record.steps, last, mean, largest, dict(self._record.sources), spending)

    def qsgd_describe(self) -> Description:
        """What the term touches when every parameter has a gradient. Runs nothing."""
        return describe(self._groups, self.source, self.origin)

    def close(self) -> None:
        """End what runs beside the loop; a step reopens it. Jobs stay on the ledger."""
        if self.source.paid is not None:
            self.source.paid.close()

    def detach(self) -> None:
        """Take the term off; the optimizer is as before, with the settings its groups brought."""
        self.close()
        for handle in self._handles:
            handle.remove()
        self._groups.release()
        self.optimizer.param_groups[0].pop(RECORD_KEY, None)
        drop_held(self.optimizer.state)
        vars(self.optimizer).pop(ATTACHMENT, None)

    def adopt_groups(self) -> None:
        """Give groups the settings they lack and name every parameter; or raise, changing none."""
        self._groups.adopt(self.source.check, step=self._record.steps)
        for group in self._groups.all:
            if advice := self.source.advice(group["n_qubits"]):
                self._warn(advice)

    def names(self) -> dict[torch.Tensor, str]:
        """Every parameter's name, in the model's order where it is known."""
        return dict(self._groups.order)

    # -- a step ----------------------------------------------------------------------------

    def _before(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._current is not None and self._current.route is not None:
            self._current.route.abandon()
        self._current, self._open = None, True
        if not self._groups.complete:
            self.adopt_groups()
        active = self._groups.active(self._record.steps)
        if not active:
            return None
        if not self._takes_closure:
            self._capture(active)
            return None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        self._waiting = True

        def evaluate() -> Any:
            loss = None if closure is None else closure()
            if self._waiting:
                self._waiting = False
                self._capture_eagerly(active)
            return loss

        rest = {k: v for k, v in kwargs.items() if k != "closure"}
        return (args[0], evaluate, *args[2:]), rest

    @torch.no_grad()
    def _capture(self, active: list[int]) -> None:
        """Read θ and g as the base optimizer is about to use them, and get s for them."""
        optimizer, groups = self.optimizer, self.optimizer.param_groups
        buckets = self._layout.buckets(active)
        if not buckets:
            return
        theta = [b.read_params() for b in buckets]
        raw = [b.read_grads() for b in buckets]
        grad = [as_gradient(optimizer, b, g) for b, g in zip(buckets, raw, strict=True)]
        modulation, hold = modulate(
            self.source,
            self.config.every,
            record=self._record,
            state=optimizer.state,
            buckets=buckets,
            theta=theta,
            grad=grad,
        )
        q = [s * g for s, g in zip(modulation.values, grad, strict=True)]
        self._current = step = _Step(buckets, theta, q, modulation, hold)
        if any(groups[i]["inject"] == "gradient" for i in active):
            if self._record.steps % SHADOW_EVERY == 0:
                step.shadow = shadow_step(optimizer, buckets)
            step.route = GradientRoute()
            step.route.inject(buckets, modulation.values, raw, groups)

    @torch.no_grad()
    def _after(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if not self._open:  # the outer end of a step in a step: see GradientRoute.abandon
            return
        step, self._current, self._open = self._current, None, False
        if self._waiting:
            self._waiting = self._takes_closure = False
            self._warn(
                f"{type(optimizer).__name__}.step ignores its closure, so this step got no term. "
                "From the next step on, g is read before the optimizer's later step hooks."
            )
        counted = False
        if step is not None:
            counted = self._finish(step)
            self._record.sources[step.modulation.source] += 1
            if step.hold:
                values = step.modulation.values
                keep_held(optimizer.state, step.buckets, values, step=self._record.steps)
        if self._groups.moving:
            self._record.steps += 1
        if self._observers:
            source = "zero" if step is None else step.modulation.source
            effect = self._effect.last() if counted else None
            self._observers(StepTaken(self._record.steps, effect_size=effect, source=source))

    def _finish(self, step: _Step) -> bool:
        """Put replaced gradients back, add the term; whether there was an effect size to count."""
        groups = self.optimizer.param_groups
        if step.route is not None:
            step.route.restore(self.optimizer)
        found_inf = getattr(self.optimizer, "found_inf", None)
        term_sq, base_sq = [], []
        for i, bucket in enumerate(step.buckets):
            after = bucket.read_params()
            base = after - step.theta[i]
            if any(groups[g]["inject"] == "update" for g in bucket.groups):
                term = update_term(bucket, step.q[i], base, groups)
                if found_inf is not None:
                    term = torch.where(found_inf.to(term.device) == 0, term, 0.0)
                bucket.add_to_params(term)
                if advice := self._rounding.advice(bucket, term, after):
                    self._warn(advice)
            elif step.shadow is not None:
                term, base = base - step.shadow[i], step.shadow[i]
            else:
                continue
            term_sq.append(term.dot(term))
            base_sq.append(base.dot(base))
        if term_sq:
            self._effect.add(term_sq, base_sq)
        return bool(term_sq)

    # -- checkpoints -----------------------------------------------------------------------

    def record_json(self) -> str:
        """The engine's counters as one line of JSON. Synchronises the device."""
        self._record.effect = self._effect.to_record()
        self._record.run = None if self.source.paid is None else self.source.paid.run_id
        return self._record.to_json()

    def load_record(self, text: str) -> None:
        """Go on from :meth:`record_json`."""
        self._record = Record.go_on(text, self._record.origin)
        if self.source.paid is not None and self.config.run is None and self._record.run:
            self.source.paid.go_on_with(self._record.run)
        device = next((p.device for p in self._groups.order), torch.device("cpu"))
        self._effect.from_record(self._record.effect, device)

    def _write_record(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.param_groups[0][RECORD_KEY] = self.record_json()

    def _before_load(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
        if not self._groups.complete:
            self.adopt_groups()
        self._carried = self._groups.settings(), held_values(state_dict)

    def _after_load(self, optimizer: torch.optim.Optimizer) -> None:
        if self._carried is not None:
            settings, held = self._carried
            self._carried = None
            self._groups.put_back(settings)
            restore_held(optimizer, held)
        if text := optimizer.param_groups[0].get(RECORD_KEY):
            self.load_record(text)
        self._layout.forget()

    # -- telling ---------------------------------------------------------------------------

    def _announce(self) -> None:
        asked_for = self.origin.backend != "exact"
        idle = all(g["quantum_weight"] == 0 for g in self.optimizer.param_groups)
        if asked_for and idle and not callable(self.config.quantum_weight):
            self._warn(
                f"Backend {self.origin.backend!r} is set, but quantum_weight is 0: "
                "nothing will be measured."
            )

    def _warn(self, message: str) -> None:
        """Say something once."""
        if message not in self._said:
            self._said.add(message)
            logger.warning(message)
            self._observers(Warned(self._record.steps, message=message))
