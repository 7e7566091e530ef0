"""The engine: the quantum term on a torch optimizer, by hooks alone.

A pre-hook hands the base optimizer a closure of ours; torch optimizers call it first thing in
``step``, after every other pre-hook has run. There θ and g of the selected coordinates are read: g
is what the base optimizer uses, clipped or accumulated, and after the user's own closure. A
post-hook adds -lr·λ·s⊙g. ``step`` is never overridden.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qsgd_core.events import Event, ScheduleChanged, StepTaken, Warned
from qsgd_core.measure.machine import describe_machine
from qsgd_core.measure.ranks import Ranks
from qsgd_core.measure.recording import Recording, fingerprint
from qsgd_core.measure.replay import Replay
from qsgd_core.observing import Observers
from qsgd_core.optim.base_optimizer import ATTACHMENT, check_optimizer
from qsgd_core.optim.config import TermConfig, logger
from qsgd_core.optim.coordinates.groups import Groups
from qsgd_core.optim.coordinates.layout import Layout
from qsgd_core.optim.coordinates.selection import Bucket
from qsgd_core.optim.counters import RECORD_KEY, Record
from qsgd_core.optim.describe import Description, describe
from qsgd_core.optim.source.build import build_source
from qsgd_core.optim.source.held import (
    drop_held,
    held_values,
    keep_held,
    release,
    reserve,
    restore_held,
)
from qsgd_core.optim.source.modulation import Modulation
from qsgd_core.optim.source.refresh import modulate
from qsgd_core.optim.term.adding import add_terms
from qsgd_core.optim.term.arithmetic import as_gradient
from qsgd_core.optim.term.effect import SOURCES, EffectSize, Stats
from qsgd_core.optim.term.gradient_route import GradientRoute
from qsgd_core.optim.term.rounding import Rounding
from qsgd_core.optim.term.shadow import SHADOW_EVERY, shadow_step
from qsgd_core.plugins.registry import Registry, default_registry
from qsgd_core.seeds import RunSeed

if TYPE_CHECKING:
    from qsgd_core.schedule.forecast.forecast import Forecast


QUIET = ("asked", "answered", "applied")
"""What a scheduler says as a matter of course."""


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
        self.replay = None if config.replay is None else Replay(Path(config.replay))
        self._recording = None
        if config.record is not None and Ranks().is_lead:
            self._recording = Recording(Path(config.record))
        params = (id(p) for group in optimizer.param_groups for p in group["params"])
        self._seed = RunSeed(config.seed, params)
        self.source, self.origin = build_source(
            config, registry, seed=self._seed, recording=self._recording, replay=self.replay
        )
        self._groups = Groups(optimizer, config, named_parameters=named_parameters, resumed=resumed)
        self._layout = Layout(optimizer, self._groups, paid=self.source.paid is not None)
        self._record = Record(sources=dict.fromkeys(SOURCES, 0), origin=asdict(self.origin))
        self._effect = EffectSize()
        self._rounding = Rounding()
        self._current: _Step | None = None
        self._open = False
        self._carried: tuple[list[dict[str, Any]], dict[int, torch.Tensor]] | None = None
        self._said: set[str] = set()
        self._reserved = resumed  # a copy brings what was reserved in the original
        observers = config.observers
        if not Ranks().is_lead:  # what has a name writes somewhere; rank 0 speaks for all
            observers = [o for o in observers or () if callable(o)]
        self._observers = Observers(registry.make_observers(observers, None))
        if self.source.paid is not None:
            self.source.paid.tell = self._tell
        self._takes_closure = check_optimizer(optimizer)
        self._waiting = False
        self.adopt_groups()
        self._announce()
        self._note_machine()
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
        sources = dict(self._record.sources)
        replayed = None if self.replay is None else self.replay.verdict()
        return Stats(self._record.steps, last, mean, largest, sources, spending, replayed)

    def qsgd_describe(self) -> Description:
        """What the term touches when every parameter has a gradient. Runs nothing."""
        return describe(self._groups, self.source, self.origin)

    def qsgd_estimate(
        self,
        total_steps: int | None = None,
        *,
        budget: str | None = None,
        backend: str | None = None,
        backend_options: Mapping[str, Any] | None = None,
        shots: int | None = None,
        every: int | None = None,
    ) -> Forecast:
        """What a run of ``total_steps`` steps would cost, and what it would get for it.

        Sends nothing that is paid for and writes nothing. Asks the service for its prices and its
        calibration, in a process of its own; where it cannot be reached, the price table.

        Args:
            total_steps: optimizer steps of the whole run, instead of the optimizer's own, as are
                the following.
            budget: an amount or a name on the ledger.
            backend: where circuits would run.
            backend_options: its options.
            shots: per circuit.
            every: steps between two refreshes. None in both: as often as the budget allows.

        Raises:
            ConfigError: something that cannot be done as asked.
            BudgetError: the budget does not pay for one job, or nobody knows whether it does.
            BackendError: the service cannot be asked, and the price table has no row for it.
        """
        from qsgd_core.optim.foresee import foresee  # brings the ledger's database along

        given = {
            "total_steps": total_steps,
            "budget": budget,
            "backend": backend,
            "shots": shots,
            "every": every,
        }
        changes: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        if backend is not None or backend_options is not None:
            changes["backend_options"] = backend_options
        return foresee(self._groups, replace(self.config, **changes), registry=default_registry())

    def close(self, *, finished: bool | None = None) -> None:
        """End what runs beside the loop; a step reopens it. Jobs that run stay on the ledger.

        Args:
            finished: whether this is the end of the run, at which jobs that still wait in a queue
                are cancelled. None: whether ``total_steps`` have been taken.
        """
        if self.source.paid is not None:
            self.source.paid.close(finished=finished)
        if self._recording is not None:
            self._recording.close()

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
        self._seed.waits = False
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
        if self._reserved:
            release(optimizer.state)
            self._reserved = False
        buckets = self._layout.buckets(active)
        if not buckets:
            return
        theta = [b.read_params() for b in buckets]
        raw = [b.read_grads() for b in buckets]
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
        self._current = step = _Step(buckets, theta, q, modulation, hold)
        if any(groups[i]["inject"] == "gradient" for i in active):
            if self._record.steps % SHADOW_EVERY == 0:
                step.shadow = shadow_step(optimizer, buckets)
            step.route = GradientRoute()
            step.route.inject(buckets, s, raw, groups)

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
            if self._recording is not None:
                self._recording.source(self._record.steps, step.modulation.source)
            if step.hold:
                keep_held(optimizer.state, step.buckets, step.modulation.values)
        elif not self._reserved:
            self._reserve(stepped=True)
        if self._groups.moving:
            self._record.steps += 1
        if self._observers:
            source = "zero" if step is None else step.modulation.source
            effect = self._effect.last() if counted else None
            self._observers(StepTaken(self._record.steps, effect_size=effect, source=source))

    def _finish(self, step: _Step) -> bool:
        """Put replaced gradients back, add the term; whether there was an effect size to count."""
        if step.route is not None:
            step.route.restore(self.optimizer)
        added = add_terms(
            step.buckets,
            step.theta,
            step.q,
            self.optimizer.param_groups,
            shadow=step.shadow,
            found_inf=getattr(self.optimizer, "found_inf", None),
            rounding=self._rounding,
        )
        for advice in added.advice:
            self._warn(advice)
        if added.term_sq:
            self._effect.add(added.term_sq, added.base_sq)
        return bool(added.term_sq)

    # -- checkpoints -----------------------------------------------------------------------

    def record_json(self) -> str:
        """The engine's counters as one line of JSON. Synchronises the device."""
        self._record.effect = self._effect.to_record()
        self._record.place = self._seed.place
        if self.source.paid is not None:
            self._record.run = self.source.paid.run_id
            self._record.schedule = self.source.paid.state()
        return self._record.to_json()

    def load_record(self, text: str) -> None:
        """Go on from :meth:`record_json`."""
        self._record = Record.go_on(text, self._record.origin)
        if self._record.place is not None:
            self._seed.place = self._record.place
        if self._recording is not None:
            self._recording.rewind(self._record.steps)
        if self.source.paid is not None and self._record.run:
            self.source.paid.go_on_with(self._record.run, self._record.schedule)
        device = next((p.device for p in self._groups.order), torch.device("cpu"))
        self._effect.from_record(self._record.effect, device)

    def _reserve(self, *, stepped: bool) -> None:
        """Have the keys in the state that a checkpoint of this run has; see :mod:`.source.held`."""
        every = self.source.every
        if every is not None and (callable(every) or every > 1):
            buckets = self._layout.whole(scheduled=callable(self.config.quantum_weight))
            self._reserved |= reserve(self.optimizer.state, buckets, stepped=stepped)

    def _write_record(self, optimizer: torch.optim.Optimizer) -> None:
        self._reserve(stepped=False)
        optimizer.param_groups[0][RECORD_KEY] = self.record_json()
        if self._recording is not None or self.replay is not None:
            weights = fingerprint(p for group in optimizer.param_groups for p in group["params"])
            if self._recording is not None:
                self._recording.checkpoint(self._record.steps, weights)
            if self.replay is not None:
                self.replay.compare_weights(self._record.steps, weights)

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

    def _note_machine(self) -> None:
        """Record where this runs; of a replay, say how that differs from where it was recorded."""
        if self._recording is None and self.replay is None:
            return
        device = next((p.device.type for p in self._groups.order), "cpu")
        machine = describe_machine() | {"device": device}
        if self._recording is not None:
            self._recording.header["machine"] = machine
        if self.replay is not None and (different := self.replay.elsewhere(machine)):
            self._warn(
                "The recorded run was made elsewhere, so the last bits of this one may differ: "
                f"{'; '.join(different)}."
            )

    def _announce(self) -> None:
        asked_for = self.origin.backend != "exact"
        idle = all(g["quantum_weight"] == 0 for g in self.optimizer.param_groups)
        if asked_for and idle and not callable(self.config.quantum_weight):
            self._warn(
                f"Backend {self.origin.backend!r} is set, but quantum_weight is 0: "
                "nothing will be measured."
            )

    def _tell(self, event: Event) -> None:
        """Pass on what the scheduler says; what costs the run something, to the log too."""
        if isinstance(event, ScheduleChanged) and event.what not in QUIET:
            logger.log(logging.INFO if event.what == "planned" else logging.WARNING, event.message)
        self._observers(event)

    def _warn(self, message: str) -> None:
        """Say something once."""
        if message not in self._said:
            self._said.add(message)
            logger.warning(message)
            self._observers(Warned(self._record.steps, message=message))
