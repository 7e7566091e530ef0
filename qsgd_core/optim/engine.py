"""The engine: the quantum term on a torch optimizer, by hooks alone.

A pre-hook that runs after all others reads θ and g of the selected coordinates: g is what the base
optimizer is about to use, clipped or accumulated. Where ``step`` was given a closure, g is there
when the closure has been evaluated, and ours goes in its place. A post-hook adds -lr·λ·s⊙g.
``step`` is never overridden, and what it was given arrives as it was.

The optimizer has its hooks, and so the engine; the engine has no reference to the optimizer, so
both go when the optimizer goes.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.hooks import RemovableHandle

from qsgd_core.events import StepTaken
from qsgd_core.optim.base_optimizer import (
    ATTACHMENT,
    check_differentiable,
    check_optimizer,
    inner_optimizers,
)
from qsgd_core.optim.closures import Closure, ClosurePlace, around, put_closure, steps_under_way
from qsgd_core.optim.config import TermConfig
from qsgd_core.optim.coordinates.groups import Groups
from qsgd_core.optim.coordinates.layout import Layout
from qsgd_core.optim.coordinates.selection import Bucket
from qsgd_core.optim.counters import RECORD_KEY, Counters
from qsgd_core.optim.describe import Description, describe
from qsgd_core.optim.hooks import LastPreHook
from qsgd_core.optim.source.build import build_source
from qsgd_core.optim.source.held import (
    drop_held,
    held_values,
    keep_held,
    release,
    reserve,
    restore_held,
)
from qsgd_core.optim.source.life import weights_of
from qsgd_core.optim.source.modulation import Modulation
from qsgd_core.optim.source.refresh import modulate
from qsgd_core.optim.telling import Telling
from qsgd_core.optim.term import shadow
from qsgd_core.optim.term.adding import Passed, add_terms
from qsgd_core.optim.term.arithmetic import as_gradient
from qsgd_core.optim.term.effect import EffectSize, Stats
from qsgd_core.optim.term.gradient_route import GradientRoute
from qsgd_core.optim.term.rounding import Rounding
from qsgd_core.optim.term.start import Start
from qsgd_core.optim.unstepped import Unstepped
from qsgd_core.plugins.registry import Registry, default_registry
from qsgd_core.seeds import RunSeed
from qsgd_core.sources import SOURCES

if TYPE_CHECKING:
    from qsgd_core.schedule.forecast.forecast import Forecast


@dataclass
class _Taken:
    """θ, g and s of a step, read when its gradients were there."""

    buckets: list[Bucket]
    theta: list[torch.Tensor]
    grad: list[torch.Tensor]
    s: list[torch.Tensor]
    q: list[torch.Tensor]
    modulation: Modulation
    hold: bool


@dataclass
class _Step:
    """A step in progress.

    Attributes:
        active: indices of the groups that carry the term.
        start: what was there before; of a step that was given a closure.
        taken: what has been read.
        route: gradients that have the term in them now.
    """

    active: list[int]
    start: Start | None = None
    taken: _Taken | None = None
    route: GradientRoute | None = None


@functools.cache
def _eagerly() -> Callable[..., None]:
    """:meth:`Engine._take` outside of a graph that is being compiled; imports the compiler."""
    take: Callable[..., None] = torch.compiler.disable(Engine._take)
    return take


class Engine:
    """The term on one optimizer. Made by :func:`attach`; :class:`~qsgd_core.QSGD` owns one."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        config: TermConfig,
        *,
        registry: Registry,
        named_parameters: Iterable[tuple[str, torch.Tensor]] | None = None,
        resumed: bool = False,
    ) -> None:
        check_optimizer(optimizer)
        self.config = config
        params = (id(p) for group in optimizer.param_groups for p in group["params"])
        self._seed = RunSeed(config.seed, params)
        self.source, self.origin, self._life = build_source(config, registry, seed=self._seed)
        self.attachment: weakref.ref[Any] | None = None
        self._optimizer = weakref.ref(optimizer)
        self._groups = Groups(optimizer, config, named_parameters=named_parameters, resumed=resumed)
        self._layout = Layout(optimizer, self._groups, paid=self.source.paid is not None)
        self._record = Counters(sources=dict.fromkeys(SOURCES, 0), origin=asdict(self.origin))
        self._effect = EffectSize()
        self._rounding = Rounding()
        self._closures = ClosurePlace(type(optimizer).step)
        self._calls_closure = True
        rule = shadow.rule_of(optimizer)
        self._shadow = None if rule is None else shadow.Shadow(rule)
        self._current: _Step | None = None
        self._nested = False
        self._carried: tuple[Any, ...] | None = None
        self._reserved = resumed  # a copy brings what was reserved in the original
        self._telling = Telling(config.observers, registry)
        self.adopt_groups()
        self._announce(optimizer)
        if not resumed:
            optimizer.param_groups[0].pop(RECORD_KEY, None)
            drop_held(optimizer.state)
        self._hook_into(optimizer)

    def _hook_into(self, optimizer: torch.optim.Optimizer) -> None:
        self._last = LastPreHook(optimizer, self._before)
        self._handles: list[LastPreHook | RemovableHandle] = [
            self._last,
            optimizer.register_step_post_hook(torch.compiler.disable(self._after)),
            optimizer.register_state_dict_pre_hook(self._write_record),
            optimizer.register_state_dict_post_hook(self._write_shadow),
            optimizer.register_load_state_dict_pre_hook(self._before_load),
            optimizer.register_load_state_dict_post_hook(self._after_load),
        ]
        self._unstepped = Unstepped(self._groups.order, self._warn_unstepped)
        vars(optimizer)[ATTACHMENT] = self

    # -- what users call -------------------------------------------------------------------

    def stats(self) -> Stats:
        """Steps, effect size and sources so far. Synchronises the device."""
        last, mean, largest = self._effect.read()
        return Stats(
            steps=self._record.steps,
            effect_size=last,
            effect_size_mean=mean,
            effect_size_max=largest,
            sources=dict(self._record.sources),
            spending=self._life.spending(),
            replayed=self._life.verdict(),
        )

    def describe(self) -> Description:
        """What the term touches when every parameter has a gradient. Runs nothing."""
        return describe(self._groups, self.source, self.origin)

    def estimate(self, changes: Mapping[str, Any]) -> Forecast:
        """What a run would cost; see :meth:`.HasTerm.qsgd_estimate`.

        Args:
            changes: arguments of the term that are others than the optimizer's.
        """
        from qsgd_core.optim.foresee import foresee  # brings the ledger's database along

        return foresee(self._groups, replace(self.config, **changes), registry=default_registry())

    def close(self, *, finished: bool | None = None) -> None:
        """End what runs beside the loop; see :meth:`.HasTerm.close`."""
        self._life.close(finished=finished)

    def detach(self) -> None:
        """Take the term off; the optimizer is as before, with the settings its groups brought."""
        self.close()
        self._unstepped.stop()
        for handle in self._handles:
            handle.remove()
        self._groups.release()
        if (optimizer := self._optimizer()) is not None:
            optimizer.param_groups[0].pop(RECORD_KEY, None)
            drop_held(optimizer.state)
            vars(optimizer).pop(ATTACHMENT, None)

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
        """Every other pre-hook has run."""
        if self._current is not None:
            if steps_under_way(optimizer) > 1:  # a step that calls its parent's is one step
                self._nested = True
                return None
            if self._current.route is not None:  # one that raised
                self._current.route.abandon()
        self._unstepped.stop()
        self._nested = self._seed.waits = False
        if not self._groups.complete:
            self.adopt_groups()
        step = self._current = _Step(self._groups.active(self._record.steps))
        if not step.active:
            return None
        given = self._closures.find(args, kwargs) if self._calls_closure else None
        if given is None:
            self._take(step)
            return None
        step.start = Start(self._layout.trainable(step.active))
        where, closure = given
        changed: tuple[tuple[Any, ...], dict[str, Any]]
        changed = put_closure(where, self._around(closure, step), args, kwargs)
        return changed

    def _around(self, closure: Closure, step: _Step) -> Closure:
        """The closure, with θ and g read where the gradients are there for the first time."""

        def before() -> None:
            if step.taken is None and step.start is not None:
                step.start.look()
            elif step.route is not None:
                step.route.abandon()

        def after() -> None:
            if step is not self._current:
                return
            if step.taken is None:
                _eagerly()(self, step)
            elif step.route is not None:
                self._inject(step, step.taken, [b.read_grads() for b in step.taken.buckets])

        return around(closure, before=before, after=after)

    @torch.no_grad()
    def _take(self, step: _Step, buckets: list[Bucket] | None = None) -> None:
        """Read θ and g, and get s for them.

        Args:
            step: the one in progress.
            buckets: the coordinates; None: those of the parameters that have a gradient.
        """
        optimizer, start = self._owner(), step.start
        if self._reserved:
            release(optimizer.state)
            self._reserved = False
        if buckets is None:
            buckets = self._layout.buckets(step.active)
        if not buckets:
            return
        raw = [b.read_grads() for b in buckets]
        if start is None:
            theta = [b.read_params() for b in buckets]
        else:
            theta = [start.theta(b) for b in buckets]
            raw = [start.grad(b, g) for b, g in zip(buckets, raw, strict=True)]
        grad = [as_gradient(optimizer, b, g) for b, g in zip(buckets, raw, strict=True)]
        modulation, hold = modulate(
            self.source,
            record=self._record,
            state=optimizer.state,
            buckets=buckets,
            theta=theta,
            grad=grad,
        )
        s = [b.own(values) for b, values in zip(buckets, modulation.values, strict=True)]
        q = [a * g for a, g in zip(s, grad, strict=True)]
        step.taken = _Taken(buckets, theta, grad, s, q, modulation, hold)
        if self._injects(step):
            if self._shadow is not None:
                self._shadow.begin(buckets, optimizer.state, optimizer.param_groups)
            self._inject(step, step.taken, raw)

    def _injects(self, step: _Step) -> bool:
        return any(self._groups.all[i]["inject"] == "gradient" for i in step.active)

    @torch.no_grad()
    def _inject(self, step: _Step, taken: _Taken, raw: list[torch.Tensor]) -> None:
        step.route = GradientRoute()
        step.route.inject(taken.buckets, taken.s, raw, self._groups.all)

    @torch.no_grad()
    def _after(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        step = self._current
        if step is None or (self._nested and steps_under_way(optimizer) > 1):
            return
        if step.taken is None and step.start is not None:
            self._take_late(optimizer, step, step.start)
        self._current = None
        counted = False
        if step.taken is not None:
            counted = self._finish(optimizer, step, step.taken)
        elif not self._reserved:
            self._reserve(stepped=True)
        if self._groups.moving:
            self._record.steps += 1
        if self._telling:
            source = "zero" if step.taken is None else step.taken.modulation.source
            effect = self._effect.last() if counted else None
            self._telling.tell(StepTaken(self._record.steps, effect_size=effect, source=source))
        self._last.move(optimizer)

    def _take_late(self, optimizer: torch.optim.Optimizer, step: _Step, start: Start) -> None:
        """The closure was given and not called: the gradients were those that it began with."""
        if self._injects(step):
            self._calls_closure = False
            self._warn(
                f"{type(optimizer).__name__}.step ignores its closure, so this step got no term. "
                "From the next step on, g is read as the step begins."
            )
        else:
            self._take(step, self._layout.of(step.active, start.with_gradient))

    def _finish(self, optimizer: torch.optim.Optimizer, step: _Step, taken: _Taken) -> bool:
        """Put replaced gradients back, add the term; whether there was an effect size to count."""
        if step.route is not None:
            step.route.restore(optimizer)
        added = add_terms(
            taken.buckets,
            taken.theta,
            taken.q,
            optimizer.param_groups,
            passed=self._passed(optimizer, step, taken),
            found_inf=getattr(optimizer, "found_inf", None),
            rounding=self._rounding,
        )
        for advice in added.advice:
            self._warn(advice)
        self._record.sources[taken.modulation.source] += 1
        self._life.stepped(self._record.steps, taken.modulation.source)
        if taken.hold:
            keep_held(optimizer.state, taken.buckets, taken.modulation.values)
        if not added.known:
            self._effect.forget()
            return False
        absurd = self._effect.add(added.term_sq, added.base_sq)
        if absurd and not any(optimizer.param_groups[i]["normalize"] for i in step.active):
            self._warn(absurd)
        return True

    def _passed(
        self, optimizer: torch.optim.Optimizer, step: _Step, taken: _Taken
    ) -> list[Passed] | None:
        """What became of an injected term; None where none was, or nobody knows."""
        if step.route is None or self._shadow is None:
            return None
        return self._shadow.step(
            taken.buckets,
            taken.theta,
            taken.grad,
            taken.q,
            optimizer.param_groups,
            found_inf=getattr(optimizer, "found_inf", None),
        )

    # -- checkpoints -----------------------------------------------------------------------

    def record_json(self) -> str:
        """The engine's counters as one line of JSON. Synchronises the device."""
        self._record.effect = self._effect.to_record()
        self._record.place = self._seed.place
        vars(self._record).update(self._life.state())
        return self._record.to_json()

    def load_record(self, text: str) -> None:
        """Go on from :meth:`record_json`."""
        self._record = Counters.go_on(text, self._record.origin)
        if self._record.place is not None:
            self._seed.place = self._record.place
        kept = {"run": self._record.run, "schedule": self._record.schedule}
        self._life.load(self._record.steps, kept)
        self._effect.from_record(self._record.effect, self._device())

    def shadow_state(self) -> dict[str, Any]:
        """What :meth:`load_shadow` takes, for a copy of the optimizer."""
        kept: dict[str, Any] = {"param_groups": [], "state": {}}
        params = self._params()
        if self._shadow is not None:
            kept = {"param_groups": [{"params": range(len(params))}]}
            kept["state"] = {k: {} for k in range(len(params))}
            self._shadow.keep(kept, params)
        return kept

    def load_shadow(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from :meth:`shadow_state`, or a state dict that has it."""
        if self._shadow is not None:
            self._shadow.restore(shadow.taken(state_dict), self._params())

    def _reserve(self, *, stepped: bool) -> None:
        """Have the keys in the state that a checkpoint of this run has; see :mod:`.source.held`."""
        every = self.source.every
        if every is not None and (callable(every) or every > 1):
            buckets = self._layout.whole(scheduled=callable(self.config.quantum_weight))
            self._reserved |= reserve(self._owner().state, buckets, stepped=stepped)

    def _write_record(self, optimizer: torch.optim.Optimizer) -> None:
        self._reserve(stepped=False)
        optimizer.param_groups[0][RECORD_KEY] = self.record_json()
        self._life.save(self._record.steps, weights_of(self._params()))

    def _write_shadow(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
        if self._shadow is not None:
            self._shadow.keep(state_dict, self._params())

    def _before_load(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
        check_differentiable(*state_dict["param_groups"])
        if not self._groups.complete:
            self.adopt_groups()
        kept = {"param_groups": state_dict["param_groups"], "state": dict(state_dict["state"])}
        self._carried = self._groups.settings(), held_values(state_dict), kept

    def _after_load(self, optimizer: torch.optim.Optimizer) -> None:
        if self._carried is not None:
            settings, held, state_dict = self._carried
            self._carried = None
            self._groups.put_back(settings)
            restore_held(optimizer, held)
            shadow.drop(optimizer.state)
            self.load_shadow(state_dict)
        if text := optimizer.param_groups[0].get(RECORD_KEY):
            self.load_record(text)
        self._layout.forget()

    # -- telling ---------------------------------------------------------------------------

    def _announce(self, optimizer: torch.optim.Optimizer) -> None:
        """Say what is to be said before the first step."""
        asked_for = self.origin.backend != "exact"
        idle = all(g["quantum_weight"] == 0 for g in optimizer.param_groups)
        if asked_for and idle and not callable(self.config.quantum_weight):
            self._warn(
                f"Backend {self.origin.backend!r} is set, but quantum_weight is 0: "
                "nothing will be measured."
            )
        begun = self._life.begin(device=self._device().type, tell=self._telling.tell)
        for message in begun:
            self._warn(message)

    def _warn_unstepped(self) -> None:
        optimizer = self._owner()
        name = type(optimizer).__name__
        inner = next(iter(inner_optimizers(optimizer)), None)
        advice = (
            f"If its own methods take the steps, put the term on what it steps with: detach() this "
            f"one and attach(optimizer.{inner})."
            if inner
            else "Call its step(), or take the term off."
        )
        self._warn(
            f"The weights change from one backward pass to the next, and {name}.step() has not "
            f"been called: the term is not part of this training. {advice}"
        )

    def _warn(self, message: str) -> None:
        self._telling.step = self._record.steps
        self._telling.warn(message)

    # -- the optimizer ---------------------------------------------------------------------

    def _owner(self) -> torch.optim.Optimizer:
        optimizer = self._optimizer()
        if optimizer is None:
            raise ReferenceError("The optimizer that carried this term is gone.")
        return optimizer

    def _params(self) -> list[torch.Tensor]:
        return [p for group in self._groups.all for p in group["params"]]

    def _device(self) -> torch.device:
        return next((p.device for p in self._groups.order), torch.device("cpu"))
